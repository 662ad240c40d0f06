"""Hidden words: which, how many, what is asked about them, and what a dual encoder takes along."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import drawn
from vision.checkpoint.reading import load_matching
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.data.tokenizers import WordTokenizer
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.contrast import Contrast
from vision.objectives.masked_language import MaskedLanguage, MaskedLanguageError
from vision.train.accumulate import loss_and_gradient
from vision.train.objective import Context
from vision.train.tower import forward, initialise

LENGTH, ROWS = 12, 8
TOKENIZER = WordTokenizer(tuple("abcdefghijklmnopqrst"), length=LENGTH)
MASK = TOKENIZER.vocab_size
TEXT = TextTransformer(
    MASK + 1,
    width=16,
    depth=1,
    heads=2,
    context=LENGTH,
    causal=False,
    pool="mean",
    masked_head=True,
)
OBJECTIVE = MaskedLanguage(TEXT, TOKENIZER)


def texts(rows: int = ROWS, words: int = LENGTH - 2, seed: int = 0) -> np.ndarray:
    """Every second word is the one before it, in the alphabet."""
    start = np.random.default_rng(seed).integers(0, 18, (rows, (words + 1) // 2))
    ids = np.stack([start, start + 1], -1).reshape(rows, -1)[:, :words]
    rows_of = [" ".join(TOKENIZER.words[i] for i in row) for row in ids]
    return TOKENIZER.encode(rows_of)


def context(seed: int = 1) -> Context:
    return Context(jnp.int32(0), 10, train=True, key=jax.random.key(seed))


def test_which_tokens_are_hidden_and_by_what():
    ids = np.concatenate([texts(3000), texts(1000, words=3), np.zeros((5, LENGTH), np.int32)])
    objective = dataclasses.replace(OBJECTIVE, rate=0.25)
    hide = jax.jit(objective.hide)
    hidden, positions, chosen = map(np.asarray, hide(jnp.asarray(ids), jax.random.key(0)))
    counts = chosen.sum(1)
    assert positions.shape == (4005, 3)
    assert set(counts[:3000]) == {2}  # a quarter of ten words, to the nearest even number
    assert set(counts[3000:4000]) == {1}
    assert not counts[4000:].any()

    row, place = np.nonzero(chosen)[0], positions[chosen]
    assert len(set(zip(row, place, strict=True))) == chosen.sum()
    old, new = ids[row, place], hidden[row, place]
    assert old.min() > 2  # no padding, no ends
    changed = ids != hidden
    changed[row, place] = False
    assert not changed.any()
    share = 1 / np.sqrt(len(old))  # two standard deviations of a half
    assert np.mean(new == MASK) == pytest.approx(0.8, abs=share)
    # One of 21 random words is the old one.
    assert np.mean(new == old) == pytest.approx(0.1 + 0.1 / 21, abs=share)
    others = new[(new != MASK) & (new != old)]
    assert set(others) == set(range(3, MASK))
    spread = np.bincount(place[row < 3000], minlength=LENGTH)[1:-1] / (row < 3000).sum()
    np.testing.assert_allclose(spread, 0.1, atol=0.015)

    again = hide(jnp.asarray(ids), jax.random.key(0))
    redrawn = hide(jnp.asarray(ids), jax.random.key(1))
    np.testing.assert_array_equal(again[0], hidden)
    assert np.any(redrawn[0] != hidden)


def test_the_loss_is_that_of_the_hidden_tokens_only():
    batch = {"text": texts(), "_mask": np.arange(ROWS) != 3}
    batch["text"][5] = 0
    variables = jax.jit(OBJECTIVE.init)(jax.random.key(0), batch)
    # Zero biases and tiny tables would hide what is not used.
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape), variables.params)
    ctx = context()

    @jax.jit
    def run(params, batch):
        hidden = OBJECTIVE.hide(batch["text"], ctx.rng("masked_language"))
        out = forward(TEXT, params["model"], {}, hidden[0], train=False)[1]
        return OBJECTIVE.loss(variables.merge(params=params), batch, ctx), hidden, out

    (loss, aux), (_, positions, chosen), out = run(params, batch)
    kept = np.asarray(chosen) & batch["_mask"][:, None]
    assert not kept[[3, 5]].any()
    row, place = np.nonzero(kept)[0], np.asarray(positions)[kept]
    model = params["model"]
    x = np.asarray(out["tokens"][row, place] @ model["masked_dense"]["kernel"], np.float64)
    x = np.asarray(jax.nn.gelu(x + model["masked_dense"]["bias"], approximate=False))
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    x = x * model["masked_norm"]["scale"] + model["masked_norm"]["bias"]
    logits = x @ model["token_embed"]["embedding"].T + model["masked_bias"]
    np.testing.assert_allclose(out["token_logits"][row, place], logits, rtol=1e-4, atol=1e-4)
    true = batch["text"][row, place]
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(true)), true]
    assert float(loss) == pytest.approx(float(expected.mean()), rel=1e-4)
    assert float(aux.weight) == len(true) == 2 * (ROWS - 2)
    assert float(aux.metrics["masked_accuracy"]) == pytest.approx(np.mean(logits.argmax(1) == true))


@pytest.mark.slow
def test_masked_words_are_learned_from_their_context():
    objective = dataclasses.replace(OBJECTIVE, rate=0.2)
    data = {"text": texts(128), "_mask": np.ones(128, bool)}
    variables = jax.jit(objective.init)(jax.random.key(0), data)

    @jax.jit
    def many(params):
        def step(carry, i):
            params, speed = carry
            ctx = dataclasses.replace(context(), key=jax.random.fold_in(jax.random.key(2), i))
            _, aux, grads = loss_and_gradient(objective, params, variables, data, ctx)
            speed = jax.tree.map(lambda s, g: 0.9 * s + g, speed, grads)
            params = jax.tree.map(lambda p, s: p - 0.1 * s, params, speed)
            return (params, speed), aux.metrics["masked_accuracy"]

        return jax.lax.scan(step, (params, jax.tree.map(jnp.zeros_like, params)), jnp.arange(200))

    _, accuracy = many(variables.params)
    assert accuracy[:5].mean() < 0.15
    assert accuracy[-20:].mean() > 0.4


def test_a_dual_encoder_loads_the_pretrained_text_tower(tmp_path: Path):
    image = ViT(width=8, depth=1, heads=2, patch=4, pool="mean")
    objective = MaskedLanguage(Dual(image, TEXT, width=8), TOKENIZER, dual=True)
    batch = {
        "text": np.stack([texts(), texts(seed=1)], 1),
        "_mask": np.ones(ROWS, bool),
        "image": np.zeros((ROWS, 8, 8, 3), np.float32),
    }
    variables = drawn(objective.init, batch)
    assert set(variables.params["model"]) == {"text", "text_projection"}
    loss, aux = jax.eval_shape(lambda v: objective.loss(v, batch, context()), variables)
    assert (loss.shape, aux.metrics["masked_accuracy"].shape) == ((), ())
    predicted = jax.eval_shape(lambda v: objective.predict(v, batch, context()), variables)
    assert predicted["text/embedding"].shape == (2 * ROWS, 8)

    store = CheckpointStore(tmp_path, Checkpoints())
    state = {"params": variables.params}
    assert store.save(1, state, {"step": 1}, wait=True)
    store.close()
    without_head = dataclasses.replace(TEXT, masked_head=False, parent=None)
    contrast = Contrast(Dual(image, without_head, width=8))
    fresh = {"params": drawn(contrast.init, batch, seed=1).params}
    taken, report = load_matching(tmp_path, r"params\.model\.text\.(?!masked_)", fresh)
    assert all("model.text." in name for name in report.taken)
    assert all("model.text." not in name for name in report.kept)
    np.testing.assert_array_equal(
        taken["params"]["model"]["text"]["token_embed"]["embedding"],
        variables.params["model"]["text"]["token_embed"]["embedding"],
    )


def test_errors():
    for make, message in (
        (lambda: MaskedLanguage(TEXT, TOKENIZER, rate=0.0), "rate is 0.0"),
        (lambda: MaskedLanguage(TEXT, TOKENIZER, mask=0.8, random=0.3), "mask=0.8, random=0.3"),
        (lambda: MaskedLanguage(TEXT, TOKENIZER, mask_id=-1), "mask_id is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="masked_head=True needs causal=False"):
        TextTransformer(30, masked_head=True)
    batch = {"text": jnp.asarray(texts()), "_mask": jnp.ones(ROWS, bool)}
    with pytest.raises(MaskedLanguageError, match="no 'text'; it has _mask"):
        OBJECTIVE.init(jax.random.key(0), {"_mask": batch["_mask"]})

    def lose(tower: TextTransformer) -> None:
        objective = MaskedLanguage(tower, TOKENIZER)

        def run() -> Any:
            variables = objective.init(jax.random.key(0), batch)
            return objective.loss(variables, batch, context())[0]

        jax.eval_shape(run)

    with pytest.raises(MaskedLanguageError, match=r"vocab_size=24.*mask is id 24.*at least 25"):
        lose(dataclasses.replace(TEXT, vocab_size=MASK, parent=None))
    with pytest.raises(ValueError, match="masked_head=True"):
        lose(dataclasses.replace(TEXT, masked_head=False, parent=None))


def test_a_tower_without_masked_head_has_no_parameters_of_it():
    plain = dataclasses.replace(TEXT, masked_head=False, parent=None)
    names = [
        set(jax.eval_shape(lambda t=t: initialise(t, jax.random.key(0), jnp.asarray(texts())))[0])
        for t in (plain, TEXT)
    ]
    assert names[1] - names[0] == {"masked_dense", "masked_norm", "masked_bias"}
    assert names[0] < names[1]
