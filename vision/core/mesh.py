"""Device meshes, and which part of every array lives on which device.

Axes: ``data`` splits the batch and replicates parameters; ``fsdp`` splits both the batch and
the parameters; ``tensor`` splits parameters only. Batches are split over data x fsdp.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.core.errors import UserError

Tree = Any
BATCH_AXES = ("data", "fsdp")


class MeshError(UserError):
    """The mesh or a sharding rule does not fit the devices or the parameters."""


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Shape of the device mesh. One axis may be -1: it takes the devices that are left."""

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
                "set config.mesh so that data x fsdp x tensor is the number of devices"
            )
        # jax.make_mesh would give Explicit axes, under which linen models do not trace.
        return jax.sharding.Mesh(
            np.asarray(devices).reshape(tuple(sizes.values())), tuple(sizes), axis_types=None
        )


@dataclasses.dataclass(frozen=True)
class ShardingRule:
    """How parameters whose path matches ``pattern`` are laid out.

    Attributes:
      pattern: regular expression searched in paths such as ``model/blocks/mlp/fc1/kernel``.
      tactic: ``replicate``, or ``fsdp``: split the largest dimension that the fsdp axis divides
        (leaves with no such dimension, or smaller than ``min_size``, are replicated).
      min_size: number of elements under which ``fsdp`` leaves an array whole.
    """

    pattern: str
    tactic: Literal["replicate", "fsdp"]
    min_size: int = 4096


def path_of(key_path: tuple[Any, ...]) -> str:
    """``params/model/head/kernel`` for a key path of ``jax.tree_util``."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def constrain_batch(x: jax.Array) -> jax.Array:
    """Keeps an activation split along its first dimension only.

    Towers call it after every block: without it, sharded parameters make the compiler guess,
    and it guesses full rematerialisation. Outside a mesh (``jax.set_mesh``) it does nothing.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not set(BATCH_AXES) <= set(mesh.axis_names) or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH_AXES))


def state_shardings(
    abstract: Tree, mesh: jax.sharding.Mesh, rules: tuple[ShardingRule, ...]
) -> Tree:
    """A ``NamedSharding`` per leaf of ``abstract`` (a tree of ``jax.ShapeDtypeStruct``).

    The first rule whose pattern is found in a leaf's path decides; optimizer moments and slots
    hold parameter paths inside theirs, so they follow their parameters. Without a rule a leaf is
    replicated.

    Raises:
      MeshError: a rule matches no leaf at all.
    """
    used: set[str] = set()

    def place(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        for rule in rules:
            if re.search(rule.pattern, path):
                used.add(rule.pattern)
                if rule.tactic == "fsdp":
                    return NamedSharding(mesh, _fsdp_spec(leaf.shape, mesh.shape, rule.min_size))
                break
        return replicated(mesh)

    shardings = jax.tree_util.tree_map_with_path(place, abstract)
    for rule in rules:
        if rule.pattern not in used:
            paths = [path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(abstract)]
            raise MeshError(
                f"sharding rule {rule.pattern!r} matches no array; paths look like "
                f"{', '.join(paths[:3])}"
            )
    return shardings


def _fsdp_spec(shape: tuple[int, ...], mesh_shape: Mapping[str, int], min_size: int) -> P:
    size = mesh_shape["fsdp"]
    fits = [i for i, n in enumerate(shape) if n % size == 0 and n > 0]
    if size == 1 or not fits or math.prod(shape) < min_size:
        return P()
    axis = max(fits, key=lambda i: shape[i])
    return P(*(None,) * axis, "fsdp")


def to_device(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch as global arrays, split over the mesh.

    Raises:
      MeshError: the rows do not divide by the devices.
    """
    sharding = batch_sharding(mesh)
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = len(next(iter(batch.values()))) * jax.process_count()
    if rows % parts:
        raise MeshError(
            f"a batch of {rows} cannot be split over data x fsdp = {parts} devices; "
            "choose a batch size that divides by them"
        )
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }
