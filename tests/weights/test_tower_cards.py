"""Towers from the files beside weights (goldens: bench/goldens/weights_cards.py)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vision.config.expand import expand
from vision.config.schema import ConfigError
from vision.config.specs import build, load, spec
from vision.data.ops.values import Decode, ValueRange
from vision.data.pipeline import TrainData
from vision.data.sources.fake import Fake
from vision.models.adapted import AdaptedTower
from vision.models.dual import Dual
from vision.models.naflex import NaflexViT
from vision.models.resnet import ResNet
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment, check
from vision.train.optim import Optimizer, adamw
from vision.train.precision import Precision
from vision.train.tower import forward, initialise
from vision.weights import agreement, describe, timm_cards
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.pretrained import Pretrained, PretrainedOps
from vision.weights.tower_cards import read_tower

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "weights"
CARDS = json.loads((GOLDENS / "cards.json").read_text())
SIZES = load_file(GOLDENS / "sizes.safetensors")
NARROW = [case for case in CARDS if not case.startswith("real/")]


def card(folder, case, **changes):
    """The card of a case in a folder; a change of None takes a key out. Its source."""
    found = CARDS[case]
    content = {**found["content"], **changes}
    content = {k: v for k, v in content.items() if v is not None or k not in changes}
    (folder / found["file"]).write_text(json.dumps(content))
    return f"{found['scheme']}:{folder}"


def weights(folder, case):
    where = "text" if case == "transformers_siglip2" else "vit"
    tensors = load_file(GOLDENS / where / f"{case}.safetensors")
    found = {k[8:]: v for k, v in tensors.items() if k.startswith("weights/")}
    if case == "open_clip":
        found = {f"visual.{k}": v for k, v in found.items()}
    save_file(found, folder / "model.safetensors")


@functools.cache
def abstract(tower, shape):
    return jax.eval_shape(
        functools.partial(initialise, tower),
        jax.random.key(0),
        jax.ShapeDtypeStruct(shape, np.float32),
    )


def fresh(tower, shape):
    """Variables of a tower, every number 7."""
    params, state = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), abstract(tower, shape))
    return {"params": params, "model_state": dict(state)}


def near(found, wanted, tolerance=5e-6):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() / np.abs(wanted).max() <= tolerance


@pytest.mark.parametrize("case", NARROW)
def test_the_name_is_enough(case, tmp_path):
    """The card gives the tower, and at another, non-square size its numbers are the library's."""
    source = card(tmp_path, case)
    weights(tmp_path, case)
    classes = 5 if f"{case}/logits" in SIZES else None
    part = "image" if case == "open_clip" else ""
    config = Pretrained(source, part).expanded()
    tower = build(config, num_classes=classes)
    tower = tower.as_vit() if isinstance(tower, NaflexViT) else tower
    images = SIZES[f"{case}/images"]
    filled = InitFrom(source).load(tower, fresh(tower, images.shape))

    def apply(params, images):
        return forward(tower, params, {}, images, train=False)[1]

    out = jax.jit(apply, compiler_options={"xla_backend_optimization_level": 0})(
        filled["params"], images
    )
    for name in ("embedding", "logits"):
        if f"{case}/{name}" in SIZES:
            near(out[name], SIZES[f"{case}/{name}"])


DINO = {"width": 384, "depth": 12, "mlp_dim": 1536, "heads": 6, "patch": 14, "registers": 4}
CLIP_B32 = {"width": 768, "depth": 12, "heads": 12, "patch": 32, "activation": "quick_gelu"}
REAL = {
    "vit_small_patch14_reg4_dinov2": ("ViT", {**DINO, "layer_scale": 1e-5, "pool": "cls"}),
    "vit_base_patch16_224": ("ViT", {"class_position": True, "norm_epsilon": 1e-6, "heads": 12}),
    "vit_base_patch32_clip_224": ("ViT", {"pre_norm": True, "norm_epsilon": 1e-5, "patch": 32}),
    "deit3_small_patch16_224": ("ViT", {"class_position": False, "layer_scale": 1e-6, "heads": 6}),
    "vit_so150m_patch16_reg4_gap_256": (
        "ViT",
        {"register_positions": True, "class_position": False, "registers": 4, "mlp_dim": 2304},
    ),
    "beit_base_patch16_224": (
        "RelativeViT",
        {"bias": "block", "qkv_bias": "qv", "layer_scale": 0.1, "norm_pooled": True},
    ),
    "resnet50": ("ResNet", {"depth": 50, "stem": "imagenet", "downsample": "strided"}),
    "resnet50d": ("ResNet", {"depth": 50, "stem": "deep", "downsample": "average"}),
    "resnext50_32x4d": ("ResNet", {"groups": 32, "group_width": 4}),
    "resnetaa50": ("ResNet", {"depth": 50, "anti_alias": "average", "squeeze": False}),
    "resnetblur50": ("ResNet", {"depth": 50, "anti_alias": "blur", "stem": "imagenet"}),
    "resnetv2_50": ("ResNetV2", {"depth": 50, "stem": "imagenet", "downsample": "strided"}),
    "ConvNext": ("ConvNeXt", {"depths": (3, 3, 9, 3), "final_epsilon": 1e-12, "grn": False}),
    "convnext_tiny": ("ConvNeXt", {"depths": (3, 3, 9, 3), "layer_scale": 1e-6, "grn": False}),
    "convnextv2_nano": ("ConvNeXt", {"dims": (80, 160, 320, 640), "layer_scale": None}),
    "densenet121": ("DenseNet", {"variant": "121"}),
    "swin_tiny_patch4_window7_224": ("Swin", {"heads": (3, 6, 12, 24), "windows": (7, 7, 7, 7)}),
    "tf_efficientnet_b0": ("EfficientNet", {"padding": "same", "norm_epsilon": 1e-3}),
    "mobilenetv3_large_100": ("MobileNetV3", {"size": "large", "width_multiplier": 1.0}),
    "vgg16_bn": ("VGG", {"depth": 16, "batch_norm": True}),
    "resnetv2_50x1_bit": ("BiT", {"depth": 50, "width_multiplier": 1.0}),
    "Bert": ("TextTransformer", {"post_norm": True, "segments": 2, "pooler": True, "heads": 12}),
    "CLIP": ("Dual", {"width": 512, "image_projection": True, "bias": False}),
    "Siglip": ("Dual", {"width": 768, "image_projection": False, "bias": True}),
    "ViT-B-32-quickgelu": ("Dual", {"width": 512}),
    "coca_ViT-B-32": ("Dual", {"width": 512, "image_projection": True, "bias": False}),
    "ViT-B-16-SigLIP": ("Dual", {"width": 768, "image_projection": False, "bias": True}),
    "ViT-B-16-SigLIP2": ("Dual", {"width": 768, "image_projection": False, "bias": True}),
}
TOWERS = {
    ("CLIP", "image"): {**CLIP_B32, "pre_norm": True, "norm_epsilon": 1e-5},
    ("CLIP", "text"): {"vocab_size": 49408, "width": 512, "heads": 8, "causal": True},
    ("ViT-B-32-quickgelu", "image"): {**CLIP_B32, "pre_norm": True, "norm_epsilon": 1e-5},
    ("ViT-B-32-quickgelu", "text"): {"activation": "quick_gelu", "norm_epsilon": 1e-5},
    ("coca_ViT-B-32", "image"): {"pool": "queries", "query_width": 512, "norm_pooled": True},
    ("coca_ViT-B-32", "text"): {"pool": "class", "context": 76, "causal": True},
    ("Siglip", "image"): {"pool": "map", "activation": "gelu_tanh", "norm_epsilon": 1e-6},
    ("Siglip", "text"): {"causal": False, "pad_id": None, "activation": "gelu_tanh"},
    ("ViT-B-16-SigLIP", "image"): {"pool": "map", "activation": "gelu"},
    ("ViT-B-16-SigLIP", "text"): {"activation": "gelu", "norm_epsilon": 1e-6, "pad_id": None},
    # Its image tower is exact, and its text tower approximates.
    ("ViT-B-16-SigLIP2", "image"): {"pool": "map", "activation": "gelu"},
    ("ViT-B-16-SigLIP2", "text"): {"activation": "gelu_tanh", "vocab_size": 256000},
}


@pytest.mark.parametrize("name", REAL)
def test_real_cards(name, tmp_path):
    found = read_tower(card(tmp_path, f"real/{name}"))
    assert found is not None
    kind, fields = REAL[name]
    assert type(build(found.config)).__name__ == kind
    assert {key: found.config[key] for key in fields} == fields
    for (which, side), wanted in TOWERS.items():
        if which == name:
            part = found.part(side).config
            assert {key: part[key] for key in wanted} == wanted


def test_every_architecture_of_the_table_is_a_tower(tmp_path):
    """Of timm's 484 names of these families, or why not: a text."""
    file = Path(timm_cards.__file__).with_name("timm_architectures.json")
    table = json.loads(file.read_text())
    read = {name: entry for name, entry in table.items() if isinstance(entry, dict)}
    assert len(read) > 200
    assert all(isinstance(entry, dict) or len(entry) > 20 for entry in table.values())
    for name in read:
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
        found = read_tower(f"timm:{tmp_path}")
        assert found is not None, name
        assert found.config.get("size") == ("small" if "_small" in name else "large") or (
            "mobilenetv3" not in name
        )


REFUSED = {
    "RN50": "vision_cfg.layers are of CLIP's modified ResNet",
    "DeiT": "model_type is 'deit': a DeiT with a distillation token",
    "ViTMAE": "model_type is 'vit_mae'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_tower_here_computes(name, tmp_path):
    source = card(tmp_path, f"real/{name}")
    with pytest.raises(WeightsError, match=REFUSED[name]) as caught:
        read_tower(source)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_printed_tower_is_the_card_s(tmp_path, capsys):
    """In full: what is printed, pasted into a config, is the same tower, field by field."""
    source = card(tmp_path, "real/ViT-B-32-quickgelu")
    assert describe.main([source]) == 0
    printed = capsys.readouterr().out.partition("\n")[2].partition("\n\n")[0]
    names = {"spec": spec, "Dual": Dual, "ViT": ViT, "TextTransformer": TextTransformer}
    found = read_tower(source)
    assert found is not None
    assert eval(printed, {**names, "Precision": Precision}) == found.config
    assert "activation='quick_gelu'" in printed
    assert "drop_path=0.0" in printed


def test_every_real_card_is_tested():
    assert {f"real/{name}" for name in (*REAL, *REFUSED)} == set(CARDS) - set(NARROW)


CHANGED = {
    "another key": ("transformers_vit", {"rotary": True}, "config.json: rotary is not known here"),
    "act": ("transformers_vit", {"hidden_act": "relu"}, "hidden_act is none of gelu, "),
    "heads": ("transformers_vit", {"num_attention_heads": 3}, "heads=3 does not divide width=16"),
    "positions": ("real/Bert", {"position_embedding_type": "relative_key"}, "is not 'absolute'"),
    "decoder": ("real/Bert", {"is_decoder": True}, "is_decoder is not False"),
    "no type": ("transformers_vit", {"model_type": None}, "has no model_type"),
    "no name": ("timm_augreg", {"architecture": None}, "has no architecture.*by hand"),
    "a number": ("timm_augreg", {"architecture": 7}, "has no architecture"),
    "argument": ("timm_augreg", {"model_args": {"rope": 1}}, "model_args.rope is an argument"),
    "value": ("timm_augreg", {"model_args": {"depth": "2"}}, "model_args.depth is not read"),
    "features": ("timm_augreg", {"num_features": 24}, "num_features does not agree with"),
    "classifier": (
        "transformers_siglip",
        {"architectures": ["SiglipForImageClassification"]},
        "architectures pools and classifies",
    ),
    "no sizes": ("open_clip", {"model_cfg": None}, "has no model_cfg"),
    "pooling of a rotary tower": (
        "timm_augreg",
        {"architecture": "eva02_tiny_patch14_224", "model_args": {"global_pool": "token"}},
        "model_args.global_pool is not read here",
    ),
    "an argument of a rotary tower": (
        "timm_augreg",
        {"architecture": "eva02_tiny_patch14_224", "model_args": {"rope_temperature": 10}},
        "rope_temperature is an argument of timm's that has no meaning for RelativeViT",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_cards_that_say_something_else(case, tmp_path):
    name, changes, message = CHANGED[case]
    with pytest.raises(WeightsError, match=message) as caught:
        read_tower(card(tmp_path, name, **changes))
    assert str(tmp_path) in str(caught.value)


def test_without_a_card(tmp_path):
    assert read_tower(f"timm:{tmp_path}") is None
    assert read_tower("workdir:x") is None
    with pytest.raises(WeightsError, match="no config file beside the weights says which tower"):
        Pretrained(f"timm:{tmp_path}").expanded()
    source = card(tmp_path, "timm_augreg")
    with pytest.raises(WeightsError, match=r"fields: .*drop_pth.*did you mean 'drop_path'"):
        Pretrained(source, fields={"drop_pth": 0.1}).expanded()
    assert Pretrained(source, fields={"drop_path": 0.1}).expanded().drop_path == 0.1
    with pytest.raises(WeightsError, match="is of one tower, which has no part 'image'"):
        Pretrained(source, "image").expanded()


TINY: Any = {"width": 16, "depth": 2, "heads": 2, "patch": 4, "mlp_dim": 32}
CLIP: Any = {"class_position": True, "pre_norm": True, "norm_epsilon": 1e-5}
BY_HAND = {
    "activation": ("timm_clip", {**CLIP, "activation": "gelu"}, "'quick_gelu'", "'gelu'"),
    "heads": ("timm_augreg", {"heads": 4, "class_position": True}, "2", "4"),
    "norm_epsilon": ("transformers_vit", {"class_position": True}, "1e-12", "1e-06"),
    "pool": (
        "timm_augreg",
        {"pool": "mean", "class_token": True, "class_position": True},
        "'cls'",
        "'mean'",
    ),
}


@pytest.mark.parametrize("field", BY_HAND)
def test_a_tower_by_hand_is_compared(field, tmp_path, caplog):
    """What shapes cannot tell is refused with its name, unless it is asked for."""
    case, fields, theirs, ours = BY_HAND[field]
    source = card(tmp_path, case)
    weights(tmp_path, case)
    tower = ViT(**{**TINY, **fields})
    variables = fresh(tower, (1, 16, 16, 3))
    message = (
        f"config.json is of a tower with {field}={theirs}, but the config's has {field}={ours}"
    )
    with pytest.raises(WeightsError, match=message):
        InitFrom(source).load(tower, variables)
    chosen = InitFrom(source, compare=False).load(tower, variables)
    (tmp_path / CARDS[case]["file"]).unlink()
    with caplog.at_level("INFO"):
        alone = InitFrom(source).load(tower, variables)
    assert "no card beside" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, chosen, alone)


def test_a_resnet_that_is_not_one(tmp_path):
    """Loads without a card as a ResNet-50, whose parameters have the same shapes."""
    save_file({"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, tmp_path / "x.safetensors")
    for name in ("resnetaa50", "resnetblur50"):
        source = card(tmp_path, f"real/{name}")
        found = {"resnetaa50": "average", "resnetblur50": "blur"}[name]
        with pytest.raises(WeightsError, match=f"tower with anti_alias='{found}', but.*='none'"):
            InitFrom(source).load(ResNet(depth=50), {"params": {}, "model_state": {}})


def test_parts_of_a_dual_are_compared_with_theirs(tmp_path, caplog):
    found = read_tower(card(tmp_path, "real/CLIP"))
    assert found is not None
    dual = build(found.config)
    for tower in (dual, dual.image, dual.text, dual.image.clone(patch=16, drop_path=0.1)):
        agreement.check(found, tower)
    assert "tower with patch=32, but the config's has patch=16" in caplog.text
    other = dual.clone(text=dual.text.clone(heads=4))
    for tower, field in (
        (other, "text.heads=8"),
        (other.text, "heads=8"),
        (dual.clone(width=256), "width=512"),
        (ResNet(depth=50), "constructor='ViT'"),
    ):
        with pytest.raises(WeightsError, match=f"is of a tower with {field}"):
            agreement.check(found, tower)


def test_weights_of_another_depth_than_the_card(tmp_path):
    case = "timm_augreg"
    arguments = {**CARDS[case]["content"]["model_args"], "depth": 3}
    source = card(tmp_path, case, model_args=arguments)
    weights(tmp_path, case)
    tower = build(Pretrained(source).expanded())
    with pytest.raises(WeightsError, match=r"tensor blocks\.2\.\S+ is missing.*config\.json"):
        InitFrom(source).load(tower, fresh(tower, (1, 16, 16, 3)))


def test_a_config_holds_the_tower_and_its_source(tmp_path):
    source = card(tmp_path, "timm_augreg")
    pretrained = spec(Pretrained, source=source)
    chosen = [spec(Decode), spec(PretrainedOps, source=source, only_values=True)]
    data = spec(TrainData, source=spec(Fake, num_examples=8), batch_size=2, ops=chosen)
    optimizer = spec(Optimizer, method=spec(adamw), learning_rate=0.1)
    common: Any = {"data": data, "objective": spec(Classify), "optimizer": optimizer}
    common["total"] = "1 steps"
    for model, into in (
        (pretrained, ""),
        (spec(AdaptedTower, tower=pretrained, frozen_statistics=True), "tower"),
    ):
        config: Any = expand(spec(Experiment, model=model, **common))
        check(config)
        tower = config.model.tower if into else config.model
        assert (tower.heads, tower.patch, tower.class_position) == (2, 4, True)
        assert (config.init_from.source, config.init_from.into) == (source, into)
        assert build(config.data.ops[1:]) == (ValueRange(low=-1.0, high=1.0),)
    with pytest.raises(ConfigError, match=r"config\.objective\.model: .*stands in a model"):
        expand(spec(Experiment, **{**common, "objective": spec(Classify, model=pretrained)}))


def test_fine_tuning_from_a_name_alone(tmp_path):
    source = card(tmp_path, "timm_dinov2_reg4")
    file = f"{Path(__file__).resolve().parents[2]}/configs/finetune_folder.py"
    for size, more, resized in ((16, "", 16), (24, ",size=24,tune=lora", 24)):
        config: Any = load(f"{file}:images,weights={source}{more}")
        check(config)
        tower = config.model.tower if "lora" in more else config.model
        assert (tower.registers, tower.heads) == (4, 2)
        assert config.init_from.source == source
        *_, resize, crop, _, normalize = build(config.evaluators.val.data.ops)
        assert (resize.size, crop.size, normalize.std) == (resized, size, (0.229, 0.224, 0.225))
        assert build(config.data.ops)[1].method == resize.method == "bicubic"
    with pytest.raises(ConfigError, match="variant='L/16', but timm:"):
        load(f"{file}:images,weights={source},variant=L/16")
    for more, place in (("", "model"), (",tune=lora", "model.tower")):
        config = load(f"{file}:images,tower=vit_b16,variant=L/16{more}")
        assert (config.model if place == "model" else config.model.tower).variant == "L/16"
