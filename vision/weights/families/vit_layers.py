"""The arrays of a vision transformer, whatever a library calls them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vision.models.vit import ViT
from vision.weights.families.blocks import Layers, block, dense, map_pool, norm, rows
from vision.weights.fit import fit_patches, fit_positions
from vision.weights.mapping import (
    CONV,
    LINEAR,
    SAME,
    Form,
    MapEntry,
    Names,
    WeightsError,
    part,
    reshaped,
)

Fit = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
_VECTOR = reshaped("a vector", (1, 1, -1), (-1,))


@dataclasses.dataclass(frozen=True)
class Naming(Layers):
    """What a library calls the parts of a ViT.

    Attributes:
      patch, cls, registers, pos, norm_pre: of the stem.
      fc_norm: norm after pooling.
      head: of the classifier.
      query_pool: of pooling by queries; empty where the library has none.
      joined: positions of class token and patches, (1 + N, D) without a leading axis.
      flat_patches: the patch embedding is a dense layer on patches (h, w, C) laid flat.
      fit: makes positions those of another grid, as this library does.
    """

    patch: str = "patch_embed.proj."
    cls: str = "cls_token"
    registers: str = "reg_token"
    pos: str = "pos_embed"
    norm_pre: str = "norm_pre."
    fc_norm: str = "fc_norm."
    head: str = "head."
    query_pool: str = ""
    joined: bool = False
    flat_patches: bool = False
    fit: Fit = fit_positions


def vit_names(tower: ViT, naming: Naming, ignored: Mapping[str, str] | None = None) -> Names:
    """The name map of a tower, in a naming, with what else that library's files may hold."""
    ignored = dict(ignored or {})
    size = tower.resolved()
    if not tower.num_classes:
        head = re.escape(naming.head) + "(weight|kernel|bias)"
        ignored[head] = "the classifier head; this tower has none"
    entries = [*_embedding(tower, naming)]
    for i in range(size.depth):
        gated = size.mlp_dim if tower.activation == "swiglu" else 0
        entries += block(tower, naming, i, size.heads, gated)
    if tower.norm_pooled:
        entries += norm("fc_norm", naming.fc_norm, naming)
    else:
        entries += norm("norm", naming.norm, naming)
    if tower.pool == "map":
        entries += map_pool(naming, size.heads)
    if tower.pool == "queries":
        entries += _query_pool(tower, naming)
    if tower.num_classes:
        entries += dense("head", naming.head, naming)
    return Names(tuple(entries), ignored)


def _query_pool(tower: ViT, naming: Naming) -> list[MapEntry]:
    """Entries of pooling by queries: one tensor for q, k and v where tokens are as wide as they."""
    if not naming.query_pool:
        raise WeightsError("pool='queries' is of open_clip's CoCa, not of these weights")
    ours, theirs = "query_pool", naming.query_pool
    width = tower.resolved().width
    joined = (tower.query_width or width) == width
    entries = [
        MapEntry(f"params.{ours}.queries", (f"{theirs}query",)),
        *norm(f"{ours}.norm_q", f"{theirs}ln_q.", naming),
        *norm(f"{ours}.norm_k", f"{theirs}ln_k.", naming),
        *dense(f"{ours}.proj", f"{theirs}attn.out_proj.", naming),
    ]
    for row, name in enumerate("qkv"):
        kernel, bias = (f"params.{ours}.{name}.{end}" for end in ("kernel", "bias"))
        if joined:
            entries.append(
                MapEntry(kernel, (f"{theirs}attn.in_proj_weight",), rows(row, 3, LINEAR))
            )
        else:
            entries.append(MapEntry(kernel, (f"{theirs}attn.{name}_proj_weight",), LINEAR))
        entries.append(MapEntry(bias, (f"{theirs}attn.in_proj_bias",), rows(row, 3, SAME)))
    return entries


def _embedding(tower: ViT, naming: Naming) -> list[MapEntry]:
    form = SAME if naming.flax else CONV
    if naming.flat_patches:
        form = _flat(tower.resolved().patch)
    name = f"{naming.patch}{naming.kernel}"
    entries = [MapEntry("params.patch_embed.kernel", (name,), form, fit=fit_patches)]
    if tower.pre_norm:
        entries += norm("norm_pre", naming.norm_pre, naming)
    else:
        entries.append(MapEntry("params.patch_embed.bias", (f"{naming.patch}bias",)))
    if tower.has_class_token():
        flat = naming.cls.endswith("class_embedding")
        entries.append(MapEntry("params.cls_token", (naming.cls,), _VECTOR if flat else SAME))
    if tower.registers:
        entries.append(MapEntry("params.registers", (naming.registers,)))
    if tower.posemb == "learned":
        entries += _positions(tower, naming)
    return entries


def _flat(patch: int) -> Form:
    """Patch embedding (D, h w C) with square patches of so many pixels."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        return tensors[0].reshape(len(tensors[0]), patch, patch, -1).transpose(1, 2, 3, 0)

    def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
        return (array.transpose(3, 0, 1, 2).reshape(array.shape[3], -1),)

    return Form(f"dense layer (out, {patch} x {patch} x channels)", read, write)


def _positions(tower: ViT, naming: Naming) -> list[MapEntry]:
    axis = 0 if naming.joined else 1
    lead = () if naming.joined else (1,)
    placed = [int(tower.class_position), tower.registers * tower.register_positions]
    told = (
        f"positions of a square grid, and {sum(placed)} before them (class_position=True has one "
        "of the class token, register_positions=True those of registers, as timm's so150m, with "
        "no_embed_class=False)"
    )

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        count, width = tensors[0].shape[-2:]
        side = math.isqrt(count)
        return tensors[0].reshape(side, side, width)

    def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
        return (array.reshape(*lead, -1, array.shape[-1]),)

    grid = Form(told, read, write)
    entries, start = [], 0
    for name, count in zip(("cls_pos_embed", "registers_pos_embed"), placed, strict=True):
        if count:
            vectors = reshaped("positions", (1, count, -1), (*lead, count, -1))
            form = part(told, axis, start, start + count, vectors)
            entries.append(MapEntry(f"params.{name}", (naming.pos,), form))
            start += count
    if start:
        grid = part(told, axis, start, None, grid)
    return [*entries, MapEntry("params.pos_embed", (naming.pos,), grid, fit=naming.fit)]
