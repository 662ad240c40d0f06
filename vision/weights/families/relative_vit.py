"""Vision transformers with rotary positions or biases: timm's Eva and Beit, transformers' DINOv3
and BEiT.

Which fields a ``RelativeViT`` needs so that its numbers are theirs, beside sizes and
``num_classes``:

    timm beit*              bias="block", qkv_bias="qv", layer_scale, pool="mean", norm_pooled
    timm eva_*              posemb="tokens", qkv_bias="qv", pool="mean", norm_pooled
    timm eva02_*            the same, rope=Rope(reference=(16, 16)), activation="swiglu",
                            mlp_dim=4 D * 2 / 3; base and large: mlp_norm=True, and with clip
                            attention_norm=True
    timm vit_*_dinov3       rope=Rope("centered", 100.0, halves=True), registers=4, layer_scale
    transformers DINOv3     the same, norm_epsilon=1e-5
    transformers BEiT       as timm's, norm_epsilon=1e-12

Cards say all of it: ``spec(Pretrained, source=...)``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vision.models.relative_vit import RelativeViT
from vision.weights.families.blocks import Layers, dense, norm
from vision.weights.fit import fit_patches, fit_positions, fit_positions_plainly
from vision.weights.fit_biases import fit_biases_geometrically, fit_biases_linearly
from vision.weights.mapping import (
    CONV,
    Form,
    MapEntry,
    Names,
    Tensor,
    WeightsError,
    interleaved,
    part,
    qkv,
)

Fit = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Naming(Layers):
    """What a library calls the parts of a ``RelativeViT``.

    Attributes:
      patch, cls, registers, pos, norm_pre, fc_norm, head: as of a ViT.
      gates: two names of the first layer of a gated MLP, gate and value; empty where they are one.
      q_bias, v_bias: where they are tensors of their own; with three names in ``qkv`` they follow
        from those.
      attention_norm, mlp_norm: of a block.
      table: of a block's biases by offset.
      shared_table: of those for all blocks.
      fit, fit_biases: make positions and biases those of another grid, as this library does.
    """

    patch: str = "patch_embed.proj."
    cls: str = "cls_token"
    registers: str = "reg_token"
    pos: str = "pos_embed"
    norm_pre: str = "norm_pre."
    fc_norm: str = "fc_norm."
    head: str = "head."
    gates: tuple[str, ...] = ()
    q_bias: str = "attn.q_bias"
    v_bias: str = "attn.v_bias"
    attention_norm: str = "attn.norm."
    mlp_norm: str = "mlp.norm."
    table: str = "attn.relative_position_bias_table"
    shared_table: str = "rel_pos_bias.relative_position_bias_table"
    fit: Fit = fit_positions
    fit_biases: Fit = fit_biases_geometrically


_TIMM = Naming(scales=("gamma_1", "gamma_2"))
_SEPARATE = tuple(f"attn.{name}_proj." for name in "qkv")
_DERIVED = "follows from the size of the grid"


def timm_relative_vit(tower: RelativeViT, tensors: Mapping[str, Tensor]) -> Names:
    """timm's ``Eva`` and ``Beit``; the tensors tell whether q, k and v are one, and gate and value.

    Without tensors they are as timm has them by its own names: apart where MLPs have a norm.
    """
    naming = _TIMM
    apart = tower.mlp_norm and not tensors
    if apart or "blocks.0.attn.q_proj.weight" in tensors:
        naming = dataclasses.replace(naming, qkv=_SEPARATE)
    if apart or "blocks.0.mlp.fc1_g.weight" in tensors:
        naming = dataclasses.replace(naming, gates=("mlp.fc1_g.", "mlp.fc1_x."))
    ignored = {
        r".*relative_position_index": _DERIVED,
        r"mask_token": "only for masked pretraining",
    }
    return relative_names(tower, naming, ignored)


def transformers_relative_vit(tower: RelativeViT, tensors: Mapping[str, Tensor]) -> Names:
    """transformers' ``Beit*``, ``DINOv3ViTModel``; the tensors tell which."""
    beit = any(".attention.attention.query." in name or "relative_position" in name
               for name in tensors)  # fmt: skip
    if beit or (not tensors and tower.rope is None):
        return transformers_beit(tower)
    names = transformers_dinov3(tower)
    empty = [
        name for name, x in tensors.items() if name.endswith("register_tokens") and 0 in x.shape
    ]
    return names + Names((), dict.fromkeys(map(re.escape, empty), "of no registers"))


def transformers_beit(tower: RelativeViT) -> Names:
    """transformers' ``BeitModel`` and ``BeitForImageClassification``."""
    if tower.bias == "block" and tower.posemb == "patches":
        raise WeightsError("BEiT of transformers has positions of all tokens: posemb='tokens'")
    naming = Naming(
        patch="embeddings.patch_embeddings.projection.",
        cls="embeddings.cls_token",
        pos="embeddings.position_embeddings",
        block="encoder.layer.{i}.",
        norm1="layernorm_before.",
        qkv=tuple(f"attention.attention.{name}." for name in ("query", "key", "value")),
        proj="attention.output.dense.",
        norm2="layernorm_after.",
        fc1="intermediate.dense.",
        fc2="output.dense.",
        scales=("lambda_1", "lambda_2"),
        norm="layernorm.",
        fc_norm="pooler.layernorm.",
        head="classifier.",
        table="attention.attention.relative_position_bias.relative_position_bias_table",
        shared_table="encoder.relative_position_bias.relative_position_bias_table",
        fit=fit_positions_plainly,
        fit_biases=fit_biases_linearly,
    )
    ignored = {
        r".*relative_position_index": _DERIVED,
        r"embeddings\.mask_token": "only for masked pretraining",
    }
    return relative_names(tower, naming, ignored)


def transformers_dinov3(tower: RelativeViT) -> Names:
    """transformers' ``DINOv3ViTModel``."""
    naming = Naming(
        patch="embeddings.patch_embeddings.",
        cls="embeddings.cls_token",
        registers="embeddings.register_tokens",
        block="layer.{i}.",
        qkv=tuple(f"attention.{name}_proj." for name in "qkv"),
        proj="attention.o_proj.",
        fc1="mlp.up_proj.",
        fc2="mlp.down_proj.",
        gates=("mlp.gate_proj.", "mlp.up_proj.") if tower.activation == "swiglu" else (),
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        head="classifier.",
    )
    ignored = {r"embeddings\.mask_token": "only for masked pretraining"}
    return relative_names(tower, naming, ignored)


def relative_names(
    tower: RelativeViT, naming: Naming, ignored: Mapping[str, str] | None = None
) -> Names:
    """The name map of a tower, in a naming, with what else that library's files may hold."""
    ignored = dict(ignored or {})
    if not tower.num_classes:
        head = re.escape(naming.head) + "(weight|bias)"
        ignored[head] = "the classifier head; this tower has none"
    entries = _stem(tower, naming)
    for i in range(tower.depth):
        entries += _block(tower, naming, i)
    if tower.norm_pooled:
        entries += norm("fc_norm", naming.fc_norm, naming)
    else:
        entries += norm("norm", naming.norm, naming)
    if tower.bias == "shared":
        entries += _biases("", naming.shared_table, naming)
    if tower.num_classes:
        entries += dense("head", naming.head, naming)
    return Names(tuple(entries), ignored)


def _stem(tower: RelativeViT, naming: Naming) -> list[MapEntry]:
    kernel = MapEntry(
        "params.patch_embed.kernel", (f"{naming.patch}weight",), CONV, fit=fit_patches
    )
    entries = [kernel]
    if tower.pre_norm:
        entries += norm("norm_pre", naming.norm_pre, naming)
    else:
        entries.append(MapEntry("params.patch_embed.bias", (f"{naming.patch}bias",)))
    if tower.class_token:
        entries.append(MapEntry("params.cls_token", (naming.cls,)))
    if tower.registers:
        entries.append(MapEntry("params.registers", (naming.registers,)))
    prefix = (tower.class_token + tower.registers) * (tower.posemb == "tokens")
    grid = Form(
        f"{prefix} positions of class token and registers, then those of a square grid",
        lambda tensors: _square(tensors[0]),
        lambda array: (array.reshape(1, -1, array.shape[-1]),),
    )
    if prefix:
        first = part(grid.name, 1, 0, prefix)
        entries.append(MapEntry("params.prefix_pos_embed", (naming.pos,), first))
        grid = part(grid.name, 1, prefix, None, grid)
    if tower.posemb != "none":
        entries.append(MapEntry("params.pos_embed", (naming.pos,), grid, fit=naming.fit))
    return entries


def _square(positions: np.ndarray) -> np.ndarray:
    """(1, N, D) or (N, D) as (side, side, D)."""
    side = math.isqrt(positions.shape[-2])
    return positions.reshape(side, side, positions.shape[-1])


def _block(tower: RelativeViT, naming: Naming, i: int) -> list[MapEntry]:
    ours, layer = ("blocks", i) if tower.scan else (f"block{i:02d}", None)
    theirs = naming.block.format(i=i)
    entries = [
        *norm(f"{ours}.norm1", theirs + naming.norm1, naming),
        *norm(f"{ours}.norm2", theirs + naming.norm2, naming),
        *dense(f"{ours}.attn.proj", theirs + naming.proj, naming),
        *dense(f"{ours}.mlp.fc2", theirs + naming.fc2, naming),
    ]
    names = tuple(theirs + name for name in naming.qkv)
    form = qkv(tower.heads, len(names))
    kernels, biases = (tuple(name + end for name in names) for end in ("weight", "bias"))
    entries.append(MapEntry(f"params.{ours}.attn.qkv.kernel", kernels, form))
    if tower.qkv_bias == "all":
        entries.append(MapEntry(f"params.{ours}.attn.qkv.bias", biases, form))
    elif tower.qkv_bias == "qv":
        apart = (theirs + naming.q_bias, theirs + naming.v_bias)
        q, v = (biases[0], biases[2]) if len(names) == 3 else apart
        entries.append(MapEntry(f"params.{ours}.attn.q_bias", (q,)))
        entries.append(MapEntry(f"params.{ours}.attn.v_bias", (v,)))
    entries += _first_layer(tower, naming, ours, theirs)
    if tower.attention_norm:
        entries += norm(f"{ours}.attn.norm", theirs + naming.attention_norm, naming)
    if tower.mlp_norm:
        entries += norm(f"{ours}.mlp.norm", theirs + naming.mlp_norm, naming)
    if tower.layer_scale is not None:
        for name, gamma in zip(("ls1", "ls2"), naming.scales, strict=True):
            entries.append(MapEntry(f"params.{ours}.{name}.gamma", (theirs + gamma,)))
    if tower.bias == "block":
        entries += _biases(f"{ours}.attn.", theirs + naming.table, naming)
    return [dataclasses.replace(entry, layer=layer) for entry in entries]


def _first_layer(tower: RelativeViT, naming: Naming, ours: str, theirs: str) -> list[MapEntry]:
    if tower.activation != "swiglu":
        return dense(f"{ours}.mlp.fc1", theirs + naming.fc1, naming)
    units = tower.mlp_dim or 4 * tower.width
    layers = tuple(theirs + name for name in naming.gates or (naming.fc1,))
    form = interleaved(2, units, len(layers))
    return [
        MapEntry(
            f"params.{ours}.mlp.fc1.{end}",
            tuple(name + ("weight" if end == "kernel" else "bias") for name in layers),
            form,
        )
        for end in ("kernel", "bias")
    ]


def _biases(ours: str, theirs: str, naming: Naming) -> list[MapEntry]:
    """Biases by offset on a square grid, (rows, heads), and three with a class token after them."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        side = math.isqrt(len(tensors[0]))
        return tensors[0].reshape(side, side, -1)

    name = "biases by offset on a square grid, and three of a class token"
    table = Form(name, read, lambda array: (array.reshape(-1, array.shape[-1]),))
    return [
        MapEntry(
            f"params.{ours}bias_table",
            (theirs,),
            part(name, 0, None, -3, table),
            fit=naming.fit_biases,
        ),
        MapEntry(f"params.{ours}bias_class", (theirs,), part(name, 0, -3, None)),
    ]
