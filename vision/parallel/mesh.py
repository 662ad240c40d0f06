"""Device meshes, and which part of every array lives on which device.

Axes, outermost first: ``replica`` splits the batch between slices that a slower network joins;
``data`` splits the batch; ``fsdp`` splits the batch and the parameters; ``tensor`` splits
parameters and, inside a block, features and heads. Batches are split over replica x data x fsdp.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.config.errors import UserError
from vision.parallel import jax_internals

Tree = Any
BATCH_AXES = ("replica", "data", "fsdp")
PARAMETER_AXES = ("fsdp", "tensor")


class MeshError(UserError):
    """The mesh or a sharding rule does not fit the devices or the parameters."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Shape of the device mesh. One axis may be -1: it takes the devices that are left.

    Attributes:
      replica: copies of everything below, each with its share of the batch. Where devices come
        in slices (TPU slices, GPU hosts) and replica is a multiple of their number, one replica
        never spans two slices, so that only the sum of gradients crosses the slower network.
      data: splits the batch; parameters are whole on every device.
      fsdp: splits the batch, and the parameters that a ``ShardingRule`` says.
      tensor: splits parameters that a ``ShardingRule`` says, and computation inside blocks.
    """

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def build(self, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
        """The mesh over ``devices`` (all of them by default); axes are Auto."""
        devices = list(jax.devices()) if devices is None else devices
        sizes = dataclasses.asdict(self)
        free = [name for name, size in sizes.items() if size == -1]
        fixed = math.prod(size for size in sizes.values() if size != -1)
        if len(free) > 1 or any(size == 0 or size < -1 for size in sizes.values()):
            raise MeshError(f"mesh {sizes}: sizes are positive, and at most one may be -1")
        if free:
            sizes[free[0]] = len(devices) // fixed
        if math.prod(sizes.values()) != len(devices):
            raise MeshError(
                f"mesh {dataclasses.asdict(self)} does not fill the {len(devices)} device(s) here; "
                f"set config.mesh so that {' x '.join(sizes)} is the number of devices"
            )
        # jax.make_mesh would give Explicit axes, under which linen models do not trace.
        return jax.sharding.Mesh(arrange(sizes, devices), tuple(sizes), axis_types=None)


def arrange(sizes: Mapping[str, int], devices: Sequence[Any]) -> np.ndarray:
    """Devices as an array of the mesh's shape: near ones next to each other on the last axes."""
    shape = tuple(sizes.values())
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if any(d.device_kind == "TPU v4" and d.core_on_chip for d in devices):
        # A v4 has one device a chip, and jax arranges no other; only its compiler away from one
        # has two (``vision.parallel.targets``), in the order of their places.
        return np.asarray(devices, dtype=object).reshape(shape)
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if sizes["replica"] % slices == 0:
        return mesh_utils.create_hybrid_device_mesh(
            (shape[0] // slices, *shape[1:]),
            (slices, *(1 for _ in shape[1:])),
            devices,
            allow_split_physical_axes=True,
        )
    order = sorted(devices, key=lambda d: (d.slice_index, d.process_index, d.id))
    return np.asarray(order, dtype=object).reshape(shape)


@dataclasses.dataclass(frozen=True)
class ShardingRule:
    """How arrays whose path matches ``pattern`` are laid out.

    Attributes:
      pattern: regular expression searched in paths such as ``model/blocks/mlp/fc1/kernel``.
      layout: ``replicate``; or ``fsdp``: split the largest dimension that the fsdp axis divides
        (leaves with no such dimension, or smaller than ``min_size``, are replicated); or a mesh
        axis or None for each of the last dimensions: ``("fsdp", "tensor")`` splits the rows of
        a kernel over fsdp and its columns over tensor, also where a scan has stacked layers in
        front. Optimizer statistics whose shape is not that of their parameter (factored
        moments) are replicated under such a rule.
      min_size: number of elements under which ``fsdp`` leaves an array whole.
    """

    pattern: str
    layout: Literal["replicate", "fsdp"] | tuple[str | None, ...]
    min_size: int = 4096

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"pattern={self.pattern!r} is no regular expression: {error}"
            ) from None
        if isinstance(self.layout, str):
            if self.layout not in ("replicate", "fsdp"):
                raise ValueError(
                    f"layout={self.layout!r}, but it is 'replicate', 'fsdp', or one mesh axis or "
                    "None for each of the last dimensions, such as (None, 'tensor')"
                )
            return
        axes = [axis for axis in self.layout if axis is not None]
        if not set(axes) <= set(PARAMETER_AXES) or len(set(axes)) < len(axes) or not self.layout:
            raise ValueError(
                f"layout={self.layout!r}: it names each of the axes "
                f"{' and '.join(PARAMETER_AXES)} at most once, and None elsewhere"
            )


def path_of(key_path: tuple[Any, ...]) -> str:
    """``params/model/head/kernel`` for a key path of ``jax.tree_util``."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``: what the program that is being traced is for.

    That of the mesh in use, whose devices need not be here, else JAX's default. Code that has a
    form for each asks this and not ``jax.default_backend()``, which is the host's.
    """
    here = jax_internals.mesh_platform(jax.sharding.get_abstract_mesh())
    return here or jax.default_backend()


def _batch_mesh() -> Any | None:
    """The mesh in use, if it has the axes that split a batch and more than one device."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names) or mesh.size == 1:
        return None
    return mesh


def constrain_batch(x: jax.Array, tensor: int | None = None) -> jax.Array:
    """Keeps an activation split along its first dimension and, at will, over tensor.

    Towers call it after every layer: without it, sharded parameters make the compiler guess,
    and it guesses full rematerialisation. Outside a mesh (``jax.set_mesh``) it does nothing.

    Args:
      x: (B, ...) activation.
      tensor: the dimension that the tensor axis splits, if it divides it: the features between
        the two layers of an MLP, the heads of attention. None: no device has a part only.
    """
    mesh = _batch_mesh()
    if mesh is None:
        return x
    spec: list[Any] = [BATCH_AXES] + [None] * (x.ndim - 1)
    if tensor is not None and x.shape[tensor] % mesh.shape["tensor"] == 0:
        spec[tensor] = "tensor"
    return jax.lax.with_sharding_constraint(x, P(*spec))


def batch_parts(shape: tuple[int, ...], tensor: int) -> tuple[int, int]:
    """In how many parts ``constrain_batch`` splits the first dimension and dimension ``tensor``."""
    mesh = _batch_mesh()
    if mesh is None:
        return 1, 1
    parts = mesh.shape["tensor"]
    return (
        math.prod(mesh.shape[axis] for axis in BATCH_AXES),
        parts if shape[tensor] % parts == 0 else 1,
    )


def on_each_device(
    function: Callable[..., Tree],
    split: Sequence[jax.Array],
    whole: Sequence[jax.Array],
    heads: int,
) -> Tree:
    """``function(*split, *whole)`` of each device's part of arrays, where a mesh is in use.

    For what the compiler cannot split by itself, such as hand-written kernels.

    Args:
      function: its results are split as the arrays of ``split`` are.
      split: (B, N, D) arrays, D being ``heads`` heads side by side: each device has its rows and,
        where the tensor axis divides the heads, its heads.
      whole: (B, ...) arrays of which each device has its rows.
      heads: see ``split``.
    """
    mesh = _batch_mesh()
    if mesh is None:
        return function(*split, *whole)
    _, parts = batch_parts((heads,), 0)
    own = P(BATCH_AXES, None, "tensor" if parts > 1 else None)
    specs = (*(own for _ in split), *(P(BATCH_AXES) for _ in whole))
    return jax.shard_map(function, in_specs=specs, out_specs=own, check_vma=False)(*split, *whole)


def state_shardings(
    abstract: Tree, mesh: jax.sharding.Mesh, rules: tuple[ShardingRule, ...]
) -> Tree:
    """A ``NamedSharding`` per leaf of ``abstract`` (a tree of ``jax.ShapeDtypeStruct``).

    The first rule whose pattern is found in a leaf's path decides; optimizer moments and averages
    hold parameter paths inside theirs, so they follow their parameters. Without a rule a leaf is
    replicated.

    Raises:
      MeshError: a rule matches no leaf at all, has more axes than a leaf has dimensions, or an
        axis that does not divide its dimension.
    """
    used: set[str] = set()
    leaves = {path_of(p): x for p, x in jax.tree_util.tree_leaves_with_path(abstract)}
    prefix = "params/"
    parameters = {p.removeprefix(prefix): x for p, x in leaves.items() if p.startswith(prefix)}

    def place(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        for rule in rules:
            if re.search(rule.pattern, path):
                used.add(rule.pattern)
                if rule.layout == "fsdp":
                    return NamedSharding(mesh, _fsdp_spec(leaf.shape, mesh.shape, rule.min_size))
                owner = _parameter(path, parameters)
                if rule.layout != "replicate" and (owner is None or owner.shape == leaf.shape):
                    return NamedSharding(mesh, _explicit_spec(path, leaf.shape, mesh.shape, rule))
                break
        return replicated(mesh)

    shardings = jax.tree_util.tree_map_with_path(place, abstract)
    for rule in rules:
        if rule.pattern not in used:
            near = difflib.get_close_matches(rule.pattern, leaves, n=3, cutoff=0)
            raise MeshError(
                f"sharding rule {rule.pattern!r} matches no array that an earlier rule has not "
                f"taken; paths look like {', '.join(near)}"
            )
    return shardings


def _parameter(path: str, parameters: Mapping[str, Any]) -> Any:
    """The parameter whose path is the end of ``path``, or None."""
    parts = path.split("/")
    ends = ("/".join(parts[i:]) for i in range(len(parts)))
    return next((parameters[end] for end in ends if end in parameters), None)


def _explicit_spec(
    path: str, shape: tuple[int, ...], sizes: Mapping[str, int], rule: ShardingRule
) -> P:
    where = f"sharding rule {rule.pattern!r} with layout {rule.layout}: {path} of shape {shape}"
    free = len(shape) - len(rule.layout)
    if free < 0:
        raise MeshError(f"{where} has only {len(shape)} dimension(s); make the pattern narrower")
    spec = (None,) * free + tuple(rule.layout)
    for i, axis in enumerate(spec):
        if axis is not None and shape[i] % sizes[axis]:
            raise MeshError(
                f"{where}: the {sizes[axis]} devices of axis {axis} do not divide its dimension "
                f"{i} of {shape[i]}; change config.mesh.{axis}, or the rule"
            )
    return P(*spec)


def _fsdp_spec(shape: tuple[int, ...], sizes: Mapping[str, int], min_size: int) -> P:
    size = sizes["fsdp"]
    fits = [i for i, n in enumerate(shape) if n % size == 0 and n > 0]
    if size == 1 or not fits or math.prod(shape) < min_size:
        return P()
    axis = max(fits, key=lambda i: shape[i])
    return P(*(None,) * axis, "fsdp")


@functools.cache
def batch_share(mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """``(index, count)``: this process reads part ``index`` of ``count`` of every global batch.

    Processes that share the rows of a batch (the tensor axis spans them) read the same part.

    Raises:
      MeshError: processes hold rows in an irregular way.
    """
    processes = np.vectorize(lambda device: device.process_index)(mesh.devices)
    return shares(processes.reshape(-1, mesh.shape["tensor"]))[jax.process_index()]


def shares(processes: np.ndarray) -> dict[int, tuple[int, int]]:
    """``batch_share`` of every process.

    Args:
      processes: (parts of the batch, devices with the same part) int: processes of the devices.
    """
    parts: dict[int, tuple[int, ...]] = {}
    for process in np.unique(processes):
        parts[int(process)] = tuple(np.flatnonzero((processes == process).any(axis=1)).tolist())
    groups = sorted(set(parts.values()))
    if sum(map(len, groups)) != len(processes) or len({len(group) for group in groups}) > 1:
        raise MeshError(
            f"the batch is split into {len(processes)} parts, and processes hold {groups} of them: "
            "set config.mesh so that tensor divides, or is a multiple of, a process's devices"
        )
    return {process: (groups.index(group), len(groups)) for process, group in parts.items()}


def check_batch(rows: int, mesh: jax.sharding.Mesh) -> None:
    """Raises MeshError unless a global batch of ``rows`` can be split over the mesh."""
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if rows % parts:
        below, above = rows // parts * parts, (rows // parts + 1) * parts
        raise MeshError(
            f"a batch of {rows} cannot be split over {' x '.join(BATCH_AXES)} = {parts} devices; "
            f"choose a batch size that divides by them, such as {below or above}"
            + (f" or {above}" if below else "")
        )


def to_device(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch (see ``batch_share``) as global arrays, split over the mesh.

    Raises:
      MeshError: the rows do not divide by the devices.
    """
    sharding = batch_sharding(mesh)
    rows = len(next(iter(batch.values()))) * batch_share(mesh)[1]
    check_batch(rows, mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value, (rows, *value.shape[1:]))
        for name, value in batch.items()
    }
