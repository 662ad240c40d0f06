"""Narrow models with random weights, read and run here: bench/goldens/weights_convolutional.py."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from vision.config.specs import build
from vision.models.convnext import ConvNeXt
from vision.models.regnet import RegNet
from vision.models.resnet import ResNet
from vision.models.resnet_v2 import ResNetV2
from vision.train.tower import forward, initialise
from vision.weights.architectures import timm_architecture
from vision.weights.configs import config_of
from vision.weights.export import library_tensors
from vision.weights.mapping import WeightsError, load, save
from vision.weights.names import names_of
from vision.weights.preprocessing import Preprocessing
from vision.weights.tower_cards import read_tower

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "weights" / "convolutional"
CLASSES = 7
NARROW: Any = {"width_multiplier": 1 / 16, "num_classes": CLASSES}
REGNET: Any = {"depths": (1, 1, 3, 1), "widths": (8, 16, 32, 64), "group_width": 16}
TOWERS: dict[str, Any] = {
    "seresnet14t_blur": ResNet(
        depth=14,
        width_multiplier=1 / 8,
        num_classes=CLASSES,
        stem="deep",
        stem_widths=(3, 4),
        downsample="average",
        squeeze=True,
        anti_alias="blur",
    ),
    "seresnet10_aa": ResNet(depth=10, squeeze=True, anti_alias="average", **NARROW),
    "resnetv2_14": ResNetV2(depth=14, **NARROW),
    "resnetv2_10d": ResNetV2(depth=10, stem="deep", downsample="average", **NARROW),
    "regnety": RegNet(**REGNET, stem_width=8, num_classes=CLASSES),
    "regnetx": RegNet(**REGNET, squeeze=0.0, stem_width=8, num_classes=CLASSES),
}
CASES = sorted(path.stem for path in GOLDENS.glob("*.safetensors"))


def card(case: str) -> dict[str, Any]:
    with safe_open(GOLDENS / f"{case}.safetensors", "numpy") as file:
        return json.loads(file.metadata()["card"])


def tower_of(case: str, folder: Path) -> Any:
    if case in TOWERS:
        return TOWERS[case]
    (folder / "config.json").write_text(json.dumps(card(case)))
    found = read_tower(f"transformers:{folder}")
    assert found is not None
    return build(found.config, num_classes=CLASSES)


# Their faster relatives test most of what they do.
SLOW = ("regnetx", "resnetv2_14", "transformers_convnext", "transformers_resnet_basic")


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in CASES]
)
def test_theirs_is_ours(case: str, tmp_path: Path):
    """What every stage gives, and the tensors back, bit for bit."""
    arrays = load_file(GOLDENS / f"{case}.safetensors")
    weights = {k.removeprefix("weights/"): x for k, x in arrays.items() if k[:8] == "weights/"}
    sites = {k.removeprefix("out/"): x for k, x in arrays.items() if k[:4] == "out/"}
    sites["logits"] = arrays["logits"]
    images = arrays["images"].astype(np.float32)
    tower = tower_of(case, tmp_path)
    params, state = jax.eval_shape(functools.partial(initialise, tower), jax.random.key(0), images)
    target = {"params": params, "model_state": dict(state)}
    names = names_of(case.partition("_")[0] if "rs_" in case else "timm", tower, weights)
    tree = load(names, weights, target)

    @jax.jit
    def run(tree: Any, images: jax.Array) -> Any:
        out = forward(tower, tree["params"], tree["model_state"], images, train=False)[1]
        return {site: out[site] for site in sites}

    out = run(tree, images)
    assert len(sites) >= 5
    for site, wanted in sites.items():
        assert out[site].shape == wanted.shape, site
        error = np.abs(out[site] - wanted).max() / np.abs(wanted).max()
        assert error < 1e-5, f"{site}: {error:.1e}"
    back = save(names, tree)
    assert back.keys() == {key for key in weights if not key.endswith("num_batches_tracked")}
    for key, x in back.items():
        np.testing.assert_array_equal(x, weights[key], err_msg=key)


CHANGED = {
    "transformers_resnet": {
        "downsample_in_bottleneck": (True, "moves strides, which no ResNet here does: true"),
        "depths": ([1, 2, 1, 1], "are those of no ResNet here"),
        "hidden_sizes": ([16, 32, 64, 96], "do not double from the stem's"),
        "hidden_act": ("gelu", "is none of relu"),
        "dilation": (2, "is not known here, and may change what the tower computes"),
    },
    "transformers_convnextv2": {
        "hidden_act": ("relu", "is none of gelu"),
        "patch_size": ([4, 2], "is not square"),
        "depths": ("3", "are not whole numbers"),
        "num_stages": (3, "is not the number of depths"),
    },
}


@pytest.mark.parametrize(
    ("case", "key"), [(case, key) for case in CHANGED for key in CHANGED[case]]
)
def test_cards_that_say_something_else(case: str, key: str, tmp_path: Path):
    value, message = CHANGED[case][key]
    (tmp_path / "config.json").write_text(json.dumps({**card(case), key: value}))
    with pytest.raises(WeightsError, match=rf"config\.json: {key} {re.escape(message)}"):
        read_tower(f"transformers:{tmp_path}")


TIMM: dict[str, dict[str, Any]] = {
    "seresnet50": {"depth": 50, "squeeze": True, "anti_alias": "none"},
    "resnetaa50": {"depth": 50, "squeeze": False, "anti_alias": "average"},
    "resnetblur50": {"anti_alias": "blur", "stem": "imagenet"},
    "seresnetaa50d": {"squeeze": True, "anti_alias": "average", "stem": "deep"},
    "resnet50t": {"stem": "deep", "stem_widths": (24, 32), "downsample": "average"},
    "resnet50s": {"stem": "deep", "stem_widths": (64, 64, 128), "downsample": "strided"},
    "resnet200d": {"depth": 200, "stem": "deep"},
    "resnetv2_50": {"depth": 50, "stem": "imagenet", "downsample": "strided"},
    "resnetv2_18d": {"depth": 18, "stem": "deep", "downsample": "average"},
    "regnety_040": {"widths": (128, 192, 512, 1088), "group_width": 64, "squeeze": 0.25},
    "regnetx_002": {"depths": (1, 1, 4, 7), "squeeze": 0.0},
    "convnext_xxlarge": {"norm_epsilon": 1e-5},
}
REFUSED = {
    "ecaresnet50d": "it has (se): EcaModule",
    "resnet50_gn": "it has (bn1): GroupNorm",
    "resnetrs50": "it has (0): Conv2d(64, 64",
    "resnetv2_50d_gn": "its norms are GroupNormAct, which no such tower here has",
    "regnetv_040": "its blocks are PreBottlenecks, which no RegNet here has",
    "regnetz_040": "it has (act): SiLU",
}


@pytest.mark.parametrize("name", TIMM)
def test_names_of_timm(name: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    found = read_tower(f"timm:{tmp_path}")
    assert found is not None
    tower = build(found.config)
    assert {key: getattr(tower, key) for key in TIMM[name]} == TIMM[name]


@pytest.mark.parametrize("name", REFUSED)
def test_relatives_that_compute_something_else(name: str, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(WeightsError, match=re.escape(f"architecture is '{name}': {REFUSED[name]}")):
        read_tower(f"timm:{tmp_path}")


@pytest.mark.parametrize("name", [n for n in TIMM if "resnet" in n and "v2" not in n])
def test_the_name_back_is_of_the_same_tower(name: str, tmp_path: Path):
    """What an export writes is read as the tower that it is of."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"architecture": name}))
    stated = read_tower(f"timm:{tmp_path}")
    assert stated is not None
    tower = build(stated.config)
    architecture, arguments = timm_architecture(tower, (224, 224))
    file.write_text(json.dumps({"architecture": architecture, "model_args": arguments}))
    again = read_tower(f"timm:{tmp_path}")
    assert again is not None
    assert build(again.config) == tower


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("transformers")])
def test_what_leaves_for_transformers_is_what_came(case: str, tmp_path: Path):
    """The card, and the names of all tensors, with those of the model before those of its head."""
    tower = tower_of(case, tmp_path)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(functools.partial(initialise, tower), jax.random.key(0), images)
    params, state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    trees = {"params": params, "model_state": dict(state)}
    files = config_of("transformers", tower, Preprocessing((64, 64)), "abcdefg")
    assert files["config.json"]["id2label"]["6"] == "g"
    assert files["config.json"]["architectures"] == card(case)["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(files["config.json"]))
    again = read_tower(f"transformers:{tmp_path}")
    assert again is not None
    assert build(again.config, num_classes=CLASSES) == tower
    with safe_open(GOLDENS / f"{case}.safetensors", "numpy") as file:
        theirs = {k.removeprefix("weights/") for k in file.keys() if k[:8] == "weights/"}  # noqa: SIM118
    written = library_tensors(tower, trees, "transformers", (64, 64)).keys()
    assert written == {key for key in theirs if not key.endswith("num_batches_tracked")}


def test_what_transformers_has_no_class_for():
    for tower, message in (
        (ResNet(depth=50, squeeze=True), "squeeze=False, this one squeeze=True"),
        (ResNet(depth=50, stem="deep"), "stem='imagenet', this one stem='deep'"),
        (ConvNeXt("atto", norm_epsilon=1e-5), "norm_epsilon=1e-06, this one norm_epsilon=1e-05"),
        (ConvNeXt("atto", grn=True), r"ConvNeXt V2 \(grn=True\) has no layer_scale"),
    ):
        with pytest.raises(WeightsError, match=f"transformers: its .*{message}"):
            config_of("transformers", tower, Preprocessing((64, 64)))
    with pytest.raises(WeightsError, match="timm has no ResNet of basic blocks with squeeze=True"):
        timm_architecture(ResNet(depth=18, squeeze=True, anti_alias="blur"), (224, 224))
    with pytest.raises(WeightsError, match="last norm has another epsilon, final_epsilon=1e-12"):
        timm_architecture(ConvNeXt("atto", final_epsilon=1e-12), (224, 224))
