from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from tower_cases import abstract_variables, identity, quick_jit, random_variables, run

from vision.models.convnext import ConvNeXt, ConvNeXtBlock
from vision.parallel.mesh import Mesh, ShardingRule, batch_sharding, state_shardings
from vision.train.precision import Precision
from vision.train.tower import Tap, count_params, forward

SHAPE = (8, 8, 12, 3)
CLASSES = 5
Tiny = functools.partial(ConvNeXt, depths=(1, 2), dims=(8, 16), stem_stride=2, num_classes=CLASSES)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), SHAPE)


@pytest.fixture(scope="module")
def variables():
    return random_variables(Tiny(), SHAPE)


@pytest.fixture(scope="module")
def plain(variables, images):
    return run(Tiny(), variables, images)


def test_vocabulary(plain, variables):
    shapes = {"stem": (8, 4, 6, 8), "block00": (8, 4, 6, 8)}
    shapes |= dict.fromkeys(["block01", "block02", "map"], (8, 2, 3, 16))
    shapes |= {"tokens": (8, 6, 16), "pooled": (8, 16), "embedding": (8, 16)}
    assert {k: v.shape for k, v in plain.items()} == shapes | {"logits": (8, CLASSES)}
    np.testing.assert_allclose(plain["pooled"], plain["map"].mean((1, 2)), atol=1e-6)
    pooled, norm = np.asarray(plain["pooled"]), variables[0]["norm"]
    normal = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1) + 1e-6)[:, None]
    expected = normal * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(plain["embedding"], expected, atol=1e-5)


def test_taps(variables, images, plain):
    def text(tap):
        def apply(variables):
            return forward(Tiny(), *variables, images, train=False, tap=tap)[1]

        return jax.jit(apply).lower(variables).as_text()

    assert text(None) == text(Tap(identity))
    # Without its branch, the last block hands on what it is given: the sites are where they say.
    params = variables[0] | {"block02": jax.tree.map(jnp.zeros_like, variables[0]["block02"])}
    edit = Tap(lambda name, x: x + 1, "block01")
    edited = run(Tiny(), (params, variables[1]), images, tap=edit)
    np.testing.assert_allclose(edited["block01"], plain["block01"] + 1, atol=1e-5)
    np.testing.assert_allclose(edited["block02"], edited["block01"], atol=0)
    assert np.abs(plain["block02"] - plain["block01"]).max() > 0.1


def test_stochastic_depth(variables, images):
    tower = Tiny(drop_path=0.6)
    keys = [jax.random.key(seed) for seed in (0, 1, 0)]
    a, b, again = (run(tower, variables, images, train=True, key=key) for key in keys)
    assert (a["logits"] == again["logits"]).all()
    assert (a["logits"] != b["logits"]).any()
    np.testing.assert_array_equal(a["block00"], b["block00"])
    dropped = (a["block02"] == a["block01"]).all(axis=(1, 2, 3))
    assert 0 < dropped.sum() < 8
    with pytest.raises(InvalidRngError, match="dropout"):
        jax.eval_shape(lambda: forward(tower, *variables, images, train=True)[1])


def test_fully_sharded_parameters(variables, images, plain):
    """Eight devices compute the same, and move parameters to the activations only."""
    mesh = Mesh(data=2, fsdp=4).build(jax.devices()[:8])
    rules = (ShardingRule(".*", "fsdp", min_size=64),)
    params, state = variables
    shardings = state_shardings(params, mesh, rules)
    assert not shardings["block00"]["conv_dw"]["kernel"].is_fully_replicated
    with jax.set_mesh(mesh):
        apply = quick_jit(
            lambda params, x: forward(Tiny(), params, state, x, train=False)[1]["logits"]
        )
        args = jax.device_put(params, shardings), jax.device_put(images, batch_sharding(mesh))
        compiled = apply.lower(*args).compile()
        np.testing.assert_allclose(compiled(*args), plain["logits"], atol=1e-5)
    assert "all-gather" in compiled.as_text()
    assert "all-to-all" not in compiled.as_text()


def test_initialisation():
    """Layer scale starts at 1e-6: a block is nearly the identity."""
    block = ConvNeXtBlock(1e-6, Precision())
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 8), np.float32)
    variables = quick_jit(lambda: block.init(jax.random.key(0), x, None, None))()
    y = quick_jit(lambda v: block.apply(v, x, None, None))(variables)
    np.testing.assert_allclose(variables["params"]["ls"]["gamma"], 1e-6)
    np.testing.assert_allclose(x, y, atol=1e-5)
    assert (x != y).any()


def test_bfloat16(variables, images, plain):
    out = run(Tiny(precision=Precision(compute="bfloat16")), variables, images)
    assert out["stem"].dtype == out["map"].dtype == jnp.bfloat16
    for name in ("pooled", "embedding", "logits"):
        assert out[name].dtype == jnp.float32
        np.testing.assert_allclose(out[name], plain[name], atol=0.15)


# timm's; its smallest four have 1x1 convolutions for dense layers, which count the same.
@pytest.mark.parametrize(("variant", "count"), [("atto", 3_695_520), ("base", 88_591_464)])
def test_parameter_counts(variant, count):
    params, _ = abstract_variables(ConvNeXt(variant=variant, num_classes=1000), (1, 224, 224, 3))
    assert count_params(params) == count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "needs depths and dims; .* atto, femto"),
        ({"depths": (1, 1)}, "needs depths and dims"),
        ({"variant": "giant"}, "variant is 'giant'.*'tiny'"),
        ({"variant": "tiny", "depths": (3, 3)}, r"depths=\(3, 3\) and dims=\(96, 192, 384, 768\)"),
        ({"depths": (1, 0), "dims": (8, 8)}, r"depths\[1\] is 0, expected a whole number >= 1"),
        ({"depths": (), "dims": ()}, r"depths is \(\), expected .*not empty"),
        ({"variant": "tiny", "stem_stride": 0}, "stem_stride is 0, expected"),
        ({"variant": "tiny", "drop_path": 1.5}, "drop_path is 1.5, expected"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXt(**fields)


def test_small_images():
    with pytest.raises(ValueError, match="image of 16x31 is smaller than the total stride 32"):
        abstract_variables(ConvNeXt(variant="atto"), (1, 16, 31, 3))
    params, _ = abstract_variables(ConvNeXt(variant="atto", stem_stride=1), (1, 16, 31, 3))
    assert params["stem_conv"]["kernel"].shape == (1, 1, 3, 40)
