"""BiT, VGG, DenseNet, and what ResNet and ConvNeXt got after their first papers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_cases import abstract_variables, quick_jit, random_variables, run

from vision.models.bit import BiT, standardised_convolve
from vision.models.convnext import ConvNeXt, GlobalResponse
from vision.models.densenet import DenseNet
from vision.models.resnet import ResNet
from vision.models.vgg import VGG, at_least
from vision.train.precision import Precision
from vision.train.tower import Tap, count_params, forward

TINY_DENSE = DenseNet(layers=(1, 2), growth=4, stem="cifar", num_classes=5)
DENSE_SHAPE = (2, 4, 6, 3)

# Counts of timm's models, and shapes for one image of 224 px.
PUBLISHED = {
    "resnet50d": (
        ResNet(depth=50, stem="deep", downsample="average", num_classes=1000),
        25_576_264,
        {"stem": (56, 56, 64), "block02": (56, 56, 256), "map": (7, 7, 2048)},
    ),
    "resnext50_32x4d": (
        ResNet(depth=50, groups=32, group_width=4, num_classes=1000),
        25_028_904,
        {"stem": (56, 56, 64), "block03": (28, 28, 512), "map": (7, 7, 2048)},
    ),
    "resnetv2_50x1_bit": (
        BiT(num_classes=1000),
        25_549_352,
        {"stem": (56, 56, 64), "block02": (56, 56, 256), "map": (7, 7, 2048), "pooled": (2048,)},
    ),
    "convnextv2_tiny": (
        ConvNeXt(variant="tiny", grn=True, layer_scale=None, num_classes=1000),
        28_635_496,
        {"stem": (56, 56, 96), "block17": (7, 7, 768)},
    ),
    "vgg16": (
        VGG(num_classes=1000),
        138_357_544,
        {
            "stem": (224, 224, 64),
            "block11": (14, 14, 512),
            "map": (7, 7, 512),
            "tokens": (49, 512),
            "pooled": (4096,),
            "embedding": (4096,),
        },
    ),
    "densenet121": (
        DenseNet(variant="121", num_classes=1000),
        7_978_856,
        {
            "stem": (56, 56, 64),
            "block00": (56, 56, 96),
            "block05": (56, 56, 256),
            "block57": (7, 7, 1024),
            "map": (7, 7, 1024),
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    tower, count, shapes = PUBLISHED[name]
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    (_, out), variables = jax.eval_shape(
        lambda x: tower.init_with_output({"params": jax.random.key(0)}, x), images
    )
    assert count_params(variables["params"]) == count
    shapes |= {"logits": (1000,)}
    assert {site: out[site].shape for site in shapes} == {
        site: (1, *shape) for site, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("tower", "sites"),
    [
        (BiT(depth=14, norm_groups=8, width_multiplier=0.125, num_classes=3), 4),
        (VGG(depth=11, batch_norm=True, width_multiplier=0.125, hidden=8, num_classes=3), 7),
        (TINY_DENSE, 3),
    ],
)
def test_sites_and_dtypes(tower, sites):
    tower = tower.clone(precision=Precision(compute="bfloat16"))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    tapped = []

    def called(x: jax.Array) -> Any:
        tap = Tap(lambda name, x: [tapped.append(name), x][1])
        return tower.init_with_output({"params": jax.random.key(0)}, x, tap=tap)

    (_, out), variables = jax.eval_shape(called, images)
    blocks = [f"block{i:02d}" for i in range(sites)]
    order = ["stem", *blocks, "tokens", "map", "pooled", "embedding", "logits"]
    assert tapped == order
    assert set(out) == set(order)
    last = ("pooled", "embedding", "logits")
    assert {k for k, x in out.items() if x.dtype == jnp.float32} == set(last)
    assert all(x.dtype == jnp.bfloat16 for k, x in out.items() if k not in last)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))


def test_standardised_kernels():
    """Neither scale nor offset of an output's kernel matters; without them it is a convolution."""
    rng = np.random.default_rng(0)
    shapes = ((2, 5, 6, 4), (3, 3, 4, 8))
    x, kernel = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    options: dict[str, Any] = {
        "window_strides": (1, 1),
        "padding": "VALID",
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
    }
    scale, offset = rng.uniform(0.5, 2, 8).astype(np.float32), rng.standard_normal(8, np.float32)
    apply = quick_jit(lambda kernel: standardised_convolve(x, kernel, **options))
    a, b = apply(kernel), apply(kernel * scale + offset)
    np.testing.assert_allclose(a, b, atol=1e-4)
    normal = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2))
    plain = jax.lax.conv_general_dilated(x, normal, **options)
    np.testing.assert_allclose(a, plain, atol=1e-4)


def test_global_response():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5), np.float32)
    x[0, :, :, 2] = 0
    layer = GlobalResponse(Precision())
    gamma, beta = np.linspace(-1, 1, 5, dtype=np.float32), np.arange(5, dtype=np.float32)
    params = {"params": {"gamma": jnp.asarray(gamma), "beta": jnp.asarray(beta)}}
    norm = np.sqrt((x**2).sum((1, 2), keepdims=True))
    expected = x + gamma * x * norm / norm.mean(-1, keepdims=True) + beta
    y, back = quick_jit(lambda x: jax.vjp(lambda x: layer.apply(params, x), x))(x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(quick_jit(back)(y)[0]).all()

    block = ConvNeXt(depths=(1,), dims=(4,), stem_stride=1, grn=True, num_classes=2)
    assert set(abstract_variables(block, (1, 4, 4, 3))[0]["block00"]["mlp"]) == {
        *("fc1", "fc2", "grn")
    }


@pytest.mark.parametrize(("size", "side"), [((1, 2), 7), ((3, 9), 7), ((7, 8), 7)])
def test_maps_that_are_too_small(size, side):
    x = np.random.default_rng(0).standard_normal((2, *size, 3), np.float32)
    rows, columns = (max(n, side) for n in size)
    expected = np.empty((2, rows, columns, 3), np.float32)
    for i in range(rows):
        for j in range(columns):
            (top, bottom), (left, right) = (
                (place * n // m, -(-(place + 1) * n // m))
                for place, n, m in ((i, size[0], rows), (j, size[1], columns))
            )
            expected[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    actual = quick_jit(lambda x: at_least(x, side))(x)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_edit_of_a_dense_layer_reaches_what_follows():
    variables = random_variables(TINY_DENSE, DENSE_SHAPE)
    images = jax.random.normal(jax.random.key(1), DENSE_SHAPE)
    plain = run(TINY_DENSE, variables, images)
    edited = run(TINY_DENSE, variables, images, tap=Tap(lambda name, x: 2 * x, "block01"))
    channels = plain["block01"].shape[-1]
    np.testing.assert_array_equal(plain["block02"][..., :channels], plain["block01"])
    np.testing.assert_allclose(edited["block01"], 2 * plain["block01"], rtol=1e-5)
    np.testing.assert_allclose(edited["block02"][..., :channels], edited["block01"], rtol=1e-5)
    assert np.abs(edited["logits"] - plain["logits"]).max() > 0.01


def test_rematerialised_dense_layers_keep_each_channel_once():
    """What is kept grows linearly with the number of layers, not with its square."""

    def kept(layers: int) -> int:
        tower = DenseNet(
            layers=(layers,), growth=4, stem="cifar", num_classes=5, dropout=0.3, remat="full"
        )
        variables = abstract_variables(tower, DENSE_SHAPE)

        def residuals(params: Any, state: Any, images: jax.Array) -> Any:
            def loss(params: Any) -> jax.Array:
                key = jax.random.key(0)
                out = forward(tower, params, state, images, train=True, key=key)[1]
                return out["logits"].sum()

            return jax.vjp(loss, params)[1]

        images = jax.ShapeDtypeStruct(DENSE_SHAPE, jnp.float32)
        leaves = jax.tree.leaves(jax.eval_shape(residuals, *variables, images))
        return sum(x.size for x in leaves if x.shape[:3] == DENSE_SHAPE[:3])

    one, two, three = (kept(layers) for layers in (1, 2, 3))
    assert three - two == two - one > 0


def test_vgg_dropout():
    tower = VGG(depth=11, width_multiplier=0.0625, hidden=64, window=1, num_classes=3, dropout=0.5)
    variables = random_variables(tower, (2, 32, 32, 3))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    a, b = (run(tower, variables, images, train=True, key=jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(a["map"], b["map"])
    assert (a["pooled"] != b["pooled"]).any()
    kept = np.asarray(a["embedding"] != 0)
    np.testing.assert_allclose(a["embedding"], np.where(kept, 2 * a["pooled"], 0), rtol=1e-6)
    assert (a["pooled"][~kept] > 0).any()


@pytest.mark.parametrize(
    ("build", "fields", "message"),
    [
        (ResNet, {"depth": 18, "groups": 2}, "groups=2 and group_width=64 are of bottlenecks"),
        (ResNet, {"downsample": "max"}, "downsample is 'max'.*'strided', 'average'"),
        (ResNet, {"group_width": 3, "width_multiplier": 0.5}, "group_width=3 times"),
        (ResNet, {"stem": "deep", "width_multiplier": 1 / 64}, "stem='deep' an odd number"),
        (BiT, {"depth": 18}, "depth is 18, expected one of 14, 26, 50, 101, 152"),
        (BiT, {"width_multiplier": 0.25}, "width_multiplier=0.25.*norm_groups=32"),
        (VGG, {"depth": 12}, "depth is 12, expected one of 11, 13, 16, 19"),
        (VGG, {"dropout": 1.0}, "dropout is 1.0, expected"),
        (VGG, {"width_multiplier": 0.3}, "width_multiplier is 0.3, .* 64 times it a whole number"),
        (DenseNet, {}, "needs layers and growth; .* 121, 161"),
        (DenseNet, {"variant": "122"}, "variant is '122', expected"),
        (
            DenseNet,
            {"layers": (2, 0), "growth": 4},
            r"layers\[1\] is 0, expected",
        ),
    ],
)
def test_bad_fields(build, fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


@pytest.mark.parametrize("tower", [VGG(depth=11), DenseNet(variant="121")])
def test_images_that_are_too_small(tower):
    with pytest.raises(ValueError, match="image of 31x31 is smaller than the total stride 32"):
        abstract_variables(tower, (1, 31, 31, 3))
