"""Towers of this file against timm: see bench/goldens/weights_mobile.py."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.slow import with_slow
from vision.checkpoint.reading import flatten
from vision.models.efficientnet import EfficientNet
from vision.models.efficientnet_lite import EfficientNetLite
from vision.models.inception import InceptionV4
from vision.models.inception_resnet import InceptionResNetV2
from vision.models.mobilenet import MobileNetV1, MobileNetV2, MobileNetV3
from vision.models.mobilenet_v4 import MobileNetV4
from vision.models.mobilenet_v4_plan import MobileV4Plan
from vision.models.swin import Swin
from vision.train.tower import forward, initialise
from vision.weights.families.inception import timm_inception_resnet_v2, timm_inception_v4
from vision.weights.families.mobilenet import timm_mobilenet
from vision.weights.families.mobilenet_v4 import timm_mobilenet_v4
from vision.weights.families.swin import timm_swin
from vision.weights.mapping import Names, WeightsError, load, save

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "weights" / "mobile"
NARROW: Mapping[str, Any] = {"num_classes": 7, "width_multiplier": 0.125}
TENSORFLOW: Mapping[str, Any] = {"padding": "same", "norm_epsilon": 1e-3}


class Short(MobileNetV4):
    """With blocks of these places alone, of which none is the first of a stage but all are."""

    places: tuple[int, ...] = ()

    def resolved(self) -> MobileV4Plan:
        plan = super().resolved()
        return dataclasses.replace(plan, blocks=tuple(plan.blocks[i] for i in self.places))


V4: Mapping[str, Any] = {**NARROW, "head_width": 24}
TOWERS: Mapping[str, tuple[Any, Callable[[Any], Names]]] = {
    "mobilenet_v1": (
        MobileNetV1(
            0.125,
            (
                (64, 1),
                (128, 2),
                (256, 2),
                *((512, 2 if i == 0 else 1) for i in range(3)),
                (1024, 2),
            ),
            num_classes=7,
        ),
        timm_mobilenet,
    ),
    "mobilenet_v2": (
        MobileNetV2(**NARROW, depth_multiplier=0.3, head_width=24),
        timm_mobilenet,
    ),
    "mobilenet_v3_large": (
        MobileNetV3("large", **NARROW, depth_multiplier=0.5, head_width=24),
        timm_mobilenet,
    ),
    "mobilenet_v3_small": (
        MobileNetV3("small", **NARROW, **TENSORFLOW, depth_multiplier=0.5, head_width=24),
        timm_mobilenet,
    ),
    "efficientnet": (EfficientNet(**NARROW, depth_multiplier=0.3), timm_mobilenet),
    "efficientnet_lite": (
        EfficientNetLite(**NARROW, **TENSORFLOW, depth_multiplier=0.3, head_width=24),
        timm_mobilenet,
    ),
    "mobilenet_v4_small": (
        Short("conv_small", **V4, places=(0, 1, 2, 3, 4, 5, 9, 10, 16)),
        timm_mobilenet_v4,
    ),
    "mobilenet_v4_aa": (
        Short("conv_medium", **V4, anti_alias="average", places=(0, 1, 3, 10, 11, 15, 22)),
        timm_mobilenet_v4,
    ),
    "mobilenet_v4_hybrid": (
        Short("hybrid_large", **V4, places=(0, 1, 3, 10, 17, 18, 28, 29, 36)),
        timm_mobilenet_v4,
    ),
    "inception_v4": (
        InceptionV4((1, 1, 1), width_multiplier=1 / 16, num_classes=7),
        timm_inception_v4,
    ),
    "inception_resnet_v2": (
        InceptionResNetV2((1, 1, 2), width_multiplier=1 / 16, num_classes=7),
        timm_inception_resnet_v2,
    ),
    "swin": (
        Swin(width=8, depths=(2, 2, 1), heads=(1, 2, 4), windows=(4, 4, 3), num_classes=7),
        timm_swin,
    ),
}


@functools.cache
def target(tower: Any, height: int = 36, width: int = 44) -> Any:
    shape = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    params, state = jax.eval_shape(lambda x: initialise(tower, jax.random.key(0), x), shape)
    return {"params": params, "model_state": state}


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The model's tensors, and the rest of the file."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k[:8] == "weights/"}
    return weights, {k: v for k, v in tensors.items() if k[:8] != "weights/"}


# Another size or kind of a family that comes before it.
SLOW = ("inception_v4", "inception_resnet_v2", "mobilenet_v3_large", "mobilenet_v4_aa")


@pytest.mark.parametrize("name", with_slow(TOWERS, SLOW))
def test_the_same_numbers_as_timm(name: str):
    tower, names_of = TOWERS[name]
    weights, rest = golden(name)
    images = rest.pop("images").astype(np.float32)
    names = names_of(tower)
    tree = load(names, weights, target(tower, *images.shape[1:3]))

    found = jax.jit(
        lambda tree, x: forward(tower, tree["params"], tree["model_state"], x, train=False)[1]
    )(tree, images)
    expected = {site.removeprefix("out/"): value for site, value in rest.items()}
    blocks = {site for site in found if site.startswith("block") and "/" not in site}
    assert expected.keys() >= blocks | {"stem", "logits"}
    for site, value in expected.items():
        error = np.abs(found[site] - value).max() / np.abs(value).max()
        assert error < 1e-4, f"{site}: {error}"

    # What is written is what was read, but for tensors that are ignored by name.
    written = save(names, tree)
    ignored = weights.keys() - written.keys()
    assert all(key.endswith("num_batches_tracked") for key in ignored)
    for key, value in written.items():
        np.testing.assert_array_equal(value, weights[key].astype(np.float32), err_msg=key)


def test_another_window():
    """Bias tables are resampled, all else is as it was."""
    weights, _ = golden("swin")
    tower = TOWERS["swin"][0]
    wider = tower.clone(windows=(4, 6, 3))
    found, expected = (flatten(load(timm_swin(t), weights, target(t))) for t in (wider, tower))
    for path, array in expected.items():
        if array.shape == found[path].shape:
            np.testing.assert_array_equal(found[path], array, err_msg=path)
        else:
            assert path in {f"params.block{i:02d}.attn.bias_table" for i in (2, 3)}
            old, new = array.reshape(7, 7, -1), found[path].reshape(11, 11, -1)
            # Those of small offsets stay, and those of the largest go to the ends.
            np.testing.assert_allclose(new[4:7, 4:7], old[2:5, 2:5], atol=1e-6)
            np.testing.assert_allclose(
                new[[0, -1]][:, [0, -1]], old[[0, -1]][:, [0, -1]], atol=1e-4
            )


def test_without_a_head():
    weights, _ = golden("swin")
    tower = TOWERS["swin"][0].clone(num_classes=None)
    tree = load(timm_swin(tower), weights, target(tower))
    written = save(timm_swin(tower), tree)
    assert weights.keys() - written.keys() == {"head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 2, 2)}, "tensor layers.2.blocks.1.norm1.weight is missing"),
        ({"depths": (2, 1, 1)}, r"tensor layers.1.blocks.1.attn.proj.bias of shape \(16,\) has no"),
        ({"num_classes": 5}, r"head.fc.weight \(7, 32\) gives shape \(32, 7\), but params.head"),
    ],
)
def test_the_wrong_tower_is_refused(change: dict[str, Any], message: str):
    weights, _ = golden("swin")
    tower = TOWERS["swin"][0].clone(**change)
    with pytest.raises(WeightsError, match=message):
        load(timm_swin(tower), weights, target(tower))
