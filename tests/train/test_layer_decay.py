"""Layer-wise learning rates against those of timm: bench/goldens/layer_decay.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from papers.plain_mamba.method import PlainMamba
from papers.teen.cosine_head import CosineHead
from tests.models.tower_cases import abstract_variables
from vision.checkpoint.reading import flatten
from vision.config.schema import ConfigError
from vision.models.adapted import AdaptedTower
from vision.models.convnext import ConvNeXt
from vision.models.densenet import DenseNet
from vision.models.dual import Dual
from vision.models.efficientnet import EfficientNet
from vision.models.nasnet import NasNet
from vision.models.plain_conv import PlainConv
from vision.models.resnet import ResNet
from vision.models.swin import Swin
from vision.models.text import TextTransformer
from vision.models.vgg import VGG
from vision.models.vit import ViT
from vision.train.optim import Optimizer, ParameterRule, adamw, sgd
from vision.train.schedule import TrainLength
from vision.train.tower import initialise
from vision.weights.families.convnext import timm_convnext
from vision.weights.families.resnet import timm_resnet
from vision.weights.families.swin import timm_swin
from vision.weights.families.vit import timm_vit

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "layer_decay.json").read_text())
DECAY = GOLDEN["decay"]
TRAIN_LENGTH = TrainLength(100, 10, total_steps=10)
Tiny = functools.partial(ViT, width=16, depth=3, heads=2, patch=16, num_classes=3)
PLAIN = Tiny(registers=2, class_position=True, pre_norm=True)
TOWERS: dict[str, tuple[Any, Any]] = {
    "vit": (PLAIN, timm_vit),
    "vit_unscanned": (PLAIN.clone(scan=False), timm_vit),
    "vit_map": (Tiny(pool="map"), timm_vit),
    "swin": (Swin(width=8, depths=(1, 2), heads=(2, 4), num_classes=3), timm_swin),
    "convnext": (
        ConvNeXt(dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), num_classes=3),
        timm_convnext,
    ),
    "resnet": (ResNet(depth=14, width_multiplier=0.125, num_classes=3), timm_resnet),
}


def optimizer(**fields: Any) -> Optimizer:
    return Optimizer(sgd(0.0), 1.0, rules=(ParameterRule(".*"),), **fields)


@pytest.mark.parametrize("name", TOWERS)
def test_scales_are_those_of_timm(name: str):
    tower, names = TOWERS[name]
    params, _ = abstract_variables(tower, (1, 32, 32, 3))
    ours = flatten(optimizer(layer_decay=DECAY).multipliers({"model": params}, {"model": tower}))
    theirs = {
        tensor: float(scale)
        for scale, tensors in GOLDEN[name.removesuffix("_unscanned")].items()
        for tensor in tensors
    }
    compared = set()
    for entry in names(tower).entries:
        scale = ours.get(entry.ours.replace("params.", "model."))
        if scale is None:
            continue
        for tensor in set(entry.theirs) & theirs.keys():
            compared.add(tensor)
            layer = scale if entry.layer is None else scale[entry.layer]
            # After pooling it is no part of the last block; timm's groups agree.
            if tensor.startswith("head.norm"):
                layer = layer / DECAY
            assert layer == pytest.approx(theirs[tensor], rel=1e-12), (tensor, entry.ours)
    # The probe of timm's pooling is the head's; nothing was left out.
    assert compared == theirs.keys()


def test_updates_are_scaled_layer_by_layer_and_with_them_the_decay():
    params = {
        "model": {
            "blocks": {"fc": {"kernel": jnp.ones((3, 2, 2))}},
            "patch_embed": {"kernel": jnp.ones((1, 1, 2, 2))},
            "head": {"kernel": jnp.ones((2, 2))},
        }
    }
    fine = optimizer(layer_decay=0.5, weight_decay=0.5)
    towers = {"model": Tiny()}
    transform = fine.build(params, TRAIN_LENGTH, towers)
    updates: Any
    updates, _ = transform.update(
        jax.tree.map(jnp.ones_like, params), transform.init(params), params
    )
    moved = jax.tree.map(lambda x: -np.asarray(x).reshape(len(x), -1)[:, 0], updates)["model"]
    np.testing.assert_allclose(moved["blocks"]["fc"]["kernel"], 1.5 * 0.5 ** np.array([3, 2, 1]))
    np.testing.assert_allclose(moved["patch_embed"]["kernel"], 1.5 * 0.5**4)
    np.testing.assert_allclose(moved["head"]["kernel"], 1.5)
    assert fine.describe(params, towers) == "learning rate times 0.0625 to 1"
    rows = [("1", "4", "model/head/kernel"), ("0.5", "4", "model/blocks/fc/kernel[2]")]
    assert fine.table(params, towers)[:2] == rows


def test_both_towers_of_a_dual_encoder_and_what_belongs_to_none():
    text = TextTransformer(vocab_size=5, width=8, depth=2, heads=2, context=4)
    dual = Dual(Tiny(num_classes=None), text, width=8)
    given = {
        "image": jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32),
        "text": jax.ShapeDtypeStruct((1, 4), jnp.int32),
    }
    params, _ = jax.eval_shape(functools.partial(initialise, dual), jax.random.key(0), given)
    networks = {"model": params, "t": jnp.ones(())}
    found = flatten(optimizer(layer_decay=0.5).multipliers(networks, {"model": dual}))
    assert found["model.image.patch_embed.kernel"] == 0.5**4
    assert found["model.text.token_embed.embedding"] == 0.5**3
    np.testing.assert_array_equal(found["model.text.blocks.norm1.scale"], [0.25, 0.5])
    assert found["model.text_projection.kernel"] == found["t"] == 1


def test_frozen_stays_frozen_and_wrong_rates_are_named():
    rules = (ParameterRule("head"), ParameterRule(".*", learning_rate=0))
    params = {"model": {"blocks": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones(2)}}}
    tuned = Optimizer(adamw(), 0.1, layer_decay=0.5, weight_decay=1.0, rules=rules)
    towers = {"model": Tiny(depth=2)}
    transform = tuned.build(params, TRAIN_LENGTH, towers)
    state = transform.init(params)
    assert all(leaf.shape in ((), (2,)) for leaf in jax.tree.leaves(state))
    updates: Any
    updates, _ = transform.update(params, state, params)
    after: Any = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(after["model"]["blocks"]["kernel"], 1)
    assert tuned.describe(params, towers) == "2 of 6 parameters trained"
    with pytest.raises(ValueError, match=r"layer_decay is 1\.5, expected a number in \(0, 1\]"):
        Optimizer(adamw(), 0.1, layer_decay=1.5)
    with pytest.raises(ConfigError, match="PlainConv does not say how deep its layers lie; leave"):
        optimizer(layer_decay=0.5).multipliers(params, {"model": PlainConv()})


@pytest.mark.parametrize(
    ("tower", "path", "above"),
    [
        (DenseNet(layers=(2, 2, 3), growth=4), "transition1_conv/kernel", 5),
        (DenseNet(layers=(2, 2, 3), growth=4), "transition2_norm/scale", 3),
        (NasNet(depth=1, filters=8), "norm_stem/scale", 6),
        (NasNet(depth=1, filters=8), "block04/left0/kernel", 1),
        (EfficientNet(variant="B0"), "stem_conv/kernel", 17),
        (VGG(depth=11), "fc1/kernel", 0),
        (PlainMamba(width=16, depth=3), "blocks/in/kernel", range(3, 0, -1)),
        (TextTransformer(vocab_size=5, depth=2, segments=2), "segment_embed", 3),
        (AdaptedTower(Tiny()), "adapters/blocks/mlp/fc1/a", range(3, 0, -1)),
        (AdaptedTower(Tiny()), "prompts", 0),
        (CosineHead(Tiny()), "tower/patch_embed/kernel", 4),
    ],
)
def test_towers_say_how_deep_a_layer_lies(tower: Any, path: str, above: int | range):
    assert tower.layers_above(path.split("/")) == above
