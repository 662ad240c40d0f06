"""The tower that belongs to weights, from the config file beside them.

    timm           config.json               ``architecture`` and ``model_args``
    open_clip      open_clip_config.json     ``model_cfg``
    transformers   config.json               ``model_type`` and its fields
    zoo            config.json               ``model``, of the resolved config

A key that is neither used nor known to change nothing
is an error that names it, unless it is null.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vision.config.errors import UserError
from vision.config.modes import Config
from vision.config.specs import build, spec
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.weights import packages, zoo
from vision.weights.cards import CardObject, card_beside
from vision.weights.mapping import WeightsError
from vision.weights.timm_cards import (
    VIT_POOLS,
    UnknownArchitecture,
    of_fields,
    timm_fields,
    timm_tower,
)
from vision.weights.transformers_cards import CLIP_POOL, transformers_tower

FILES: Mapping[str, str] = {
    "timm": "config.json",
    "open_clip": "open_clip_config.json",
    "transformers": "config.json",
    zoo.SCHEME: zoo.CONFIG,
}


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
    card = card_beside(source, FILES)
    if card is None:
        return None
    try:
        config = _READERS[source.partition(":")[0]](card)
        build(config)
    except WeightsError:
        raise
    except UserError as error:
        # A spec's message begins with the line that made it, which is one of ours.
        text = re.sub(r"^\S+\.py:\d+: ", "", str(error))
        raise WeightsError(f"{card.path}: {text}") from error
    return TowerCard(card.path, config)


def stated_classes(source: str) -> tuple[str, ...]:
    """Names of the classifier's classes in the card of a source; empty where it does not say."""
    card = card_beside(source, {"timm": "config.json", "transformers": "config.json"})
    if card is None:
        return ()
    nested = card.values.get("pretrained_cfg")
    nested = nested if isinstance(nested, dict) else {}
    found: Any = card.values.get("label_names") or nested.get("label_names")
    numbered = card.values.get("id2label")
    if isinstance(numbered, dict):
        found = [numbered.get(str(i)) for i in range(len(numbered))]
        if found == [f"LABEL_{i}" for i in range(len(found))]:  # transformers' own
            return ()
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        return ()
    return tuple(map(str, found))


_TIMM_PROJECTIONS = {"none": "", "linear": "linear"}
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
    "final_ln_after_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "use_pad_mask": False,
    "correct_cls_mask": False,
}


def _open_clip(card: CardObject) -> Config:
    config = card.part("model_cfg")
    if not config.values:
        raise UnknownArchitecture(
            f"{card.path} has no model_cfg, the sizes of the model: write the towers into the "
            "config by hand, model=spec(Dual, ...), as docs/weights.md says"
        )
    known = ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg", *_OPEN_CLIP_HARMLESS)
    # Of CoCa, whose towers alone are read, without what writes captions.
    _check_keys(config, (*known, "multimodal_cfg"))
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
        "embed_cls",
    }
    _check_keys(text, (*options, *_TEXT_HARMLESS, *_OFF))
    text.choice("proj_type", {"linear": ""}, "")
    causal = text.values.get("no_causal_mask") is not True
    pool = text.choice("pool_type", {"argmax": CLIP_POOL, "last": "last"}, CLIP_POOL)
    if text.values.get("embed_cls") is True:
        pool = "class"
        if not causal:
            raise text.error("embed_cls", "is read with a causal mask alone")
    bias: bool | str = text.values.get("proj_bias") is True
    if projected and image_bias != bias:
        bias = "image" if image_bias else "text"
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
        # The last token there is that of the last place, padding or not.
        pad_id=text.values.get("pad_id") or 0 if causal and pool != "last" else None,
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
        # Without one, the classifier of timm's tower is the projection, with a bias.
        last = "timm_proj" in vision.values and not vision.values["timm_proj"]
        if last and fields["tower"] not in ("ViT", "RelativeViT"):
            raise vision.error("timm_proj", f"makes the classifier of {name} the projection")
        projected = last or vision.choice("timm_proj", _TIMM_PROJECTIONS, "linear") != ""
        own = fields.get("pool", "mean")
        # An empty text leaves timm's own pooling.
        pool = own if vision.values.get("timm_pool") == "" and not last else ""
        if (pool or vision.choice("timm_pool", VIT_POOLS, "mean")) != own:
            raise vision.error("timm_pool", f"is not that of {name}, {own}")
        image_bias = last or vision.values.get("timm_proj_bias") is True
        return of_fields(fields), projected, image_bias
    if not isinstance(vision.values.get("layers", 12), int):
        raise vision.error("layers", "are of CLIP's modified ResNet, which no tower here is")
    known = ("layers", "width", "head_width", "mlp_ratio", "patch_size", "ls_init_value")
    others = ("act_kwargs", "norm_kwargs", "pool_type", "timm_pool", "timm_proj", "timm_proj_bias")
    _check_keys(vision, (*known, *others, "attentional_pool", *_VISION_HARMLESS, *_OFF))
    pooling: dict[str, Any] = {}
    if vision.values.get("attentional_pool"):
        if vision.values["attentional_pool"] is not True:
            raise vision.error("attentional_pool", "is another than CoCa's, which is true")
        pooling = {
            "pool": "queries",
            "norm_pooled": True,
            "class_token": True,
            "queries": vision.sides("attn_pooler_queries", 256)[0],
            "query_heads": vision.sides("attn_pooler_heads", 8)[0],
            "query_width": width,
        }
    vision.choice("pool_type", {"tok": ""}, "")
    vision.check_square("image_size")
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
        **pooling,
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
    "timm": timm_tower,
    packages.SCHEME: timm_tower,
    "open_clip": _open_clip,
    "transformers": transformers_tower,
    zoo.SCHEME: lambda card: zoo.tower(card.values, card.path),
}
