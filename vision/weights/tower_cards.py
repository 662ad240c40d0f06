"""The tower that belongs to weights, from the config file beside them.

    timm           config.json               ``architecture`` and ``model_args``
    open_clip      open_clip_config.json     ``model_cfg``
    transformers   config.json               ``model_type`` and its fields

What an architecture of timm means stands in timm_architectures.json, which is read off timm's own
models (bench/goldens/timm_architectures.py). A key that is neither used nor known to change nothing
is an error that names it, unless it is null.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vision.config.errors import UserError
from vision.config.modes import Config
from vision.config.schema import locate
from vision.config.specs import build, spec
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.weights import hub
from vision.weights.cards import CardObject, read_card
from vision.weights.mapping import WeightsError
from vision.weights.transformers_cards import ACTIVATIONS, CLIP_POOL, transformers_tower

FILES: Mapping[str, str] = {
    "timm": "config.json",
    "open_clip": "open_clip_config.json",
    "transformers": "config.json",
}
_TOWERS: Mapping[str, str] = {
    "BiT": "bit.BiT",
    "ConvNeXt": "convnext.ConvNeXt",
    "DenseNet": "densenet.DenseNet",
    "EfficientNet": "efficientnet.EfficientNet",
    "InceptionResNetV2": "inception_resnet.InceptionResNetV2",
    "InceptionV4": "inception.InceptionV4",
    "MobileNetV2": "mobilenet.MobileNetV2",
    "MobileNetV3": "mobilenet.MobileNetV3",
    "ResNet": "resnet.ResNet",
    "Swin": "swin.Swin",
    "VGG": "vgg.VGG",
    "ViT": "vit.ViT",
}


class UnknownArchitecture(WeightsError):
    """A card is of something that no tower here is known to be, or not to be."""


@dataclasses.dataclass(frozen=True)
class TowerCard:
    """A tower as the file beside weights states it.

    Attributes:
      path: that file.
      config: ``spec(ViT, ...)``, or of another tower or a ``Dual``, without ``num_classes``.
    """

    path: Path
    config: Config

    def part(self, name: str) -> TowerCard:
        """``image`` or ``text`` of a ``Dual``.

        Raises:
          WeightsError: the card is of one tower.
        """
        if name not in self.config:
            raise WeightsError(f"{self.path} is of one tower, which has no part {name!r}")
        return dataclasses.replace(self, config=self.config[name])


def read_tower(source: str) -> TowerCard | None:
    """The tower of a source of ``InitFrom``; None where no file says which it is.

    Raises:
      WeightsError: no tower here computes what the file is of; or the file is not what it should
        be. It and the key are named.
    """
    scheme, _, text = source.partition(":")
    if scheme not in FILES:
        return None
    path = hub.beside(scheme, text, FILES[scheme])
    if path is None:
        return None
    card = read_card(path)
    try:
        config = _READERS[scheme](card)
        build(config)
    except WeightsError:
        raise
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from error
    return TowerCard(path, config)


@functools.cache
def _architectures() -> Mapping[str, Any]:
    file = Path(__file__).with_name("timm_architectures.json")
    return json.loads(file.read_text(encoding="utf-8"))


def _timm(card: CardObject) -> Config:
    nested = card.part("pretrained_cfg")
    name = card.values.get("architecture") or nested.values.get("architecture")
    if not isinstance(name, str):
        raise UnknownArchitecture(
            f"{card.path} has no architecture, timm's name of the model: write it there, or the "
            "tower into the config by hand, model=spec(ViT, ...), as docs/weights.md says"
        )
    fields = dict(timm_fields(card, "architecture", name))
    kind = fields["tower"]
    arguments = card.part("model_args")
    for key, value in arguments.values.items():
        if value is None and key not in ("init_values", "ls_init_value", "fc_norm"):
            continue
        mean = key == "global_pool" and value == "avg" and kind != "ViT"
        if key in _HARMLESS_ARGUMENTS or mean:
            continue
        change = _ARGUMENTS.get((kind, key))
        if change is None:
            raise arguments.error(key, f"is an argument of timm's that has no meaning for {kind}")
        try:
            fields |= change(fields, value)
        except (TypeError, ValueError, KeyError) as error:
            raise arguments.error(key, "is not read here") from error
    width = card.values.get("num_features")
    if kind == "ViT" and width is not None and width != fields["width"]:
        raise card.error("num_features", f"does not agree with {name}'s width {fields['width']}")
    return _of_fields(fields)


def timm_fields(card: CardObject, key: str, name: str) -> Mapping[str, Any]:
    """The fields of timm's model of this name, which a card has under ``key``.

    Raises:
      WeightsError: no tower here computes what that model does.
    """
    found = _architectures().get(name)
    if isinstance(found, str):
        raise WeightsError(f"{card.path}: {card.within}{key} is {name!r}: {found}; {_others()}")
    if found is None:
        raise UnknownArchitecture(
            f"{card.path}: {card.within}{key} is {name!r}, which no tower here is known to "
            f"compute; {_others()}"
        )
    return found


def _others() -> str:
    return f"of timm's models there are members of {', '.join(sorted(_TOWERS))} here"


def _of_fields(fields: Mapping[str, Any]) -> Config:
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    del kept["tower"]
    if kept.get("size") not in ("large", "small"):  # of images, where it is none of MobileNetV3's
        kept.pop("size", None)
    return spec(locate(f"vision.models.{_TOWERS[fields['tower']]}"), **kept)


# Arguments of timm's constructors with which a tower has the same parameters and numbers: of the
# size of images, which positions are resampled for, and of training.
_HARMLESS_ARGUMENTS = (
    *("img_size", "num_classes", "in_chans", "drop_rate", "drop_path_rate", "proj_drop_rate"),
    *("attn_drop_rate", "pos_drop_rate", "dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
)
_Change = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]
_VIT_POOLS = {"token": "cls", "avg": "mean", "map": "map"}


def _field(name: str, kind: type | tuple[type, ...] = int) -> _Change:
    def change(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
        if value is not None and (not isinstance(value, kind) or name not in fields):
            raise TypeError(name)
        return {name: value}

    return change


def _mlp_ratio(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    hidden = int(fields["width"] * value)
    return {"mlp_dim": hidden // 2 if fields["activation"] == "swiglu" else hidden}


def _positions(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    if fields["registers"] and not value:
        raise ValueError("registers with positions")
    return {"class_position": bool(fields["class_token"]) and not value}


def _pool(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    pool = _VIT_POOLS[value]
    return {} if pool == fields["pool"] else {"pool": pool, "norm_pooled": pool == "mean"}


def _fc_norm(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    return {"norm_pooled": fields["pool"] == "mean" if value is None else bool(value)}


def _deep_stem(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    return {"stem": {"deep": "deep", "": "imagenet"}[value]}


def _stem_width(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    if value != 32:
        raise ValueError(value)
    return {}


_ARGUMENTS: Mapping[tuple[str, str], _Change] = {
    ("ViT", "patch_size"): _field("patch"),
    ("ViT", "embed_dim"): _field("width"),
    ("ViT", "depth"): _field("depth"),
    ("ViT", "num_heads"): _field("heads"),
    ("ViT", "mlp_ratio"): _mlp_ratio,
    ("ViT", "qkv_bias"): _field("qkv_bias", bool),
    ("ViT", "init_values"): _field("layer_scale", (int, float)),
    ("ViT", "class_token"): lambda fields, value: {
        "class_token": value,
        "class_position": value and fields["class_position"],
    },
    ("ViT", "global_pool"): _pool,
    ("ViT", "reg_tokens"): _field("registers"),
    ("ViT", "no_embed_class"): _positions,
    ("ViT", "pre_norm"): _field("pre_norm", bool),
    ("ViT", "fc_norm"): _fc_norm,
    ("ViT", "act_layer"): lambda fields, value: {"activation": ACTIVATIONS[value]},
    ("ResNet", "stem_type"): _deep_stem,
    ("ResNet", "stem_width"): _stem_width,
    ("ResNet", "avg_down"): lambda fields, value: {
        "downsample": {True: "average", False: "strided"}[value]
    },
    ("ResNet", "cardinality"): _field("groups"),
    ("ResNet", "base_width"): _field("group_width"),
    ("ConvNeXt", "depths"): _field("depths", list),
    ("ConvNeXt", "dims"): _field("dims", list),
    ("ConvNeXt", "patch_size"): _field("stem_stride"),
    ("ConvNeXt", "ls_init_value"): _field("layer_scale", (int, float)),
    ("ConvNeXt", "use_grn"): _field("grn", bool),
    # Tensors say which of the two layers that compute the same theirs is.
    ("ConvNeXt", "conv_mlp"): lambda fields, value: {},
}

_OPEN_CLIP_HARMLESS = ("init_logit_scale", "init_logit_bias", "custom_text")
_VISION_HARMLESS = (
    *("image_size", "patch_dropout", "output_tokens", "timm_model_pretrained", "timm_drop"),
    *("timm_drop_path", "attn_pooler_queries", "attn_pooler_heads"),
)
_TEXT_HARMLESS = (
    *("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "output_tokens", "eos_id"),
)
# What else there is has to have its default, with which it does nothing.
_OFF: Mapping[str, Any] = {
    "attentional_pool": False,
    "final_ln_after_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "embed_cls": False,
}


def _open_clip(card: CardObject) -> Config:
    config = card.part("model_cfg")
    if not config.values:
        raise UnknownArchitecture(
            f"{card.path} has no model_cfg, the sizes of the model: write the towers into the "
            "config by hand, model=spec(Dual, ...), as docs/weights.md says"
        )
    known = ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg", *_OPEN_CLIP_HARMLESS)
    _check_keys(config, known)
    quick = config.values.get("quick_gelu") is True
    width = config.sides("embed_dim", 512)[0]
    vision, text = config.part("vision_cfg"), config.part("text_cfg")
    image, projected, image_bias = _open_clip_image(vision, width, quick)
    if text.values.get("hf_model_name") is not None:
        raise text.error("hf_model_name", "is a text tower whose sizes are not in this file")
    options = {
        *("width", "heads", "layers", "context_length", "vocab_size", "mlp_ratio"),
        *("ls_init_value", "pad_id", "no_causal_mask", "pool_type", "proj_bias", "proj_type"),
        *("act_kwargs", "norm_kwargs", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"),
    }
    _check_keys(text, (*options, *_TEXT_HARMLESS, *_OFF))
    text.choice("proj_type", {"linear": ""}, "")
    pool = text.choice("pool_type", {"argmax": CLIP_POOL, "last": "last"}, CLIP_POOL)
    causal = text.values.get("no_causal_mask") is not True
    bias = text.values.get("proj_bias") is True
    if projected and image_bias != bias:
        raise text.error("proj_bias", "is not that of the image tower, which a Dual has in common")
    text_width = text.sides("width", 512)[0]
    tower = spec(
        TextTransformer,
        vocab_size=text.sides("vocab_size", 49408)[0],
        width=text_width,
        depth=text.sides("layers", 12)[0],
        heads=text.sides("heads", 8)[0],
        mlp_dim=int(text_width * text.numbers("mlp_ratio", (4.0,), 1)[0]),
        context=text.sides("context_length", 77)[0],
        causal=causal,
        pool=pool,
        pad_id=0 if causal else None,
        **_common(text, quick),
    )
    return spec(Dual, image=image, text=tower, width=width, image_projection=projected, bias=bias)


def _open_clip_image(vision: CardObject, width: int, quick: bool) -> tuple[Config, bool, bool]:
    """The image tower, whether it is projected, and whether with a bias."""
    name = vision.values.get("timm_model_name")
    if name is not None:
        known = ("timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias", "layers", "width")
        _check_keys(vision, (*known, "head_width", "patch_size", "mlp_ratio", *_VISION_HARMLESS))
        fields = dict(timm_fields(vision, "timm_model_name", str(name)))
        projected = vision.choice("timm_proj", {"none": "", "linear": "linear"}, "linear") != ""
        pool = vision.choice("timm_pool", _VIT_POOLS, "mean")
        if fields["tower"] == "ViT":
            if pool != fields["pool"]:
                raise vision.error("timm_pool", f"is not that of {name}, {fields['pool']}")
        elif pool != "mean":
            raise vision.error("timm_pool", f"is not that of {name}")
        return _of_fields(fields), projected, vision.values.get("timm_proj_bias") is True
    if not isinstance(vision.values.get("layers", 12), int):
        raise vision.error("layers", "are of CLIP's modified ResNet, which no tower here is")
    known = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "ls_init_value")
    others = ("act_kwargs", "norm_kwargs", "pool_type", "timm_pool", "timm_proj", "timm_proj_bias")
    _check_keys(vision, (*known, *others, *_VISION_HARMLESS, *_OFF))
    vision.choice("pool_type", {"tok": ""}, "")
    size = vision.sides("width", 768)[0]
    patch = vision.sides("patch_size", 16)
    if patch[0] != patch[1]:
        raise vision.error("patch_size", "is not square, as patches here are")
    head = vision.sides("head_width", 64)[0]
    tower = spec(
        ViT,
        width=size,
        depth=vision.sides("layers", 12)[0],
        heads=size // head,
        mlp_dim=int(size * vision.numbers("mlp_ratio", (4.0,), 1)[0]),
        patch=patch[0],
        class_position=True,
        pre_norm=True,
        **_common(vision, quick),
    )
    return tower, True, False


def _common(card: CardObject, quick: bool) -> dict[str, Any]:
    """Fields that both of open_clip's own towers have."""
    activation = card.part("act_kwargs")
    _check_keys(activation, ("approximate",))
    kind = activation.choice("approximate", {"none": "gelu", "tanh": "gelu_tanh"}, "gelu")
    norm = card.part("norm_kwargs")
    _check_keys(norm, ("eps",))
    scale = card.values.get("ls_init_value")
    return {
        "activation": "quick_gelu" if quick else kind,
        "norm_epsilon": norm.numbers("eps", (1e-5,), 1)[0],
        "layer_scale": None if scale is None else card.numbers("ls_init_value", (0.0,), 1)[0],
    }


def _check_keys(card: CardObject, known: Any) -> None:
    for key, value in card.values.items():
        off = key in _OFF and value == _OFF[key]
        if value is not None and not off and (key not in known or key in _OFF):
            raise card.error(key, "is not known here, and may change what the tower computes")


_READERS: Mapping[str, Callable[[CardObject], Config]] = {
    "timm": _timm,
    "open_clip": _open_clip,
    "transformers": transformers_tower,
}
