"""The tower that a name of timm's and its arguments are of.

What an architecture of timm means stands in timm_architectures.json, which is read off timm's own
models (bench/goldens/timm_architectures.py).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vision.config.modes import Config
from vision.config.schema import locate
from vision.config.specs import spec
from vision.models.resnet import BASIC, STAGES
from vision.models.rope import Rope
from vision.weights.cards import TIMM_KEYS, CardObject
from vision.weights.mapping import WeightsError
from vision.weights.transformers_keys import ACTIVATIONS

_TOWERS: Mapping[str, str] = {
    "BiT": "bit.BiT",
    "ConvNeXt": "convnext.ConvNeXt",
    "DenseNet": "densenet.DenseNet",
    "EfficientNet": "efficientnet.EfficientNet",
    "EfficientNetLite": "efficientnet_lite.EfficientNetLite",
    "InceptionResNetV2": "inception_resnet.InceptionResNetV2",
    "InceptionV4": "inception.InceptionV4",
    "MobileNetV1": "mobilenet.MobileNetV1",
    "MobileNetV2": "mobilenet.MobileNetV2",
    "MobileNetV3": "mobilenet.MobileNetV3",
    "MobileNetV4": "mobilenet_v4.MobileNetV4",
    "MaxVit": "maxvit.MaxVit",
    "Mixer": "mixer.Mixer",
    "RelativeViT": "relative_vit.RelativeViT",
    "RegNet": "regnet.RegNet",
    "ResNet": "resnet.ResNet",
    "ResNetV2": "resnet_v2.ResNetV2",
    "Swin": "swin.Swin",
    "SwinV2": "swin_v2.SwinV2",
    "VGG": "vgg.VGG",
    "ViT": "vit.ViT",
    "Xcit": "xcit.Xcit",
}


class UnknownArchitecture(WeightsError):
    """A card is of something that no tower here is known to be, or not to be."""


@functools.cache
def _architectures() -> Mapping[str, Any]:
    file = Path(__file__).with_name("timm_architectures.json")
    return json.loads(file.read_text(encoding="utf-8"))


def timm_tower(card: CardObject) -> Config:
    """The tower of a ``config.json`` of timm.

    Raises:
      WeightsError: no tower here computes what it is of, or a key is not known.
    """
    for key, value in card.values.items():
        if value is not None and key not in (*TIMM_KEYS, *_OF_THE_HUB):
            raise card.error(key, "is not known here, and may change what the tower computes")
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
    stated = dict(arguments.values)
    size = nested.values.get("input_size")
    if nested.values.get("fixed_input_size") and isinstance(size, list) and len(size) == 3:
        # timm makes the tower for the images of the weights.
        stated.setdefault("img_size", size[1:])
    for key, value in sorted(stated.items(), key=_in_order):
        if value is None and key not in ("init_values", "ls_init_value", "fc_norm"):
            continue
        mean = key == "global_pool" and value == "avg" and "ViT" not in kind and kind != "Xcit"
        placed = fields.get("posemb", "none") != "none" or fields.get("bias", "none") != "none"
        if key == "img_size" and (kind == "ViT" or placed):
            CardObject(card.path, stated, arguments.within).check_square(key)
        change = _ARGUMENTS.get((kind, key))
        if change is None and (key in _HARMLESS_ARGUMENTS or mean):
            continue
        if change is None:
            raise arguments.error(key, f"is an argument of timm's that has no meaning for {kind}")
        try:
            fields |= change(fields, value)
        except (TypeError, ValueError, KeyError) as error:
            raise arguments.error(key, "is not read here") from error
    width = card.values.get("num_features")
    if kind in ("ViT", "RelativeViT") and width is not None and width != fields["width"]:
        raise card.error("num_features", f"does not agree with {name}'s width {fields['width']}")
    return of_fields(fields)


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


def _in_order(argument: tuple[str, Any]) -> int:
    """Those first that others are relative to, and the size of images last."""
    key = argument[0]
    return 0 if key in ("embed_dim", "depths", "stem_type") else 1 + (key == "img_size")


def _others() -> str:
    return f"of timm's models there are members of {', '.join(sorted(_TOWERS))} here"


def of_fields(fields: Mapping[str, Any]) -> Config:
    """``spec(ViT, ...)`` of an entry of the table."""
    kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    del kept["tower"]
    if "prefix_positions" in kept:
        placed = kept.pop("prefix_positions")
        kept["class_position"] = placed and kept["class_token"]
        kept["register_positions"] = placed and kept["registers"] > 0
    if isinstance(kept.get("rope"), dict):
        rope = {k: tuple(v) if isinstance(v, list) else v for k, v in kept["rope"].items()}
        kept["rope"] = spec(Rope, **rope)
    if kept.get("size") not in ("large", "small"):  # of images, where it is none of MobileNetV3's
        kept.pop("size", None)
    return spec(locate(f"vision.models.{_TOWERS[fields['tower']]}"), **kept)


# Arguments of timm's constructors with which a tower has the same parameters and numbers: of the
# size of images, which positions are resampled for, and of training.
_HARMLESS_ARGUMENTS = (
    *("img_size", "num_classes", "in_chans", "drop_rate", "drop_path_rate", "proj_drop_rate"),
    *(
        "attn_drop_rate",
        "pos_drop_rate",
        "patch_drop_rate",
        "dynamic_img_size",
        "strict_img_size",
        "weight_init",
    ),
    "dynamic_img_pad",
    *("fix_init", "zero_init_last", "head_init_scale", "drop_block_rate", "memory_efficient"),
)
# What else a whole file may say: of the tower, which follows from the rest, and of the page.
_OF_THE_HUB = (
    *("pretrained_cfg", "library_name", "timm_version", "torch_dtype", "tags", "datasets"),
    *("pipeline_tag", "model_name", "transformers_version", "metrics", "base_model"),
)
_Change = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]
VIT_POOLS = {"token": "cls", "avg": "mean", "map": "map"}


def _field(name: str, kind: type | tuple[type, ...] = int) -> _Change:
    def change(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
        if value is not None and (not isinstance(value, kind) or name not in fields):
            raise TypeError(name)
        return {name: value}

    return change


def _patch(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    sides = {value} if isinstance(value, int) else set(value)
    (side,) = sides  # square
    return _field("patch")(fields, side)


def _stem_stride(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    # After 2 timm halves once more, and from 8 its last stage is dilated.
    if value == 2 or value >= 8:
        raise ValueError(value)
    return _field("stem_stride")(fields, value)


def _mlp_ratio(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    hidden = int(fields["width"] * value)
    return {"mlp_dim": hidden // 2 if fields["activation"] == "swiglu" else hidden}


def _width(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    # Unless mlp_ratio says otherwise, MLPs stay as wide as they were beside the width.
    ratio = fields["mlp_dim"] / fields["width"]
    return {**_field("width")(fields, value), "mlp_dim": int(value * ratio + 1e-6)}


def _mixer_width(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    scale = value / fields["width"]
    return {
        **_field("width")(fields, value),
        **{name: int(fields[name] * scale + 1e-6) for name in ("mix_dim", "mlp_dim")},
    }


def _swin_windows(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    # No window is larger than the tokens of its stage, and a table of biases is of a window.
    sides = {value} if isinstance(value, int) else set(value)
    tokens = [swin_tokens(side, fields.get("patch", 4), len(fields["windows"])) for side in sides]
    trained = [
        {min(window, each) for each in stage}
        for window, *stage in zip(fields["windows"], *tokens, strict=True)
    ]
    if any(len(sides) > 1 for sides in trained):
        raise ValueError(value)
    tables = [min(sides) for sides in trained]
    return {"trained_windows": None if tables == list(fields["windows"]) else tables}


def swin_tokens(side: int, patch: int, stages: int) -> list[int]:
    """Tokens along a side of an image at each stage of a Swin; odd ones are filled up."""
    return [-(-(side // patch) // 2**i) for i in range(stages)]


def _depths(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    # Windows of other stages are timm's default, unless those of all stages are the same.
    if len(set(fields["windows"])) > 1:
        raise ValueError(value)
    return {"depths": list(value), "windows": fields["windows"][:1] * len(value)}


def _without(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    # Such a model keeps its windows, padded, where images are smaller.
    if value:
        raise ValueError(value)
    return {}


def _window(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    height, width = (value, value) if isinstance(value, int) else value
    return {"window": [height // 32, width // 32]}


def _pool(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    pool = VIT_POOLS[value]
    return {} if pool == fields["pool"] else {"pool": pool, "norm_pooled": pool == "mean"}


def _same_pool(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    # Whether another pooling moves the norm depends on arguments that the table does not hold.
    if VIT_POOLS[value] != fields["pool"]:
        raise ValueError(value)
    return {}


def _fc_norm(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    return {"norm_pooled": fields["pool"] == "mean" if value is None else bool(value)}


# Whether they grow, and whether timm's stem_width is 64 and not 32, to what a ResNet has.
_STEM_WIDTHS: Mapping[tuple[bool, bool], list[int] | None] = {
    (False, False): None,
    (True, False): [24, 32],
    (False, True): [64, 64, 128],
    (True, True): [48, 64, 128],
}


def _deep_stem(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    if value == "":
        return {"stem": "imagenet", "stem_widths": None}
    # timm's stem_width is 64 unless it, or the model's name, says another.
    wide = fields["stem"] == "imagenet" or len(fields.get("stem_widths") or ()) == 3
    return {"stem": "deep", "stem_widths": _STEM_WIDTHS[value == "deep_tiered", wide]}


def _stem_width(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    if fields["stem"] != "deep":  # of a stem of one convolution it says nothing
        return {}
    first = (fields.get("stem_widths") or [32])[0]
    return {"stem_widths": _STEM_WIDTHS[first in (24, 48), {32: False, 64: True}[value]]}


def _layers(fields: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    basic = fields["depth"] in BASIC
    found = [d for d, n in STAGES.items() if n == tuple(value) and (d in BASIC) == basic]
    if not found:
        raise ValueError(value)
    return {"depth": found[0]}


_ARGUMENTS: Mapping[tuple[str, str], _Change] = {
    ("ViT", "patch_size"): _patch,
    ("ViT", "embed_dim"): _width,
    ("ViT", "depth"): _field("depth"),
    ("ViT", "num_heads"): _field("heads"),
    ("ViT", "mlp_ratio"): _mlp_ratio,
    ("ViT", "qkv_bias"): _field("qkv_bias", bool),
    ("ViT", "init_values"): _field("layer_scale", (int, float)),
    ("ViT", "class_token"): _field("class_token", bool),
    ("ViT", "global_pool"): _pool,
    ("ViT", "reg_tokens"): _field("registers"),
    ("ViT", "no_embed_class"): lambda fields, value: {"prefix_positions": not value},
    ("ViT", "pre_norm"): _field("pre_norm", bool),
    ("ViT", "fc_norm"): _fc_norm,
    ("ViT", "act_layer"): lambda fields, value: {"activation": ACTIVATIONS[value]},
    ("RelativeViT", "global_pool"): _same_pool,
    ("RelativeViT", "patch_size"): _patch,
    ("RelativeViT", "embed_dim"): _width,
    ("RelativeViT", "depth"): _field("depth"),
    ("RelativeViT", "num_heads"): _field("heads"),
    ("RelativeViT", "mlp_ratio"): lambda fields, value: {"mlp_dim": int(fields["width"] * value)},
    ("RelativeViT", "init_values"): _field("layer_scale", (int, float)),
    ("RelativeViT", "num_reg_tokens"): _field("registers"),
    ("Swin", "img_size"): _swin_windows,
    ("Swin", "mlp_ratio"): _field("mlp_ratio", (int, float)),
    **{
        (kind, key): change
        for kind in ("Swin", "SwinV2")
        for key, change in (
            ("embed_dim", _field("width")),
            ("depths", _depths),
            ("num_heads", _field("heads", list)),
            (
                "window_size",
                lambda fields, value: {"windows": [int(value)] * len(fields["depths"])},
            ),
            ("dynamic_img_size", _without),
            ("always_partition", _without),
            ("strict_img_size", lambda fields, value: _without(fields, value is False)),
        )
    },
    ("SwinV2", "pretrained_window_sizes"): _field("trained_windows", list),
    ("Xcit", "embed_dim"): _width,
    ("Xcit", "depth"): _field("depth"),
    ("Xcit", "num_heads"): _field("heads"),
    ("Xcit", "global_pool"): lambda fields, value: {"token": {}}[value],
    ("MaxVit", "img_size"): _window,
    ("MaxVit", "embed_dim"): _field("widths", list),
    ("MaxVit", "depths"): _field("depths", list),
    ("MaxVit", "stem_width"): _field("stem_width"),
    ("MaxVit", "head_hidden_size"): _field("embedding_width"),
    ("MaxVit", "transformer_dim_head"): _field("head_width"),
    ("MaxVit", "transformer_window_size"): _field("window", list),
    ("Mixer", "patch_size"): _patch,
    ("Mixer", "embed_dim"): _mixer_width,
    ("Mixer", "num_blocks"): _field("depth"),
    ("ResNet", "layers"): _layers,
    ("ResNet", "stem_type"): _deep_stem,
    ("ResNet", "stem_width"): _stem_width,
    ("ResNet", "avg_down"): lambda fields, value: {
        "downsample": {True: "average", False: "strided"}[value]
    },
    ("ResNet", "cardinality"): _field("groups"),
    ("ResNet", "base_width"): _field("group_width"),
    ("ConvNeXt", "depths"): _field("depths", list),
    ("ConvNeXt", "dims"): _field("dims", list),
    ("ConvNeXt", "patch_size"): _stem_stride,
    ("ConvNeXt", "ls_init_value"): _field("layer_scale", (int, float)),
    ("ConvNeXt", "use_grn"): _field("grn", bool),
    ("ConvNeXt", "norm_eps"): lambda fields, value: {"norm_epsilon": float(value)},
    # Tensors say which of the two layers that compute the same theirs is.
    ("ConvNeXt", "conv_mlp"): lambda fields, value: {},
}
