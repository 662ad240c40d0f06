"""Swin transformers V2 of timm and transformers.

Cards say which fields a ``SwinV2`` needs, ``spec(Pretrained, source=...)``: of transformers' files
``fixed_shifts`` too, and ``windows`` as they are for the size of images that the card has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from vision.models.swin_v2 import SwinV2
from vision.weights.families.heads import head
from vision.weights.families.units import layer, norm
from vision.weights.mapping import CONV, MapEntry, Names, qkv, reshaped

_PER_HEAD = reshaped("a number per head", (-1,), (-1, 1, 1))


@dataclasses.dataclass(frozen=True)
class _Naming:
    """What a library calls the layers; ``{s}`` is a stage, ``{b}`` a block of it.

    Attributes:
      patch, patch_norm, last_norm, head: of the tower.
      downsample: begins the layers that make ``{s}`` of the stage before it, ``{before}``.
      block: begins the names of a block.
      qkv: one name for the three kernels, or three.
      biases: of q and v.
      scale, network, proj, norm1, norm2, fc1, fc2: of a block.
    """

    patch: str = "patch_embed.proj"
    patch_norm: str = "patch_embed.norm"
    downsample: str = "layers.{s}.downsample"
    block: str = "layers.{s}.blocks.{b}."
    qkv: tuple[str, ...] = ("attn.qkv",)
    biases: tuple[str, str] = ("attn.q_bias", "attn.v_bias")
    scale: str = "attn.logit_scale"
    network: str = "attn.cpb_mlp"
    proj: str = "attn.proj"
    norm1: str = "norm1"
    norm2: str = "norm2"
    fc1: str = "mlp.fc1"
    fc2: str = "mlp.fc2"
    last_norm: str = "norm"
    head: str = "head.fc"


_SELF = "attention.self."
_TRANSFORMERS = _Naming(
    patch="embeddings.patch_embeddings.projection",
    patch_norm="embeddings.norm",
    downsample="encoder.layers.{before}.downsample",
    block="encoder.layers.{s}.blocks.{b}.",
    qkv=tuple(f"{_SELF}{name}" for name in ("query", "key", "value")),
    biases=(f"{_SELF}query.bias", f"{_SELF}value.bias"),
    scale=f"{_SELF}logit_scale",
    network=f"{_SELF}continuous_position_bias_mlp",
    proj="attention.output.dense",
    norm1="layernorm_before",
    norm2="layernorm_after",
    fc1="intermediate.dense",
    fc2="output.dense",
    last_norm="layernorm",
    head="classifier",
)
# Older files hold what follows from the sizes.
_DERIVED: Mapping[str, str] = {
    r".*\.(attn_mask|relative_position_index|relative_coords_table)": "follows from the sizes of "
    "windows and image"
}


def timm_swin_v2(tower: SwinV2) -> Names:
    """timm's ``swinv2_*``; ``swinv2_cr_*`` is another architecture."""
    return _names(tower, _Naming())


def transformers_swin_v2(tower: SwinV2) -> Names:
    """transformers' ``Swinv2Model`` and ``Swinv2ForImageClassification``."""
    masked = {r"embeddings\.mask_token": "only for masked pretraining"}
    return _names(tower, _TRANSFORMERS) + Names((), masked)


def _names(tower: SwinV2, naming: _Naming) -> Names:
    entries: list[MapEntry] = [
        *layer("patch_embed", naming.patch, CONV),
        *norm("stem_norm", naming.patch_norm),
    ]
    i = 0
    for number, stage in enumerate(tower.resolved()):
        if number > 0:
            theirs = naming.downsample.format(s=number, before=number - 1)
            entries += layer(f"downsample{number}_reduction", f"{theirs}.reduction", bias=False)
            entries += norm(f"downsample{number}_norm", f"{theirs}.norm")
        for place in range(stage.depth):
            ours = f"block{i:02d}"
            entries += _block(ours, naming.block.format(s=number, b=place), naming, stage.heads)
            i += 1
    entries += norm("norm", naming.last_norm)
    return Names(tuple(entries), dict(_DERIVED)) + head(tower.num_classes, naming.head)


def _block(ours: str, theirs: str, naming: _Naming, heads: int) -> list[MapEntry]:
    kernels = tuple(f"{theirs}{name}.weight" for name in naming.qkv)
    kernel = f"params.{ours}.attn.qkv.kernel"
    entries = [MapEntry(kernel, kernels, qkv(heads, len(kernels)))]
    for name, bias in zip(("q_bias", "v_bias"), naming.biases, strict=True):
        entries.append(MapEntry(f"params.{ours}.attn.{name}", (f"{theirs}{bias}",)))
    scale = (f"{theirs}{naming.scale}",)
    entries.append(MapEntry(f"params.{ours}.attn.log_scale", scale, _PER_HEAD))
    entries += layer(f"{ours}.attn.bias_fc1", f"{theirs}{naming.network}.0")
    entries += layer(f"{ours}.attn.bias_fc2", f"{theirs}{naming.network}.2", bias=False)
    entries += layer(f"{ours}.attn.proj", f"{theirs}{naming.proj}")
    entries += norm(f"{ours}.norm1", f"{theirs}{naming.norm1}")
    entries += norm(f"{ours}.norm2", f"{theirs}{naming.norm2}")
    entries += layer(f"{ours}.mlp.fc1", f"{theirs}{naming.fc1}")
    entries += layer(f"{ours}.mlp.fc2", f"{theirs}{naming.fc2}")
    return entries
