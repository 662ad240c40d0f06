"""The arrays of a vision transformer, whatever a library calls them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from vision.models.vit import ViT
from vision.weights.fit import fit_patches, fit_positions
from vision.weights.mapping import (
    CONV,
    LINEAR,
    SAME,
    Entry,
    Form,
    Names,
    interleaved,
    part,
    qkv,
    reshaped,
)

_VECTOR = reshaped("a vector", (1, 1, -1), (-1,))


@dataclasses.dataclass(frozen=True)
class Naming:
    """What a library calls the parts of a ViT; ``weight`` or ``bias`` follow the names of layers.

    Attributes:
      block: what the names of block ``{i}`` begin with.
      qkv: one name for q, k and v together, or three.
      scales: of the two branches of a block.
      probe, q, kv: of attention pooling; ``kv`` holds k and v, ``q`` too where both are equal.
      head: of the classifier.
      joined: positions of class token and patches, (1 + N, D) without a leading axis.
      flax: arrays are laid out as flax does, with an axis for heads.
    """

    patch: str = "patch_embed.proj."
    cls: str = "cls_token"
    registers: str = "reg_token"
    pos: str = "pos_embed"
    norm_pre: str = "norm_pre."
    block: str = "blocks.{i}."
    norm1: str = "norm1."
    qkv: tuple[str, ...] = ("attn.qkv.",)
    proj: str = "attn.proj."
    norm2: str = "norm2."
    fc1: str = "mlp.fc1."
    fc2: str = "mlp.fc2."
    scales: tuple[str, str] = ("ls1.gamma", "ls2.gamma")
    norm: str = "norm."
    fc_norm: str = "fc_norm."
    probe: str = "attn_pool.latent"
    q: str = "attn_pool.q."
    kv: tuple[str, ...] = ("attn_pool.kv.",)
    pool_proj: str = "attn_pool.proj."
    pool_norm: str = "attn_pool.norm."
    pool_fc1: str = "attn_pool.mlp.fc1."
    pool_fc2: str = "attn_pool.mlp.fc2."
    head: str = "head."
    joined: bool = False
    flax: bool = False

    @property
    def kernel(self) -> str:
        return "kernel" if self.flax else "weight"

    @property
    def scale(self) -> str:
        return "scale" if self.flax else "weight"


def vit_names(tower: ViT, naming: Naming, ignored: dict[str, str] | None = None) -> Names:
    """The name map of a tower, in a naming, with what else that library's files may hold."""
    ignored = dict(ignored or {})
    if not tower.num_classes:
        head = re.escape(naming.head) + "(weight|kernel|bias)"
        ignored[head] = "the classifier head; this tower has none"
    entries = [*_embedding(tower, naming)]
    for i in range(tower.resolved().depth):
        entries += _block(tower, naming, i)
    if tower.norm_pooled:
        entries += _norm("fc_norm", naming.fc_norm, naming)
    else:
        entries += _norm("norm", naming.norm, naming)
    if tower.pool == "map":
        entries += _map_pool(tower, naming)
    if tower.num_classes:
        entries += _dense("head", naming.head, naming)
    return Names(tuple(entries), ignored)


def _embedding(tower: ViT, naming: Naming) -> list[Entry]:
    kernel = Entry(
        "params.patch_embed.kernel",
        (f"{naming.patch}{naming.kernel}",),
        SAME if naming.flax else CONV,
        fit=fit_patches,
    )
    entries = [kernel]
    if tower.pre_norm:
        entries += _norm("norm_pre", naming.norm_pre, naming)
    else:
        entries.append(Entry("params.patch_embed.bias", (f"{naming.patch}bias",)))
    if tower.has_class_token():
        flat = naming.cls.endswith("class_embedding")
        entries.append(Entry("params.cls_token", (naming.cls,), _VECTOR if flat else SAME))
    if tower.registers:
        entries.append(Entry("params.registers", (naming.registers,)))
    if tower.posemb == "learned":
        entries += _positions(tower, naming)
    return entries


def _positions(tower: ViT, naming: Naming) -> list[Entry]:
    axis = 0 if naming.joined else 1
    lead = () if naming.joined else (1,)
    classed = "with one" if tower.class_position else "without one (class_position=True has one)"

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        count, width = tensors[0].shape[-2:]
        side = math.isqrt(count)
        return tensors[0].reshape(side, side, width)

    def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
        return (array.reshape(*lead, -1, array.shape[-1]),)

    grid = Form(f"positions of a square grid, and for a class token {classed}", read, write)
    if not tower.class_position:
        return [Entry("params.pos_embed", (naming.pos,), grid, fit=fit_positions)]
    vector = reshaped("a position", (1, 1, -1), (*lead, 1, -1))
    return [
        Entry("params.cls_pos_embed", (naming.pos,), part("class", axis, 0, 1, vector)),
        Entry(
            "params.pos_embed",
            (naming.pos,),
            part(grid.name, axis, 1, None, grid),
            fit=fit_positions,
        ),
    ]


def _block(tower: ViT, naming: Naming, i: int) -> list[Entry]:
    ours, layer = ("blocks", i) if tower.scan else (f"block{i:02d}", None)
    theirs = naming.block.format(i=i)
    size = tower.resolved()
    entries = [
        *_norm(f"{ours}.norm1", theirs + naming.norm1, naming),
        *_norm(f"{ours}.norm2", theirs + naming.norm2, naming),
        *_heads_out(f"{ours}.attn.proj", theirs + naming.proj, naming, size.heads),
        *_dense(f"{ours}.mlp.fc2", theirs + naming.fc2, naming),
    ]
    form = _flax_qkv(size.heads) if naming.flax else qkv(size.heads, len(naming.qkv))
    names = tuple(theirs + name for name in naming.qkv)
    kernel, bias = (tuple(n + end for n in names) for end in (naming.kernel, "bias"))
    entries.append(Entry(f"params.{ours}.attn.qkv.kernel", kernel, form))
    if tower.qkv_bias:
        entries.append(Entry(f"params.{ours}.attn.qkv.bias", bias, form))
    if tower.activation == "swiglu":
        gated = interleaved(2, size.mlp_dim)
        for entry in _dense(f"{ours}.mlp.fc1", theirs + naming.fc1, naming):
            entries.append(dataclasses.replace(entry, form=gated))
    else:
        entries += _dense(f"{ours}.mlp.fc1", theirs + naming.fc1, naming)
    if tower.layer_scale is not None:
        for name, gamma in zip(("ls1", "ls2"), naming.scales, strict=True):
            entries.append(Entry(f"params.{ours}.{name}.gamma", (theirs + gamma,)))
    return [dataclasses.replace(entry, layer=layer) for entry in entries]


def _map_pool(tower: ViT, naming: Naming) -> list[Entry]:
    heads = tower.resolved().heads
    # Names and rows of q, k and v where they are parts of one tensor.
    tensors = (naming.q, *naming.kv) if len(naming.kv) == 2 else (naming.q, *naming.kv * 2)
    entries = [Entry("params.map_pool.probe", (naming.probe,))]
    for place, (name, tensor) in enumerate(zip("qkv", tensors, strict=True)):
        alike = tensors.count(tensor)
        row = place - tensors.index(tensor)
        for end, form in ((naming.kernel, LINEAR), ("bias", SAME)):
            if naming.flax:
                form = _flax_heads_in(heads)
            elif alike > 1:
                form = _rows(row, alike, form)
            ours = f"params.map_pool.{name}.{'bias' if end == 'bias' else 'kernel'}"
            entries.append(Entry(ours, (tensor + end,), form))
    entries += _heads_out("map_pool.proj", naming.pool_proj, naming, heads)
    entries += _norm("map_pool.norm", naming.pool_norm, naming)
    entries += _dense("map_pool.mlp.fc1", naming.pool_fc1, naming)
    entries += _dense("map_pool.mlp.fc2", naming.pool_fc2, naming)
    return entries


def _norm(ours: str, theirs: str, naming: Naming) -> list[Entry]:
    return [
        Entry(f"params.{ours}.scale", (theirs + naming.scale,)),
        Entry(f"params.{ours}.bias", (theirs + "bias",)),
    ]


def _dense(ours: str, theirs: str, naming: Naming) -> list[Entry]:
    form = SAME if naming.flax else LINEAR
    return [
        Entry(f"params.{ours}.kernel", (theirs + naming.kernel,), form),
        Entry(f"params.{ours}.bias", (theirs + "bias",)),
    ]


def _heads_out(ours: str, theirs: str, naming: Naming, heads: int) -> list[Entry]:
    """A dense layer that reads heads: with flax its kernel is (heads, D / heads, D)."""
    kernel, bias = _dense(ours, theirs, naming)
    if naming.flax:
        form = Form(
            f"dense layer on {heads} heads",
            lambda tensors: tensors[0].reshape(-1, tensors[0].shape[-1]),
            lambda array: (array.reshape(heads, -1, array.shape[-1]),),
        )
        kernel = dataclasses.replace(kernel, form=form)
    return [kernel, bias]


def _flax_heads_in(heads: int) -> Form:
    """A dense layer that gives heads: (D, heads, D / heads) and (heads, D / heads)."""
    return Form(
        f"dense layer to {heads} heads",
        lambda tensors: tensors[0].reshape(*tensors[0].shape[:-2], -1),
        lambda array: (array.reshape(*array.shape[:-1], heads, -1),),
    )


def _flax_qkv(heads: int) -> Form:
    """Three of them, (D, heads, D / heads), as one, (D, 3 D) head by head."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack(tensors, axis=-2)
        return stacked.reshape(*stacked.shape[:-3], -1)

    def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
        split = array.reshape(*array.shape[:-1], heads, 3, -1)
        return tuple(split[..., i, :] for i in range(3))

    return Form(f"q, k and v of {heads} heads", read, write)


def _rows(place: int, count: int, form: Form) -> Form:
    """One of ``count`` equal parts of the rows of a tensor."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        return form.read([np.split(tensors[0], count)[place]])

    return Form(f"part {place} of {count}", read, form.write, join=0)
