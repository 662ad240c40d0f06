from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from tower_cases import (
    abstract_variables,
    assert_same,
    identity,
    quick_jit,
    random_variables,
    run,
)

from vision.models import vit as vit_module
from vision.models.posemb import resample_posemb
from vision.models.transformer import Block
from vision.models.vit import ViT, resolve_size, stack_blocks, unstack_blocks
from vision.train.precision import Precision
from vision.train.tower import Tap, count_params, forward, initialise

SHAPE = (2, 8, 12, 3)
GRID = (2, 3)
WIDTH, DEPTH, HEADS, CLASSES = 16, 2, 2, 5
Tiny = functools.partial(
    ViT, width=WIDTH, depth=DEPTH, heads=HEADS, patch=4, num_classes=CLASSES, layer_scale=0.5
)
CONTENT = [f"block0{i}{site}" for i in range(DEPTH) for site in ("/attn", "/mlp", "")]


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), SHAPE)


@pytest.fixture(scope="module")
def variables():
    return random_variables(Tiny(), SHAPE)


@pytest.fixture(scope="module")
def plain(variables, images):
    return run(Tiny(), variables, images)


@pytest.fixture(scope="module")
def tapped(variables, images):
    return run(Tiny(), variables, images, tap=Tap(identity))


def unstacked(variables):
    return unstack_blocks(variables[0]), variables[1]


def test_vocabulary(plain):
    tokens = (2, 1 + 6, WIDTH)
    shapes = dict.fromkeys(["stem", "tokens", *CONTENT], tokens)
    shapes |= {"map": (2, *GRID, WIDTH), "pooled": (2, WIDTH), "embedding": (2, WIDTH)}
    assert {k: v.shape for k, v in plain.items()} == shapes | {"logits": (2, CLASSES)}


def test_residual_sums(plain):
    """A block's output is its input and what its two branches say that they add."""
    x = plain["stem"]
    for i in range(DEPTH):
        x = x + plain[f"block0{i}/attn"] + plain[f"block0{i}/mlp"]
        np.testing.assert_allclose(x, plain[f"block0{i}"], atol=1e-6)


def test_scan_equals_unrolled(variables, images, plain):
    """The same parameters, in evaluation and with the same noise in training."""
    again = stack_blocks(unstack_blocks(variables[0]))
    assert jax.tree.all(jax.tree.map(np.array_equal, again, variables[0]))
    assert_same(plain, run(Tiny(scan=False), unstacked(variables), images))
    noisy, key = Tiny(drop_path=0.5, dropout=0.1), jax.random.key(3)
    scanned = run(noisy, variables, images, train=True, key=key)
    # A tap in a block runs the stacked parameters one by one.
    tap = Tap(identity, "block01")
    assert_same(scanned, run(noisy, variables, images, train=True, key=key, tap=tap))
    assert np.abs(scanned["embedding"] - plain["embedding"]).max() > 0.1


def test_noise(variables, images):
    tower = Tiny(drop_path=0.8)
    copies = jnp.tile(images[:1], (16, 1, 1, 1))
    apply = quick_jit(lambda key: forward(tower, *variables, copies, train=True, key=key)[1])
    a, b, again = (apply(jax.random.key(seed)) for seed in (0, 1, 0))
    assert (a["logits"] == again["logits"]).all()
    assert (a["logits"] != b["logits"]).any()
    # The first block never drops a branch; the last drops whole branches of whole examples.
    first, last = a["block00/mlp"], a["block01/mlp"]
    np.testing.assert_allclose(first, jnp.broadcast_to(first[:1], first.shape), atol=1e-6)
    dropped = (last == 0).all(axis=(1, 2))
    assert 0 < dropped.sum() < 16
    assert (dropped | (last != 0).any(axis=(1, 2))).all()
    with pytest.raises(InvalidRngError, match="dropout"):
        jax.eval_shape(lambda: forward(tower, *variables, images, train=True)[1])


def program(tower, variables, images, tap=None):
    def apply(variables):
        return forward(tower, *variables, images, train=False, tap=tap)[1]

    return jax.jit(apply).lower(variables).as_text()


def test_evaluation_has_no_noise(variables, images):
    noisy = Tiny(drop_path=0.8, dropout=0.5)
    assert program(noisy, variables, images) == program(Tiny(), variables, images)


def test_identity_tap(variables, images, plain, tapped):
    """Returning x changes nothing: the same program, or block by block the same values."""
    text = functools.partial(program, Tiny(), variables, images)
    outside = Tap(identity, "stem|tokens|map|pooled|embedding|logits")
    assert text() == text(outside)
    assert "while" in text()
    assert "while" not in text(Tap(identity, "block01/mlp"))
    asked = ("attention", "middle")
    assert_same(plain, {k: v for k, v in tapped.items() if not k.endswith(asked)})
    middles = {f"block0{i}/middle" for i in range(DEPTH)}
    assert middles == {name for name in tapped if name.endswith("middle")}
    middle = tapped["stem"] + tapped["block00/attn"]
    np.testing.assert_allclose(tapped["block00/middle"], middle, atol=1e-6)


def test_attention(plain, tapped):
    names = [name for name in tapped if name.endswith("attention")]
    assert names == [f"block0{i}/attention" for i in range(DEPTH)]
    assert not any("attention" in name for name in plain)
    for name in names:
        assert tapped[name].shape == (2, HEADS, 7, 7)
        np.testing.assert_allclose(tapped[name].sum(-1), 1, atol=1e-6)
        # The branch after it: explicit against fused attention.
        branch = name.replace("attention", "attn")
        np.testing.assert_allclose(tapped[branch], plain[branch], atol=1e-5)


def test_edits(variables, images, plain):
    """Every edit reaches what comes after it, and nothing before."""
    to_cls = jnp.zeros((7, 7)).at[:, 0].set(1)

    def edit(name, x):
        if name == "block00/attention":
            return jnp.broadcast_to(to_cls, x.shape)
        return x * 0.5 + 1

    edited = run(Tiny(), variables, images, tap=Tap(edit, "block00|block00/attention"))
    np.testing.assert_allclose(edited["stem"], plain["stem"], atol=1e-6)
    assert [name for name in edited if name.endswith("attention")] == ["block00/attention"]
    # Everybody attends to the class token alone, so everybody gets the same.
    attn = edited["block00/attn"]
    np.testing.assert_allclose(attn, jnp.broadcast_to(attn[:, :1], attn.shape), atol=1e-6)
    assert np.ptp(plain["block00/attn"], axis=1).max() > 0.1

    x = edited["stem"] + edited["block00/attn"] + edited["block00/mlp"]
    np.testing.assert_allclose(edited["block00"], x * 0.5 + 1, atol=1e-6)
    params = unstack_blocks(variables[0])
    block = Block(HEADS, 4 * WIDTH, 0.0, 0.5, True, Precision(), None)
    x, _ = quick_jit(block.apply)({"params": params["block01"]}, edited["block00"], None)
    np.testing.assert_allclose(edited["block01"], x, atol=2e-6)
    x = np.asarray(x)[:, 0]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * params["norm"]["scale"] + params["norm"]["bias"]
    logits = x @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(edited["logits"], logits, atol=1e-5)


def test_pruning_tokens(variables, images):
    """A tap may drop tokens from a block on; then there is no map."""
    tap = Tap(lambda name, x: x[:, :4], "block00")
    out = jax.eval_shape(lambda: forward(Tiny(), *variables, images, train=False, tap=tap)[1])
    assert out["block00/mlp"].shape == (2, 7, WIDTH)
    assert out["block00"].shape == out["tokens"].shape == (2, 4, WIDTH)
    assert "map" not in out
    assert out["logits"].shape == (2, CLASSES)


def test_pruning_between_the_branches(variables, images):
    """What goes on has fewer tokens, and the MLP has not seen the others."""
    tap = Tap(lambda name, x: x[:, :4], "block00/middle")
    out = jax.eval_shape(lambda: forward(Tiny(), *variables, images, train=False, tap=tap)[1])
    assert out["block00/attn"].shape == (2, 7, WIDTH)
    for site in ("block00/middle", "block00/mlp", "block00", "block01/attn", "tokens"):
        assert out[site].shape == (2, 4, WIDTH)


def gradients(tower, variables, images, site=None):
    """Compiled ``(params, zero) -> (loss, gradients)``, zero being added at a site, if any."""

    def loss(params, zero):
        tap = None if site is None else Tap(lambda name, x: x + zero, site)
        _, out, _ = forward(tower, params, variables[1], images, train=False, tap=tap)
        return jax.nn.logsumexp(out["logits"], axis=-1).sum()

    function = jax.value_and_grad(loss, argnums=(0, 1))
    return quick_jit(function).lower(variables[0], jnp.zeros((2, 7, WIDTH))).compile()


@pytest.fixture(scope="module")
def gradient(variables, images):
    return gradients(Tiny(), variables, images)


def assert_close_trees(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5), a, b)


def test_gradient_at_a_site(variables, images, gradient):
    """By a zero perturbation; equal to finite differences, also through rematerialisation."""
    zero = jnp.zeros((2, 7, WIDTH))
    step = gradients(Tiny(remat="full"), variables, images, "block00/mlp")
    loss, (by_params, by_site) = step(variables[0], zero)
    direction = jax.random.normal(jax.random.key(2), zero.shape)
    eps = 1e-2
    ahead, behind = (step(variables[0], sign * eps * direction)[0] for sign in (1, -1))
    finite = (ahead - behind) / (2 * eps)
    assert abs(finite) > 0.01
    np.testing.assert_allclose((by_site * direction).sum(), finite, rtol=5e-3)
    # The unrolled stack gives the parameters the gradients of the scanned one.
    assert_close_trees((loss, by_params), (gradient(variables[0], zero)[0], gradient(
        variables[0], zero)[1][0]))  # fmt: skip


def test_remat_of_scanned_blocks(variables, images, gradient):
    zero = jnp.zeros((2, 7, WIDTH))
    memory = {"none": gradient.memory_analysis().temp_size_in_bytes}
    for remat in ("full", "dots"):
        compiled = gradients(Tiny(remat=remat), variables, images)
        assert_close_trees(gradient(variables[0], zero), compiled(variables[0], zero))
        memory[remat] = compiled.memory_analysis().temp_size_in_bytes
    assert memory["full"] < memory["dots"] < memory["none"]


def test_unread_outputs_of_scanned_blocks_cost_nothing(variables, images, gradient, monkeypatch):
    def silent(*args, **kwargs):
        x, _ = Block.__call__(*args, **kwargs)
        return x, {}

    subclass = types.new_class("Silent", (Block,), exec_body=lambda ns: ns.update(__call__=silent))
    monkeypatch.setattr(vit_module, "Block", subclass)
    compiled = gradients(Tiny(), variables, images)
    for measure in ("memory_analysis", "cost_analysis"):
        ours, least = getattr(gradient, measure)(), getattr(compiled, measure)()
        if measure == "memory_analysis":
            ours, least = ours.temp_size_in_bytes, least.temp_size_in_bytes
        assert ours == least


def test_other_resolution(variables):
    """Positions are resampled on the fly to the grid of the images, square or not."""
    params, state = variables
    x = jax.random.normal(jax.random.key(4), (1, 16, 12, 3))

    def apply(pos):
        return forward(Tiny(), params | {"pos_embed": pos}, state, x, train=False)[1]

    out = jax.eval_shape(apply, params["pos_embed"])
    assert out["map"].shape == (1, 4, 3, WIDTH)
    stem = quick_jit(lambda pos: apply(pos)["stem"])
    pos = resample_posemb(params["pos_embed"], GRID, (4, 3))
    np.testing.assert_allclose(stem(params["pos_embed"]), stem(pos), atol=1e-6)
    difference = (stem(pos) - stem(0 * pos))[0]
    np.testing.assert_allclose(difference[1:], pos.reshape(12, WIDTH), atol=1e-5)
    assert not difference[0].any()


@pytest.mark.parametrize("pool", ["mean", "map"])
def test_pool(pool, images):
    tower = Tiny(pool=pool, posemb="sincos2d", depth=1)
    variables = random_variables(tower, SHAPE)
    assert not {"cls_token", "pos_embed"} & variables[0].keys()

    def edit(name, x):
        ramp = jnp.arange(WIDTH) / WIDTH
        return jnp.stack([x[0], x[1].at[0].add(ramp), x[2, ::-1, ::-1]])

    copies = jnp.tile(images[:1], (3, 1, 1, 1))
    out = run(tower, variables, copies, tap=Tap(edit, "map"))
    tokens = out["tokens"]
    assert tokens.shape == (3, 6, WIDTH)
    np.testing.assert_array_equal(out["map"][0].reshape(6, WIDTH), tokens[0])
    if pool == "mean":
        np.testing.assert_allclose(out["pooled"][0], tokens[0].mean(0), atol=1e-6)
    # An edit of the map reaches the logits; the order of places does not.
    unchanged, edited, reordered = out["logits"]
    assert np.abs(edited - unchanged).max() > 0.01
    np.testing.assert_allclose(reordered, unchanged, atol=2e-6)


def test_cls_pool(plain):
    np.testing.assert_allclose(plain["pooled"], plain["tokens"][:, 0], atol=0)
    np.testing.assert_array_equal(plain["map"].reshape(2, 6, WIDTH), plain["tokens"][:, 1:])


def test_prefix_and_norms(images):
    """Registers and positions of the class token reach the patches; the last norm moves."""
    tower = Tiny(
        pool="mean",
        class_token=True,
        class_position=True,
        registers=3,
        pre_norm=True,
        norm_pooled=True,
        activation="swiglu",
        norm_epsilon=1e-5,
    )
    variables = random_variables(tower, SHAPE)
    params = variables[0]
    assert params["registers"].shape == (1, 3, WIDTH)
    assert params["blocks"]["mlp"]["fc1"]["kernel"].shape == (DEPTH, WIDTH, 8 * WIDTH)
    assert "bias" not in params["patch_embed"]
    assert "norm" not in params
    out = run(tower, variables, images)
    assert out["tokens"].shape == (2, 1 + 3 + 6, WIDTH)
    prefix = np.concatenate([params["cls_token"] + params["cls_pos_embed"], params["registers"]], 1)
    np.testing.assert_allclose(out["stem"][:, :4], np.tile(prefix, (2, 1, 1)), atol=1e-6)
    np.testing.assert_array_equal(out["tokens"], out["block01"])
    np.testing.assert_array_equal(out["map"].reshape(2, 6, WIDTH), out["tokens"][:, 4:])
    x = np.asarray(out["map"]).mean((1, 2))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * params["fc_norm"]["scale"] + params["fc_norm"]["bias"]
    np.testing.assert_allclose(out["pooled"], x, atol=2e-5)
    moved = {**params, "registers": -params["registers"]}
    edited = run(tower, (moved, variables[1]), images)
    assert np.abs(edited["logits"] - out["logits"]).max() > 0.01


def test_bfloat16(variables, images, plain):
    out = run(Tiny(precision=Precision(compute="bfloat16")), variables, images)
    assert out["block00"].dtype == out["tokens"].dtype == out["stem"].dtype == jnp.bfloat16
    for name in ("pooled", "embedding", "logits"):
        assert out[name].dtype == jnp.float32
        np.testing.assert_allclose(out[name], plain[name], atol=0.15)
    params, _ = abstract_variables(Tiny(precision=Precision(compute="bfloat16")), SHAPE)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}


def test_initialisation(images):
    """Zero head, layers that differ, and bounds of q, k and v as if they were three kernels."""
    init = quick_jit(functools.partial(initialise, Tiny()))
    params, state = init(jax.random.key(0), images)
    assert state == {}
    assert not np.any(params["head"]["kernel"])
    qkv = np.abs(params["blocks"]["attn"]["qkv"]["kernel"])
    assert qkv.shape == (DEPTH, WIDTH, 3 * WIDTH)
    bound = np.sqrt(6 / (WIDTH + WIDTH))
    assert 0.95 * bound < qkv.max() <= bound
    assert (qkv[0] != qkv[1]).all()
    np.testing.assert_array_equal(params["blocks"]["ls1"]["gamma"], 0.5)


@pytest.mark.parametrize("num_classes", [None, 0])
def test_without_head(num_classes, images):
    tower = Tiny(num_classes=num_classes)
    params, _ = abstract_variables(tower, SHAPE)
    assert "head" not in params
    embedding, out, _ = jax.eval_shape(lambda p: forward(tower, p, {}, images, train=False), params)
    assert "logits" not in out
    assert embedding.shape == (2, WIDTH)


# timm's count less one width: there, the class token has a position of its own as well.
@pytest.mark.parametrize(
    ("variant", "timm_count"),
    [("Ti/16", 5_717_416), ("S/16", 22_050_664), ("B/16", 86_567_656), ("L/16", 304_326_632)],
)
def test_parameter_counts(variant, timm_count):
    params, _ = abstract_variables(ViT(variant=variant, num_classes=1000), (1, 224, 224, 3))
    width, depth, mlp, _, patch = resolve_size(variant)
    block = 2 * 2 * width + (width + 1) * 3 * width + (width + 1) * width
    block += (width + 1) * mlp + (mlp + 1) * width
    ends = (patch * patch * 3 + 1) * width + 14 * 14 * width + width + 2 * width
    count = depth * block + ends + (width + 1) * 1000
    assert count_params(params) == count == timm_count - width


def test_giant_variants():
    assert resolve_size("g/14") == (1408, 40, 6144, 16, 14)
    assert resolve_size("H/14") == (1280, 32, 5120, 16, 14)
    assert resolve_size("S/8", depth=2) == (384, 2, 1536, 6, 8)
    params, _ = abstract_variables(ViT(variant="g/14", num_classes=1000), (1, 224, 224, 3))
    assert count_params(params) == 1_012_610_024


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"needs width, depth, heads, patch; .* Ti/16, S/16"),
        ({"width": 8, "depth": 1, "patch": 4}, "needs heads"),
        ({"variant": "X/16"}, r"variant='X/16'.*Ti/16.*g/14"),
        ({"variant": "S16"}, "variant='S16'"),
        ({"variant": "S/0"}, "variant='S/0'"),
        ({"variant": "S/16", "heads": 7}, "heads=7 does not divide width=384"),
        ({"variant": "S/16", "depth": 0}, "depth is 0, expected"),
        ({"variant": "S/16", "pool": "max"}, "pool is 'max'.*'cls', 'mean', 'map'"),
        ({"variant": "S/16", "posemb": "rope"}, "posemb is 'rope'.*'learned', 'sincos2d'"),
        ({"variant": "S/16", "remat": "some"}, "remat is 'some', expected"),
        ({"variant": "S/16", "drop_path": 1.0}, "drop_path is 1.0, expected"),
        ({"variant": "S/16", "dropout": -0.1}, "dropout is -0.1, expected"),
        ({"variant": "S/16", "num_classes": -1}, "num_classes is -1, expected"),
        (
            {"variant": "S/16", "attention": "cudnn"},
            "attention='cudnn' needs precision.compute='bfloat16'",
        ),
        ({"variant": "S/16", "registers": -1}, "registers is -1, expected"),
        ({"variant": "S/16", "norm_epsilon": 0.0}, "norm_epsilon is 0.0, expected"),
        ({"variant": "S/16", "activation": "relu"}, "activation is 'relu'.*'swiglu'"),
        ({"variant": "S/16", "class_token": False}, "pool='cls' reads the class token"),
        (
            {"variant": "S/16", "pool": "mean", "class_position": True},
            "class_position=True needs class_token=True",
        ),
        ({"variant": "S/16", "pool": "map", "activation": "swiglu"}, "without gates"),
        ({"variant": "S/16", "width": 390, "posemb": "sincos2d"}, "divisible by 4, not 390"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        ViT(**fields)


def test_bad_images():
    with pytest.raises(ValueError, match="image of 10x12 is not divisible by the patch 4x4"):
        abstract_variables(Tiny(), (1, 10, 12, 3))
    with pytest.raises(ValueError, match="not of shape"):
        abstract_variables(Tiny(), (10, 12, 3))
    with pytest.raises(TypeError, match="uint8"):
        abstract_variables(Tiny(), SHAPE, jnp.uint8)
