"""Narrow timm models with random weights, read and run here: bench/goldens/weights_cnn.py."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from vision.models.bit import BiT
from vision.models.convnext import ConvNeXt
from vision.models.densenet import DenseNet
from vision.models.resnet import ResNet
from vision.models.vgg import VGG
from vision.train.tower import forward, initialise
from vision.weights.families.bit import timm_bit
from vision.weights.families.convnext import timm_convnext, torchvision_convnext
from vision.weights.families.densenet import timm_densenet
from vision.weights.families.resnet import timm_resnet
from vision.weights.families.vgg import timm_vgg, torchvision_vgg
from vision.weights.mapping import Names, WeightsError, load, save
from vision.weights.names import names_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "weights" / "cnn"
CLASSES = 7
NARROW = 1 / 16
DIMS = (8, 12, 16, 24)

TOWERS: dict[str, Any] = {
    "resnet10": ResNet(depth=10, width_multiplier=NARROW, num_classes=CLASSES),
    "resnet14": ResNet(depth=14, width_multiplier=NARROW, num_classes=CLASSES),
    "resnext14d": ResNet(
        depth=14,
        stem="deep",
        downsample="average",
        groups=2,
        group_width=32,
        width_multiplier=NARROW,
        num_classes=CLASSES,
    ),
    "bit14": BiT(depth=14, norm_groups=2, width_multiplier=NARROW, num_classes=CLASSES),
    "convnext": ConvNeXt(depths=(1, 1, 2, 1), dims=DIMS, num_classes=CLASSES),
    "convnext_v2": ConvNeXt(
        depths=(1, 1, 2, 1), dims=DIMS, grn=True, layer_scale=None, num_classes=CLASSES
    ),
    "vgg11": VGG(depth=11, width_multiplier=NARROW, hidden=24, num_classes=CLASSES),
    "vgg11_bn": VGG(
        depth=11, batch_norm=True, width_multiplier=NARROW, hidden=24, num_classes=CLASSES
    ),
    "densenet": DenseNet(layers=(2, 1, 2, 1), growth=4, num_classes=CLASSES),
}
MAPS: dict[str, Callable[[Any], Names]] = {
    "resnet10": timm_resnet,
    "resnet14": timm_resnet,
    "resnext14d": timm_resnet,
    "bit14": timm_bit,
    "convnext": timm_convnext,
    "convnext_v2": lambda tower: timm_convnext(tower, pointwise=True),
    "vgg11": timm_vgg,
    "vgg11_bn": timm_vgg,
    "densenet": timm_densenet,
}


def golden(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights, and everything else."""
    arrays = load_file(GOLDEN / f"{name}.safetensors")
    weights = {k.removeprefix("weights/"): v for k, v in arrays.items() if k.startswith("weights/")}
    return weights, {k: v for k, v in arrays.items() if not k.startswith("weights/")}


@functools.cache
def target(name: str) -> dict[str, Any]:
    tower = TOWERS[name]
    images = jax.ShapeDtypeStruct((1, 40, 56, 3), jnp.float32)
    params, state = jax.eval_shape(lambda x: initialise(tower, jax.random.key(0), x), images)
    return {"params": params, "model_state": state}


@pytest.mark.parametrize("name", TOWERS)
def test_timm(name):
    tower, names = TOWERS[name], MAPS[name](TOWERS[name])
    weights, expected = golden(name)
    tree = load(names, weights, target(name))

    apply = jax.jit(lambda *args: forward(tower, *args, train=False)[1])
    images = expected["images"].astype(np.float32)
    out = apply(tree["params"], tree["model_state"], images)
    sites = {key.removeprefix("out/"): x for key, x in expected.items() if key != "images"}
    assert len(sites) >= 5
    for site, wanted in sites.items():
        assert out[site].shape == wanted.shape, site
        error = np.abs(out[site] - wanted).max() / np.abs(wanted).max()
        assert error < 1e-4, f"{site}: {error:.1e}"

    back = save(names, tree)
    assert back.keys() == {key for key in weights if not key.endswith("num_batches_tracked")}
    for key, x in back.items():
        np.testing.assert_array_equal(x, weights[key], err_msg=key)


def test_torchvision_vgg():
    """Its hidden layers are dense, over maps flattened with their channels first."""
    tower = TOWERS["vgg11_bn"]
    weights, _ = golden("vgg11_bn")
    modules = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    modules["head.fc"] = "classifier.6"
    theirs = {}
    for key, x in weights.items():
        module, _, leaf = key.rpartition(".")
        flat = x.reshape(len(x), -1) if module in modules and leaf == "weight" else x
        theirs[f"{modules.get(module, module)}.{leaf}"] = flat
    tree = load(torchvision_vgg(tower), theirs, target("vgg11_bn"))
    wanted = load(timm_vgg(tower), weights, target("vgg11_bn"))
    jax.tree.map(np.testing.assert_array_equal, tree, wanted)
    back = save(torchvision_vgg(tower), tree)
    for key, x in back.items():
        np.testing.assert_array_equal(x, theirs[key], err_msg=key)


def test_torchvision_convnext():
    tower = TOWERS["convnext"]
    weights, _ = golden("convnext")
    pieces = {"stem.": "features.0.", "head.norm": "classifier.0", "head.fc": "classifier.2"}
    for stage in range(4):
        pieces[f"stages.{stage}.downsample."] = f"features.{2 * stage}."
        pieces[f"stages.{stage}.blocks."] = f"features.{2 * stage + 1}."
    inside = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
    theirs = {}
    for key, x in weights.items():
        old = next(piece for piece in pieces if key.startswith(piece))
        new = pieces[old] + key.removeprefix(old)
        if ".blocks." in old:
            place, _, rest = new.removeprefix(pieces[old]).partition(".")
            module, _, leaf = rest.rpartition(".")
            new = f"{pieces[old]}{place}.{inside.get(module, 'layer_scale')}"
            new += f".{leaf}" if module else ""
        theirs[new] = x.reshape(-1, 1, 1) if new.endswith("layer_scale") else x
    tree = load(torchvision_convnext(tower), theirs, target("convnext"))
    wanted = load(timm_convnext(tower), weights, target("convnext"))
    jax.tree.map(np.testing.assert_array_equal, tree, wanted)
    assert save(torchvision_convnext(tower), tree).keys() == theirs.keys()


def test_a_tower_without_a_head_leaves_theirs_out():
    tower = TOWERS["resnet14"].clone(num_classes=None)
    weights, _ = golden("resnet14")
    params, state = target("resnet14").values()
    params = {name: tree for name, tree in params.items() if name != "head"}
    wanted = {"params": params, "model_state": state}
    tree = load(timm_resnet(tower), weights, wanted)
    assert jax.tree.structure(tree) == jax.tree.structure(wanted)
    weights["layer1.0.conv2.weight"] = weights["layer1.0.conv2.weight"][:, :2]
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv2\.weight"):
        load(timm_resnet(tower), weights, wanted)


def test_batch_norm_before_convolutions_is_told_apart():
    tensors = {"stages.0.blocks.0.norm1.running_mean": np.zeros(4, np.float32)}
    with pytest.raises(
        WeightsError,
        match=r"pre-activation ResNet with BatchNorm.*: ResNetV2 reads.*resnetv2_\*_bit",
    ):
        names_of("timm", BiT(depth=50), tensors)
