"""Text towers: what they give, what they must not see, and how they are laid out."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_cases import assert_same, identity, quick_jit, run

from tests.tiny import drawn
from vision.models.attention import attend, attention_weights
from vision.models.bag_of_words import BagOfWords, HashedNgrams, ngrams
from vision.models.layers import activate
from vision.models.text import TextCNN, TextTransformer, real_tokens
from vision.models.transformer import clip_init
from vision.models.vit import stack_blocks, unstack_blocks
from vision.train.precision import Precision
from vision.train.tower import Tap, forward, initialise

WIDTH, TOKENS, VOCAB = 16, 7, 24
Tiny = functools.partial(
    TextTransformer, vocab_size=VOCAB, width=WIDTH, depth=2, heads=2, context=TOKENS
)
TOWERS = {
    "causal": Tiny(),
    "class": Tiny(causal=False, pool="first", initialisation="xavier", activation="quick_gelu"),
    "mean": Tiny(causal=False, pool="mean", layer_scale=0.5),
    "map": Tiny(causal=False, pool="map", remat="full"),
    "words": BagOfWords(VOCAB, WIDTH, hidden=12),
    "ngrams": HashedNgrams(64, ((0, 1), (0, 1, 2), (0, 2)), WIDTH, activation="tanh"),
    "cnn": TextCNN(VOCAB, WIDTH, word_width=8, kernels=(2, 3), filters=6),
}


def ids(rows: int = 3) -> jax.Array:
    """The first text fills its row, the second ends in padding, the third holds id 0 as a word."""
    x = np.random.default_rng(0).integers(1, VOCAB, (rows, TOKENS))
    x[1, 4:] = 0
    x[2, 2], x[2, 5:] = 0, 0
    return jnp.asarray(x, jnp.int32)


@functools.cache
def variables(name: str) -> Any:
    return drawn(functools.partial(initialise, TOWERS[name]), ids())


def out_of(name: str, x: jax.Array, **kwargs: Any) -> Any:
    return run(TOWERS[name], variables(name), x, **kwargs)


@pytest.mark.parametrize("name", TOWERS)
def test_padding_changes_nothing(name: str):
    """A longer or shorter row of the same text has the same embedding; the mask says why."""
    out = out_of(name, ids())
    assert out["embedding"].shape == (3, WIDTH)
    assert out["mask"].sum(1).tolist() == [7, 4, 5]
    short = out_of(name, ids()[:, :5])
    np.testing.assert_allclose(short["embedding"][1:], out["embedding"][1:], atol=1e-5)
    nothing = out_of(name, jnp.zeros_like(ids()))
    assert not nothing["mask"].any()
    assert np.isfinite(nothing["embedding"]).all()


@pytest.mark.parametrize("name", TOWERS)
def test_every_token_matters_and_order_unless_bag_of_words(name: str):
    x = ids()
    out = np.asarray(out_of(name, x)["embedding"])
    changed = np.asarray(out_of(name, x.at[1, 1].set((x[1, 1] + 1) % VOCAB))["embedding"])
    assert np.abs(changed[1] - out[1]).max() > 1e-3
    assert (changed[[0, 2]] == out[[0, 2]]).all()
    swapped = out_of(name, x.at[1, :3].set(x[1, 2::-1]))["embedding"]
    difference = np.abs(swapped[1] - out[1]).max()
    assert difference < 1e-5 if name == "words" else difference > 1e-3


@pytest.mark.parametrize("name", ["causal", "mean"])
def test_attention_masks_of_causal_and_bidirectional_towers(name: str):
    """By the tokens, and by the attention weights that a tap makes explicit."""
    x = ids()
    plain = out_of(name, x)
    later = out_of(name, x.at[0, 4].set((x[0, 4] + 1) % VOCAB))["tokens"][0]
    same = np.abs(later - plain["tokens"][0]).max(-1) < 1e-6
    assert same.tolist() == ([True] * 4 + [False] * 3 if name == "causal" else [False] * 7)
    tapped = out_of(name, x, tap=Tap(identity))
    seen = tapped.pop("block00/attention")[1, 0] > 0
    for site in ("block01/attention", "block00/middle", "block01/middle"):
        tapped.pop(site)
    expected = (
        np.tri(7, dtype=bool) if name == "causal" else np.ones((7, 7), bool) & (np.arange(7) < 4)
    )
    assert (np.asarray(seen) == expected).all()
    assert_same(plain, tapped, atol=1e-5)


def test_scan_equals_unrolled_and_noise_is_the_same():
    params, state = variables("mean")
    tower = Tiny(causal=False, pool="mean", layer_scale=0.5, scan=False)
    unrolled = unstack_blocks(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, stack_blocks(unrolled), params))
    assert_same(out_of("mean", ids()), run(tower, (unrolled, state), ids()))
    noisy = Tiny(causal=False, pool="mean", layer_scale=0.5, drop_path=0.5, dropout=0.1)
    key = jax.random.key(3)
    scanned = run(noisy, (params, state), ids(), train=True, key=key)
    by_block = run(noisy, (params, state), ids(), train=True, key=key, tap=Tap(identity, "block01"))
    assert_same(scanned, by_block)
    assert np.abs(scanned["embedding"] - out_of("mean", ids())["embedding"]).max() > 0.05


def test_bag_of_words_is_a_product_with_counts():
    params, _ = variables("words")
    x = np.asarray(ids())
    counts = np.stack([np.bincount(row, minlength=VOCAB) for row in x]).astype(np.float32)
    counts[1, 0] -= 3
    counts[2, 0] -= 2  # but not the one within the text
    hidden = np.maximum(counts @ params["token_embed"]["embedding"] + params["bias"], 0)
    expected = hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    np.testing.assert_allclose(out_of("words", ids())["embedding"], expected, atol=1e-5)


def test_ngrams_and_their_mask():
    x = jnp.asarray([[5, 6, 7, 5, 6, 0, 0], [6, 5, 6, 7, 9, 9, 0]], jnp.int32)
    mask = real_tokens(x, 0)
    code, there = (np.asarray(a) for a in ngrams(x, mask, (0, 1), 0))
    assert there.sum(1).tolist() == [4, 5]
    assert code[0, 0] == code[0, 3] == code[1, 1]
    assert len({*code[0][there[0]].tolist(), *code[1][there[1]].tolist()}) == 6
    assert code[0, 0] != code[1, 0]  # the order matters
    skip, there = (np.asarray(a) for a in ngrams(x, mask, (0, 2), 1))
    assert there.sum(1).tolist() == [3, 4]
    assert skip[0, 0] == skip[1, 1]
    assert skip[0, 0] not in code
    # Hash values of many pairs fill the buckets evenly.
    pairs = jnp.stack(jnp.meshgrid(jnp.arange(200), jnp.arange(200)), -1).reshape(-1, 2)
    spread, _ = ngrams(pairs, jnp.ones(pairs.shape, bool), (0, 1), 0)
    counts = np.bincount(np.asarray(spread[:, 0]) % 1000, minlength=1000)
    assert abs(counts.mean() - 40) < 1e-9
    assert counts.std() < 8  # sqrt(40) = 6.3 for throws of dice


def test_attention_with_a_mask_equals_the_explicit_one():
    q, k, v = (
        jax.random.normal(key, (2, 5, 2, 4)) for key in jax.random.split(jax.random.key(0), 3)
    )
    mask = jnp.asarray([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], bool)
    for causal in (False, True):
        fused = attend(q, k, v, Precision(), None, mask, causal)
        weights = attention_weights(q, k, mask=mask, causal=causal)
        np.testing.assert_allclose(
            fused, jnp.einsum("bhqk,bkhd->bqhd", weights, v), rtol=1e-5, atol=1e-6
        )
        assert not np.asarray(weights)[~np.broadcast_to(mask[:, None, None], weights.shape)].any()


def test_the_papers_initialisation():
    tower = TextTransformer(1000, width=128, depth=8, heads=2)
    init = quick_jit(functools.partial(initialise, tower))
    params, _ = init(jax.random.key(0), jnp.ones((1, 77), jnp.int32))
    block = params["blocks"]
    expected = {
        "token": (params["token_embed"]["embedding"], 0.02),
        "positions": (params["pos_embed"], 0.01),
        "qkv": (block["attn"]["qkv"]["kernel"], 128**-0.5),
        "proj": (block["attn"]["proj"]["kernel"], 128**-0.5 * 16**-0.5),
        "fc1": (block["mlp"]["fc1"]["kernel"], 256**-0.5),
        "fc2": (block["mlp"]["fc2"]["kernel"], 128**-0.5 * 16**-0.5),
    }
    for name, (kernel, deviation) in expected.items():
        assert float(jnp.std(kernel)) == pytest.approx(deviation, rel=0.03), name
    assert not np.any(block["mlp"]["fc1"]["bias"])
    assert clip_init(128, 8).mlp_bias is nn.initializers.zeros


def test_activations():
    x = jnp.linspace(-4, 4, 9)
    np.testing.assert_allclose(activate(x, "quick_gelu"), x / (1 + np.exp(-1.702 * x)), rtol=1e-5)
    erf = np.asarray(jax.scipy.special.erf(x / np.sqrt(2)))
    np.testing.assert_allclose(activate(x, "gelu"), x * (1 + erf) / 2, atol=1e-6)
    gap = np.abs(activate(x, "gelu_tanh") - activate(x, "gelu")).max()
    assert 0 < gap < 1e-3


def test_precision_and_no_padding_id():
    tower = Tiny(precision=Precision(compute="bfloat16"), pad_id=None)
    given = variables("causal")
    shapes = jax.eval_shape(lambda: forward(tower, *given, ids(), train=False)[1])
    assert shapes["tokens"].dtype == jnp.bfloat16
    assert shapes["embedding"].dtype == jnp.float32
    out = quick_jit(lambda: forward(tower, *given, ids(), train=False)[1])()
    assert out["mask"].all()
    assert (out["pooled"] == out["tokens"][:, -1].astype(jnp.float32)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tiny(heads=3), "heads=3 does not divide width=16"),
        (lambda: Tiny(pool="cls"), "pool is 'cls'.*'last', 'argmax', 'first'"),  # pyright: ignore
        (lambda: Tiny(pad_id=24), "pad_id=24, but it is None or one of 0..23"),
        (lambda: HashedNgrams(patterns=((1, 2),)), "increasing distances from 0"),
        (lambda: HashedNgrams(patterns=()), r"patterns is \(\), .*not empty"),
        (lambda: TextCNN(4, kernels=(3, 3)), r"kernels is \(3, 3\), .*no item twice"),
        (lambda: BagOfWords(0), "vocab_size is 0, expected"),
    ],
)
def test_wrong_arguments_are_named(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_ids_are_named():
    def call(x: jax.Array) -> Any:
        return jax.eval_shape(lambda: initialise(Tiny(), jax.random.key(0), x))

    with pytest.raises(ValueError, match="rows of 9 tokens do not fit into context=7"):
        call(jnp.ones((2, 9), jnp.int32))
    with pytest.raises(TypeError, match="integers, not float32"):
        call(jnp.ones((2, 7)))
    with pytest.raises(ValueError, match=r"not of shape \(2, 3, 7\)"):
        call(jnp.ones((2, 3, 7), jnp.int32))
