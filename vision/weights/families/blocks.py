"""The arrays of transformer blocks and of attention pooling, whatever a library calls them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vision.weights.mapping import LINEAR, SAME, Form, MapEntry, interleaved, qkv


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a library calls the layers of a transformer; ``weight`` or ``bias`` follow their names.

    Attributes:
      block: what the names of block ``{i}`` begin with.
      norm1, proj, norm2, fc1, fc2: of a block.
      qkv: one name for q, k and v together, or three.
      scales: of the two branches of a block.
      norm: after the last block.
      probe, q, kv: of attention pooling; ``kv`` holds k and v, ``q`` too where both are equal.
      pool_proj, pool_norm, pool_fc1, pool_fc2: of attention pooling.
      flax: arrays are laid out as flax does, with an axis for heads.
      norm_ends: scale and bias of a LayerNorm.
    """

    block: str = "blocks.{i}."
    norm1: str = "norm1."
    qkv: tuple[str, ...] = ("attn.qkv.",)
    proj: str = "attn.proj."
    norm2: str = "norm2."
    fc1: str = "mlp.fc1."
    fc2: str = "mlp.fc2."
    scales: tuple[str, str] = ("ls1.gamma", "ls2.gamma")
    norm: str = "norm."
    probe: str = "attn_pool.latent"
    q: str = "attn_pool.q."
    kv: tuple[str, ...] = ("attn_pool.kv.",)
    pool_proj: str = "attn_pool.proj."
    pool_norm: str = "attn_pool.norm."
    pool_fc1: str = "attn_pool.mlp.fc1."
    pool_fc2: str = "attn_pool.mlp.fc2."
    flax: bool = False
    norm_ends: tuple[str, str] = ("weight", "bias")

    @property
    def kernel(self) -> str:
        return "kernel" if self.flax else "weight"


# Of open_clip's own towers, of transformers' CLIP and SigLIP, and of big_vision's: in their image
# and their text towers alike.
OPEN_CLIP: Mapping[str, Any] = {
    "block": "transformer.resblocks.{i}.",
    "norm1": "ln_1.",
    "qkv": ("attn.in_proj_",),
    "proj": "attn.out_proj.",
    "norm2": "ln_2.",
    "fc1": "mlp.c_fc.",
    "fc2": "mlp.c_proj.",
    "scales": ("ls_1.gamma", "ls_2.gamma"),
}
TRANSFORMERS_CLIP: Mapping[str, Any] = {
    "block": "encoder.layers.{i}.",
    "norm1": "layer_norm1.",
    "qkv": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    "proj": "self_attn.out_proj.",
    "norm2": "layer_norm2.",
}
_BIG_VISION_ATTENTION = "MultiHeadDotProductAttention_0/"
BIG_VISION: Mapping[str, Any] = {
    "norm1": "LayerNorm_0/",
    "qkv": tuple(f"{_BIG_VISION_ATTENTION}{name}/" for name in ("query", "key", "value")),
    "proj": f"{_BIG_VISION_ATTENTION}out/",
    "norm2": "LayerNorm_1/",
    "fc1": "MlpBlock_0/Dense_0/",
    "fc2": "MlpBlock_0/Dense_1/",
    "flax": True,
    "norm_ends": ("scale", "bias"),
}
# Why transformers' CLIP and SigLIP files have one more tensor per tower.
POSITION_IDS = {
    r"embeddings\.position_ids": "numbers of the positions, which follow from their count"
}


class Stacked(Protocol):
    """A tower of ours with transformer blocks."""

    @property
    def scan(self) -> bool: ...

    @property
    def qkv_bias(self) -> bool: ...

    @property
    def layer_scale(self) -> float | None: ...


def block(tower: Stacked, naming: Layers, i: int, heads: int, gated: int = 0) -> list[MapEntry]:
    """Entries of block ``i``; ``gated`` is the number of gated units of its MLP, 0 without."""
    ours, layer = ("blocks", i) if tower.scan else (f"block{i:02d}", None)
    theirs = naming.block.format(i=i)
    entries = [
        *norm(f"{ours}.norm1", theirs + naming.norm1, naming),
        *norm(f"{ours}.norm2", theirs + naming.norm2, naming),
        *heads_out(f"{ours}.attn.proj", theirs + naming.proj, naming, heads),
        *dense(f"{ours}.mlp.fc2", theirs + naming.fc2, naming),
    ]
    form = _flax_qkv(heads) if naming.flax else qkv(heads, len(naming.qkv))
    names = tuple(theirs + name for name in naming.qkv)
    kernel, bias = (tuple(n + end for n in names) for end in (naming.kernel, "bias"))
    entries.append(MapEntry(f"params.{ours}.attn.qkv.kernel", kernel, form))
    if tower.qkv_bias:
        entries.append(MapEntry(f"params.{ours}.attn.qkv.bias", bias, form))
    for entry in dense(f"{ours}.mlp.fc1", theirs + naming.fc1, naming):
        form = interleaved(2, gated) if gated else entry.form
        entries.append(dataclasses.replace(entry, form=form))
    if tower.layer_scale is not None:
        for name, gamma in zip(("ls1", "ls2"), naming.scales, strict=True):
            entries.append(MapEntry(f"params.{ours}.{name}.gamma", (theirs + gamma,)))
    return [dataclasses.replace(entry, layer=layer) for entry in entries]


def map_pool(naming: Layers, heads: int) -> list[MapEntry]:
    """Entries of attention pooling."""
    # Names and rows of q, k and v where they are parts of one tensor.
    tensors = (naming.q, *naming.kv) if len(naming.kv) == 2 else (naming.q, *naming.kv * 2)
    entries = [MapEntry("params.map_pool.probe", (naming.probe,))]
    for place, (name, tensor) in enumerate(zip("qkv", tensors, strict=True)):
        shared = tensors.count(tensor)
        row = place - tensors.index(tensor)
        for end, form in ((naming.kernel, LINEAR), ("bias", SAME)):
            if naming.flax:
                form = _flax_heads_in(heads)
            elif shared > 1:
                form = rows(row, shared, form)
            ours = f"params.map_pool.{name}.{'bias' if end == 'bias' else 'kernel'}"
            entries.append(MapEntry(ours, (tensor + end,), form))
    entries += heads_out("map_pool.proj", naming.pool_proj, naming, heads)
    entries += norm("map_pool.norm", naming.pool_norm, naming)
    entries += dense("map_pool.mlp.fc1", naming.pool_fc1, naming)
    entries += dense("map_pool.mlp.fc2", naming.pool_fc2, naming)
    return entries


def norm(ours: str, theirs: str, naming: Layers) -> list[MapEntry]:
    scale, bias = naming.norm_ends
    return [
        MapEntry(f"params.{ours}.scale", (theirs + scale,)),
        MapEntry(f"params.{ours}.bias", (theirs + bias,)),
    ]


def dense(ours: str, theirs: str, naming: Layers) -> list[MapEntry]:
    form = SAME if naming.flax else LINEAR
    return [
        MapEntry(f"params.{ours}.kernel", (theirs + naming.kernel,), form),
        MapEntry(f"params.{ours}.bias", (theirs + "bias",)),
    ]


def heads_out(ours: str, theirs: str, naming: Layers, heads: int) -> list[MapEntry]:
    """A dense layer that reads heads: with flax its kernel is (heads, D / heads, D)."""
    kernel, bias = dense(ours, theirs, naming)
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


def rows(place: int, count: int, form: Form) -> Form:
    """One of ``count`` equal parts of the rows of a tensor."""

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        return form.read([np.split(tensors[0], count)[place]])

    return Form(f"part {place} of {count}", read, form.write, join=0)
