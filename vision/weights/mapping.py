"""Name maps between our parameter trees and other libraries' tensors, used in both directions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import ml_dtypes
import numpy as np

from vision.checkpoint.reading import flatten
from vision.config.errors import UserError

Tree = Any
Index = tuple[slice, ...]


class WeightsError(UserError):
    """Weights cannot be read or do not fit; the message names file and tensor and the way out."""


class Tensor(Protocol):
    """A tensor whose data is read when it is indexed; every NumPy array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: Any, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class Form:
    """How an array of ours is laid out in the tensors it comes from.

    Attributes:
      name: for messages.
      read: their tensors, in the order of ``Entry.theirs``, to our array.
      write: our array to their tensors, exactly undoing ``read``.
      axes: ours is theirs with its axes permuted: our axis i is their axis ``axes[i]``; ``()``
        is the same order. None where it is not that simple. Where it is, a device that holds
        part of an array reads that part only.
      join: the tensor consists of what several entries write, put one after another along this
        axis of theirs in the order of the entries; None: it belongs to one entry.
    """

    name: str
    read: Callable[[Sequence[np.ndarray]], np.ndarray]
    write: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    axes: tuple[int, ...] | None = None
    join: int | None = None


def permuted(name: str, axes: tuple[int, ...]) -> Form:
    """Our axis i is their axis ``axes[i]``."""
    back = tuple(int(i) for i in np.argsort(axes))
    return Form(name, lambda t: t[0].transpose(axes), lambda x: (x.transpose(back),), axes)


def reshaped(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> Form:
    """The same numbers in another shape; one side of each may be -1."""
    return Form(name, lambda t: t[0].reshape(ours), lambda x: (x.reshape(theirs),))


SAME = Form("same", lambda tensors: tensors[0], lambda array: (array,), axes=())
LINEAR = permuted("linear (out, in)", (1, 0))
# Depthwise kernels too: (C, 1, h, w) and (h, w, 1, C).
CONV = permuted("convolution (out, in, h, w)", (2, 3, 1, 0))


def part(name: str, axis: int, start: int | None, stop: int | None, form: Form = SAME) -> Form:
    """Rows ``start:stop`` along an axis of theirs, read as ``form`` says.

    The entries of the other rows stand beside this one, in order: see ``Form.join``.
    """

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        (tensor,) = tensors
        return form.read([tensor[(slice(None),) * axis + (slice(start, stop),)]])

    return Form(name, read, form.write, join=axis)


def interleaved(kinds: int, groups: int, parts: int = 1) -> Form:
    """Kernel or bias whose output rows are ordered group by group in ours, kind by kind in theirs.

    Args:
      kinds: rows of how many kinds stand in every group: 3 for q, k and v.
      groups: number of groups: heads.
      parts: 1 where theirs is one tensor (out, in) or (out,), ``kinds`` where they are several.
    """

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.concatenate(tensors) if parts > 1 else tensors[0]
        tail = rows.shape[1:]
        return rows.reshape(kinds, groups, -1, *tail).swapaxes(0, 1).reshape(-1, *tail).T

    def write(array: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = array.T
        tail = rows.shape[1:]
        rows = rows.reshape(groups, kinds, -1, *tail).swapaxes(0, 1).reshape(-1, *tail)
        return tuple(np.split(rows, parts))

    return Form(f"{kinds} kinds of {groups} rows or groups of them", read, write)


def qkv(heads: int, parts: int = 1) -> Form:
    """Kernel or bias of ``Attention.qkv``: ours is ordered head by head, theirs q, then k, then v.

    Args:
      heads: attention heads.
      parts: 1 where theirs is one tensor (3 D, D) or (3 D,), 3 where q, k and v are three.
    """
    return interleaved(3, heads, parts)


@dataclasses.dataclass(frozen=True)
class MapEntry:
    """One array of ours and where it comes from.

    Attributes:
      ours: path over ``{"params": tree, "model_state": tree}`` with dots, such as
        ``params.block00.attn.qkv.kernel`` or ``model_state.batch_stats.norm1.mean``.
      theirs: names of their tensors.
      form: how they become ours.
      layer: place along the leading axis of a scanned stack ``params.blocks....``; None for an
        array of its own.
      fit: ``fit(array, shape)`` makes what was read an array of another shape of ours, such as
        positions of another grid; None: shapes have to agree.
    """

    ours: str
    theirs: tuple[str, ...]
    form: Form = SAME
    layer: int | None = None
    fit: Callable[[np.ndarray, tuple[int, ...]], np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Names:
    """The name map of one model in one library's naming.

    Attributes:
      entries: for every array of ours one, or one per layer of a stack.
      ignored: regular expression, matching a whole name of theirs, to the reason why such a
        tensor has no place here.
    """

    entries: tuple[MapEntry, ...]
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def within(self, ours: str, theirs: str = "") -> Names:
        """The same model as part of a larger one.

        Args:
          ours: name of the part, ``image`` for instance: ``params.image.head.kernel``; empty
            where only theirs is a part.
          theirs: what their names begin with there, such as ``visual.``.
        """

        def moved(path: str) -> str:
            # Collections of the model state come first: model_state.batch_stats.image.norm1.mean
            head = 2 if path.startswith("model_state.") else 1
            pieces = path.split(".")
            return ".".join((*pieces[:head], *filter(None, [ours]), *pieces[head:]))

        entries = tuple(
            dataclasses.replace(e, ours=moved(e.ours), theirs=tuple(theirs + t for t in e.theirs))
            for e in self.entries
        )
        prefix = re.escape(theirs)
        return Names(entries, {f"{prefix}(?:{k})": why for k, why in self.ignored.items()})

    def __add__(self, other: Names) -> Names:
        return Names(self.entries + other.entries, {**self.ignored, **other.ignored})


def load(
    names: Names,
    tensors: Mapping[str, Tensor],
    target: Tree,
    *,
    kept: Mapping[str, str] | None = None,
    source: str = "the weights",
) -> Tree:
    """Their tensors as a tree of ours. Everything is checked before any data is read.

    Args:
      names: the map.
      tensors: name to tensor; read one after another, and only the parts that this process's
        devices hold where the form allows it.
      target: ``{"params": tree, "model_state": tree}`` of arrays or ``jax.ShapeDtypeStruct``:
        shapes, dtypes and, where they have one, shardings of the result. Leaves without a
        sharding become NumPy arrays.
      kept: regular expression, found in the path of a leaf, to the reason why that leaf stays
        the target's, whatever the file holds.
      source: the file, for messages.

    Raises:
      WeightsError: a tensor is missing, is neither used nor ignored, is not floating point or
        has another shape; or a leaf of ours is neither filled nor kept.
    """
    kept = kept or {}
    leaves = flatten(target)
    by_leaf: dict[str, list[MapEntry]] = defaultdict(list)
    for entry in names.entries:
        by_leaf[entry.ours].append(entry)
    keeps = {ours for ours in leaves if any(re.search(pattern, ours) for pattern in kept)}
    problems = _problems(names, by_leaf, tensors, leaves, keeps)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WeightsError(f"{source}: {problems[0]}{more}")
    filled = [
        leaf if ours in keeps else _fill(by_leaf[ours], tensors, leaf)
        for ours, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(target), filled)


def _problems(
    names: Names,
    by_leaf: Mapping[str, Sequence[MapEntry]],
    tensors: Mapping[str, Tensor],
    leaves: Mapping[str, Any],
    keeps: set[str],
) -> list[str]:
    """Messages about everything that does not fit."""
    problems = [
        f"nothing fills {ours} of shape {tuple(leaf.shape)}; the name map is of another model"
        for ours, leaf in leaves.items()
        if ours not in by_leaf and ours not in keeps
    ]
    used = {name for entry in names.entries for name in entry.theirs}
    for name in tensors:
        if name not in used and not any(re.fullmatch(p, name) for p in names.ignored):
            shape = tuple(tensors[name].shape)
            problems.append(f"tensor {name} of shape {shape} has no place in this model")
    for ours, entries in by_leaf.items():
        if ours in keeps:
            continue
        if ours not in leaves:
            first = entries[0].theirs[0]
            problems.append(f"this model has no {ours} for tensor {first}; check its fields")
            continue
        shape = tuple(leaves[ours].shape)
        layers = [entry.layer for entry in entries]
        if layers != [None] and layers != list(range(shape[0] if shape else 0)):
            problems.append(f"{ours} of shape {shape} is filled by layers {layers}")
            continue
        problems += misfits(entries, tensors, leaves)
    return problems


def misfits(
    entries: Sequence[MapEntry], tensors: Mapping[str, Tensor], leaves: Mapping[str, Any]
) -> list[str]:
    """Messages about tensors of ``entries`` that are missing or have another shape."""
    problems = []
    for entry in entries:
        shape = tuple(leaves[entry.ours].shape)
        expected = shape if entry.layer is None else shape[1:]
        if problem := _misfit(entry, tensors, expected):
            problems.append(problem)
    return problems


def _misfit(
    entry: MapEntry, tensors: Mapping[str, Tensor], expected: tuple[int, ...]
) -> str | None:
    if missing := [name for name in entry.theirs if name not in tensors]:
        return f"tensor {missing[0]} is missing; {entry.ours} of shape {expected} comes from it"
    inputs = [tensors[name] for name in entry.theirs]
    listed = ", ".join(
        f"{name} {tuple(t.shape)}" for name, t in zip(entry.theirs, inputs, strict=True)
    )
    for name, tensor in zip(entry.theirs, inputs, strict=True):
        if not is_floating(tensor.dtype):
            return (
                f"tensor {name} is {np.dtype(tensor.dtype).name}, but parameters are floating "
                "point: take the weights from before they were quantised"
            )
    # Zeros without memory of their own, so that shapes are known before any data is read.
    blank = [np.broadcast_to(np.zeros((), np.float32), tensor.shape) for tensor in inputs]
    try:
        shape = entry.form.read(blank).shape
    except (ValueError, IndexError):
        return f"{listed}: not laid out as {entry.form.name}, from which {entry.ours} is read"
    if shape != expected and (entry.fit is None or len(shape) != len(expected)):
        return f"{listed} gives shape {shape}, but {entry.ours} has shape {expected}"
    return None


def is_floating(dtype: Any) -> bool:
    """Whether NumPy or ml_dtypes calls it floating point, 16 bits at least."""
    dtype = np.dtype(dtype)
    return dtype == ml_dtypes.bfloat16 or dtype.kind == "f"


def _fill(entries: Sequence[MapEntry], tensors: Mapping[str, Tensor], leaf: Any) -> Any:
    shape, dtype = tuple(leaf.shape), leaf.dtype
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return _piece(entries, tensors, shape, dtype, (slice(None),) * len(shape))
    holders: dict[str, tuple[Index, list[Any]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        holders.setdefault(str(index), (index, []))[1].append(device)
    parts: list[jax.Array] = []
    for index, devices in holders.values():
        piece = _piece(entries, tensors, shape, dtype, index)
        # Waiting for each transfer frees its host copy before the next is read.
        parts += jax.block_until_ready([jax.device_put(piece, device) for device in devices])
    return jax.make_array_from_single_device_arrays(shape, sharding, parts, dtype=dtype)


def _piece(
    entries: Sequence[MapEntry],
    tensors: Mapping[str, Tensor],
    shape: tuple[int, ...],
    dtype: Any,
    index: Index,
) -> np.ndarray:
    """``leaf[index]``, one layer at a time, so that no second copy of a stack is ever held."""
    if entries[0].layer is None:
        return np.asarray(_read(entries[0], tensors, shape, index), dtype, order="C")
    layers = range(shape[0])[index[0]]
    size = tuple(len(range(n)[cut]) for n, cut in zip(shape, index, strict=True))
    stack = _aligned(size, dtype)
    for i, layer in enumerate(layers):
        stack[i] = _read(entries[layer], tensors, shape[1:], index[1:])
    return stack


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array whose memory is aligned to 64 bytes, so that CPU devices need no copy of it."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def _read(
    entry: MapEntry, tensors: Mapping[str, Tensor], shape: tuple[int, ...], index: Index
) -> np.ndarray:
    inputs = [tensors[name] for name in entry.theirs]
    axes = entry.form.axes
    if axes is not None and tuple(inputs[0].shape[i] for i in axes or range(len(shape))) == shape:
        axes = axes or tuple(range(len(shape)))
        theirs = tuple(index[axes.index(i)] for i in range(len(axes)))
        return entry.form.read([inputs[0][theirs]])
    array = entry.form.read([tensor[...] for tensor in inputs])
    if array.shape != shape and entry.fit is not None:
        array = entry.fit(array.astype(np.float32), shape)
    return array[index]


def save(names: Names, tree: Tree) -> dict[str, np.ndarray]:
    """A tree of ours under their names and in their layout: what ``load`` read, bit for bit.

    Args:
      names: the map.
      tree: ``{"params": tree, "model_state": tree}`` of arrays.

    Raises:
      WeightsError: an array of ours has no place in their naming, or one of theirs no source.
    """
    leaves = flatten(tree)
    pieces: dict[str, list[tuple[np.ndarray, int | None]]] = defaultdict(list)
    for entry in names.entries:
        if entry.ours not in leaves:
            raise WeightsError(
                f"this model has no {entry.ours}, from which {', '.join(entry.theirs)} would be "
                "written; the name map is of another model"
            )
        array = np.asarray(
            leaves[entry.ours] if entry.layer is None else leaves[entry.ours][entry.layer]
        )
        for name, tensor in zip(entry.theirs, entry.form.write(array), strict=True):
            pieces[name].append((np.asarray(tensor, order="C"), entry.form.join))
    if nameless := leaves.keys() - {entry.ours for entry in names.entries}:
        raise WeightsError(
            f"{sorted(nameless)[0]} has no name there"
            + (f" (and {len(nameless) - 1} more)" if len(nameless) > 1 else "")
            + "; the name map is of another model"
        )
    saved = {}
    for name, parts in pieces.items():
        arrays, joins = zip(*parts, strict=True)
        if len(arrays) > 1 and None in joins:
            raise WeightsError(f"{len(arrays)} entries of the name map write tensor {name}")
        saved[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=joins[0])
    return saved
