from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_cases import abstract_variables, quick_jit, random_variables, run

from tests.slow import with_slow
from vision.models.efficientnet import EfficientNet
from vision.models.efficientnet_lite import EfficientNetLite
from vision.models.inception import InceptionV4
from vision.models.inception_resnet import InceptionResNetV2
from vision.models.inverted_residual import divisible, scaled_repeats
from vision.models.mobilenet import MobileNetV1, MobileNetV2, MobileNetV3
from vision.models.mobilenet_v4 import MobileNetV4
from vision.models.swin import Swin, from_windows, shift_mask, to_windows
from vision.models.vit import TENSOR_PARALLEL
from vision.parallel.mesh import Mesh, state_shardings
from vision.train.precision import Precision
from vision.train.tower import Tap, count_params, forward
from vision.weights.fit_biases import fit_square_table

# timm's, which count no running statistics. Sites of ``out`` at the smallest image.
PUBLISHED: Mapping[str, tuple[Any, int, int, Mapping[str, tuple[int, ...]]]] = {
    "mobilenet_v1": (
        MobileNetV1(num_classes=1000),
        4_231_976,
        64,
        {"stem": (32, 32, 32), "block12": (2, 2, 1024), "map": (2, 2, 1024)},
    ),
    "mobilenet_v2": (
        MobileNetV2(num_classes=1000),
        3_504_872,
        64,
        {"stem": (32, 32, 32), "block16": (2, 2, 320), "map": (2, 2, 1280)},
    ),
    "mobilenet_v3_large": (
        MobileNetV3("large", num_classes=1000),
        5_483_032,
        64,
        {"stem": (32, 32, 16), "block15": (2, 2, 960), "pooled": (960,), "embedding": (1280,)},
    ),
    "mobilenet_v3_small": (
        MobileNetV3("small", num_classes=1000),
        2_542_856,
        64,
        {"stem": (32, 32, 16), "block11": (2, 2, 576), "pooled": (576,), "embedding": (1024,)},
    ),
    "mobilenet_v4_conv_small": (
        MobileNetV4("conv_small", num_classes=1000),
        3_774_024,
        64,
        {"stem": (32, 32, 32), "block16": (2, 2, 960), "embedding": (1280,)},
    ),
    "mobilenet_v4_conv_medium": (
        MobileNetV4("conv_medium", num_classes=1000),
        9_715_512,
        64,
        {"stem": (32, 32, 32), "block22": (2, 2, 960), "embedding": (1280,)},
    ),
    "mobilenet_v4_conv_large": (
        MobileNetV4("conv_large", num_classes=1000),
        32_590_864,
        64,
        {"stem": (32, 32, 24), "block27": (2, 2, 960), "embedding": (1280,)},
    ),
    "mobilenet_v4_hybrid_medium": (
        MobileNetV4("hybrid_medium", num_classes=1000),
        11_074_648,
        64,
        {"stem": (32, 32, 32), "block31": (2, 2, 960), "embedding": (1280,)},
    ),
    "mobilenet_v4_hybrid_large": (
        MobileNetV4("hybrid_large", num_classes=1000),
        37_764_624,
        64,
        {"stem": (32, 32, 24), "block36": (2, 2, 960), "embedding": (1280,)},
    ),
    "efficientnet_b0": (
        EfficientNet("B0", num_classes=1000),
        5_288_548,
        64,
        {"stem": (32, 32, 32), "block15": (2, 2, 320), "map": (2, 2, 1280)},
    ),
    "efficientnet_b3": (
        EfficientNet("B3", num_classes=1000),
        12_233_232,
        64,
        {"stem": (32, 32, 40), "block25": (2, 2, 384), "map": (2, 2, 1536)},
    ),
    "efficientnet_lite0": (
        EfficientNetLite("lite0", num_classes=1000),
        4_652_008,
        64,
        {"stem": (32, 32, 32), "block15": (2, 2, 320), "map": (2, 2, 1280)},
    ),
    "efficientnet_lite4": (
        EfficientNetLite("lite4", num_classes=1000),
        13_006_568,
        64,
        {"stem": (32, 32, 32), "block29": (2, 2, 448), "map": (2, 2, 1280)},
    ),
    "inception_v4": (
        InceptionV4(num_classes=1000),
        42_679_816,
        299,
        {"stem": (35, 35, 384), "block04": (17, 17, 1024), "map": (8, 8, 1536)},
    ),
    "inception_resnet_v2": (
        InceptionResNetV2(num_classes=1000),
        55_843_464,
        299,
        {"stem": (35, 35, 320), "block10": (17, 17, 1088), "block41": (8, 8, 2080)},
    ),
    "swin_t": (
        Swin("T", num_classes=1000),
        28_288_354,
        224,
        {"stem": (56, 56, 96), "block04": (14, 14, 384), "block04/mlp": (14, 14, 384)},
    ),
}


# One of each family; the others cost a second or two each.
QUICK = {
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v4_conv_small",
    "efficientnet_lite0",
    "swin_t",
}


@pytest.mark.parametrize("name", with_slow(PUBLISHED, PUBLISHED.keys() - QUICK))
def test_published_sizes(name: str):
    """Parameters, and a forward pass by shapes alone."""
    tower, count, side, shapes = PUBLISHED[name]
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

    def init(x: jax.Array) -> Any:
        (_, out), variables = tower.init_with_output({"params": jax.random.key(0)}, x)
        return variables["params"], out

    params, out = jax.eval_shape(init, images)
    assert count_params(params) == count
    assert {site: out[site].shape[1:] for site in shapes} == shapes
    batch, height, width, channels = out["map"].shape
    assert out["tokens"].shape == (batch, height * width, channels)
    assert out["pooled"].shape == (1, channels)
    assert out["logits"].shape == (1, 1000)
    blocks = sorted(site for site in out if site.startswith("block") and "/" not in site)
    assert blocks == [f"block{i:02d}" for i in range(len(blocks))]


def test_rounding_of_sizes():
    """From the tables of B3 (width 1.2, depth 1.4) and of MobileNetV3."""
    assert [divisible(1.2 * c) for c in (32, 16, 24, 40, 80, 112, 192, 320)] == [
        *(40, 24, 32, 48, 96, 136, 232, 384)
    ]
    assert divisible(88.08) == 88
    assert divisible(3) == 8
    # 27.0 rounds to 24, which is less than nine tenths of it.
    assert divisible(27.0) == 32
    assert scaled_repeats([4], 1.4) == [6]
    assert scaled_repeats([1, 1, 2], 1.5) == [1, 2, 3]


TINY = MobileNetV3("small", 0.25, 0.3, head_width=16, num_classes=3, drop_path=0.5, dropout=0.5)


@pytest.mark.slow
def test_training_and_an_edit():
    """Noise and batch statistics are used, and an edit reaches what follows it."""
    images = jax.random.normal(jax.random.key(1), (4, 33, 40, 3))
    params, state = random_variables(TINY, images.shape)

    @quick_jit
    def train(key: jax.Array, factor: float) -> Any:
        tap = Tap(lambda name, x: factor * x, "map")
        return forward(TINY, params, state, images, train=True, key=key, tap=tap)[1:]

    out, moved = train(jax.random.key(0), 1.0)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), moved, state)
    assert all(jax.tree.leaves(changed))
    other, _ = train(jax.random.key(1), 1.0)
    assert np.any(other["logits"] != out["logits"])
    edited, _ = train(jax.random.key(0), 0.0)
    np.testing.assert_array_equal(edited["block05"], out["block05"])
    assert np.any(out["pooled"])
    assert not np.any(edited["pooled"])


@pytest.mark.parametrize("kind", ["mobilenet", "inception", "swin"])
def test_remat_and_formats(kind: str):
    """Every block is rematerialised under the same names; formats are those asked for."""
    tower, side = {
        "mobilenet": (TINY, 32),
        "inception": (InceptionV4((1, 1, 1), 1 / 16), 75),
        "swin": (SWIN, 8),
    }[kind]
    formats = Precision(compute="bfloat16", params="bfloat16")
    tower = tower.clone(remat="full", precision=formats, num_classes=3)
    variables = abstract_variables(tower, (1, side, side, 3))
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

    def apply(variables: Any, x: jax.Array) -> Any:
        return forward(tower, *variables, x, train=False)[1]

    jaxpr, out = jax.make_jaxpr(apply, return_shape=True)(variables, images)
    blocks = [site for site in out if site.startswith("block") and "/" not in site]
    remats = [eqn for eqn in jaxpr.eqns if eqn.primitive.name.startswith("remat")]
    stem = 6 if kind == "inception" else 0
    assert len(remats) == len(blocks) + stem
    assert {site: x.dtype for site, x in out.items() if x.dtype != jnp.bfloat16} == dict.fromkeys(
        ("pooled", "embedding", "logits"), jnp.float32
    )
    assert {x.dtype for x in jax.tree.leaves(variables[0])} == {jnp.dtype(jnp.bfloat16)}


def test_windows_are_undone():
    x = np.arange(2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    windows = to_windows(x, (3, 4))
    np.testing.assert_array_equal(windows[1, 2].reshape(3, 4, 3), x[1, 3:, :4])
    np.testing.assert_array_equal(from_windows(windows, (3, 4), (6, 8)), x)


def test_shifted_windows_keep_the_sides_of_the_image_apart():
    """By hand: the last row of windows holds two rows from the bottom, then two from the top."""
    mask = shift_mask((8, 8), (4, 4), (2, 2))
    position = np.moveaxis(np.mgrid[:8, :8], 0, -1)
    rolled = np.roll(position, (-2, -2), (0, 1))[None]
    seen = to_windows(rolled, (4, 4))[0]  # (windows, N, 2): where each token came from
    near = np.abs(seen[:, :, None] - seen[:, None]).max(-1) < 4
    np.testing.assert_array_equal(mask, near)
    assert not mask[3].all()
    assert mask[0].all()
    np.testing.assert_array_equal(shift_mask((4, 8), (4, 4), (0, 2))[0], True)


SWIN = Swin(width=8, depths=(2,), heads=(2,), window=4, patch=1, num_classes=3)


@pytest.fixture(scope="module")
def swin_variables():
    return random_variables(SWIN, (1, 8, 8, 3))


def test_an_edit_reaches_only_its_windows(swin_variables):
    """Of one corner: its window, then the shifted windows over that; not the opposite side."""
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    plain = run(SWIN, swin_variables, images)
    edited = run(SWIN, swin_variables, images.at[0, 7, 7].add(3.0))

    def changed(site: str) -> np.ndarray:
        return np.abs(edited[site] - plain[site])[0].max(-1) > 1e-5

    expected = np.zeros((8, 8), bool)
    expected[7, 7] = True
    np.testing.assert_array_equal(changed("stem"), expected)
    expected[4:, 4:] = True
    np.testing.assert_array_equal(changed("block00"), expected)
    # Shifted windows of the plane begin at 2 and at 6; the rest of the plane is another's.
    expected[2:, 2:] = True
    np.testing.assert_array_equal(changed("block01"), expected)


def test_attention_is_a_site(swin_variables):
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    plain = run(SWIN, swin_variables, images)
    assert not any(site.endswith("attention") for site in plain)
    tapped = run(SWIN, swin_variables, images, tap=Tap(lambda name, x: x, "block01/attention"))
    weights = tapped["block01/attention"]
    assert weights.shape == (1, 4, 2, 16, 16)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    hidden = ~np.broadcast_to(shift_mask((8, 8), (4, 4), (2, 2))[:, None], weights.shape[1:])
    np.testing.assert_array_equal(weights[0][hidden], 0)
    np.testing.assert_allclose(tapped["logits"], plain["logits"], atol=1e-5)


def test_images_smaller_than_a_window(swin_variables):
    """They are one window, with the bias table resampled; a larger window has a larger table."""
    images = jax.random.normal(jax.random.key(0), (1, 2, 2, 3))
    params, state = swin_variables
    table = {}
    for block in ("block00", "block01"):
        whole = np.asarray(params[block]["attn"]["bias_table"])
        attn = {**params[block]["attn"], "bias_table": fit_square_table(whole, (9, 2))}
        table[block] = {**params[block], "attn": attn}
    expected = run(SWIN, swin_variables, images)
    small = run(SWIN.clone(window=2), ({**params, **table}, state), images)
    larger = run(SWIN.clone(window=6, trained_windows=(4,)), swin_variables, images)
    for found in (small, larger):
        np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-6)
    with pytest.raises(ValueError, match=r"trained_windows=\(4, 4\), but there are 1 stages"):
        SWIN.clone(trained_windows=(4, 4))


def test_swin_over_a_mesh():
    """The rules of the ViT fit its parameters."""
    params, _ = abstract_variables(SWIN, (1, 8, 8, 3))
    mesh = Mesh(data=2, fsdp=2, tensor=2).build(jax.devices()[:8])
    shardings = state_shardings({"params": params}, mesh, TENSOR_PARALLEL)["params"]
    qkv = shardings["block00"]["attn"]["qkv"]["kernel"]
    assert qkv.spec == jax.sharding.PartitionSpec("fsdp", "tensor")


@pytest.mark.parametrize(
    ("tower", "fields", "message"),
    [
        (MobileNetV3, {"size": "huge"}, "size is 'huge', expected one of 'large', 'small'"),
        (MobileNetV2, {"width_multiplier": 0.0}, "width_multiplier is 0.0, expected"),
        (MobileNetV2, {"padding": "valid"}, "padding is 'valid'.*'symmetric', 'same'"),
        (EfficientNet, {}, "needs width_multiplier and depth_multiplier"),
        (EfficientNetLite, {"variant": "lite5"}, "variant is 'lite5'.*'lite4'"),
        (EfficientNetLite, {"depth_multiplier": 1.0}, "needs width_multiplier and depth_mult"),
        (EfficientNet, {"variant": "B9"}, "variant is 'B9'.*'B7'"),
        (InceptionV4, {"width_multiplier": 0.3}, "width_multiplier=0.3 times 32 channels"),
        (
            InceptionResNetV2,
            {"depths": (1, 0, 1)},
            r"depths\[1\] is 0, expected",
        ),
        (Swin, {}, "needs width, depths and heads"),
        (Swin, {"variant": "T", "heads": (5, 6, 12, 24)}, "5 heads do not divide width 96"),
        (Swin, {"variant": "T", "windows": (7, 7)}, "of one length"),
    ],
)
def test_bad_fields(tower: Any, fields: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        tower(**fields)


def test_images_too_small_for_inception():
    with pytest.raises(ValueError, match="image of 74x80 is smaller than 75x75"):
        abstract_variables(InceptionV4(), (1, 74, 80, 3))
