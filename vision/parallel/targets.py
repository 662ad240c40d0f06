"""TPUs that are not here: their names, and devices that programs can be compiled for.

libtpu holds the TPU's compiler and runs it without a TPU. ``make tpu-env`` installs the version of
libtpu that belongs to the locked version of JAX, into an environment of its own, ``.venv-tpu``: a
machine that trains on CPUs or GPUs should not have libtpu, which JAX would try to start.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from vision.config.errors import UserError

_PLANE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = (
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16",
    "16x16x16",
)  # fmt: skip
# Shapes of slices that can be had: cloud.google.com/tpu/docs, "Configurations" of each version.
TOPOLOGIES: Mapping[str, tuple[str, ...]] = {
    "v4": _CUBE,
    "v5e": _PLANE,
    "v5p": (*_CUBE, "16x16x24"),
    "v6e": _PLANE,
}


class TargetError(UserError):
    """There is no such target, or what compiles for it is missing."""


@dataclasses.dataclass(frozen=True)
class Target:
    """TPU slices of one kind.

    Attributes:
      version: of the chip, a key of ``TOPOLOGIES``.
      topology: shape of a slice in chips, such as ``4x4``.
      slices: number of slices, which the data-center network joins.
    """

    version: str
    topology: str
    slices: int = 1

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(map(int, self.topology.split("x")))

    def __str__(self) -> str:
        more = f"{self.slices}x" if self.slices > 1 else ""
        return f"{more}{self.version}:{self.topology}"

    def larger(self) -> Target | None:
        """The next larger slice of the kind; None for the largest."""
        shapes = TOPOLOGIES[self.version]
        after = shapes.index(self.topology) + 1
        return None if after == len(shapes) else dataclasses.replace(self, topology=shapes[after])


def parse_target(text: str) -> Target:
    """``v5e:4x4``, or ``2xv5e:4x4`` for two slices.

    Raises:
      TargetError: another version or shape; says which there are.
    """
    found = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*):([\dx]+)", text)
    if found is None:
        raise TargetError(f"target {text!r} is like v5e:4x4, or 2xv5e:4x4 for two slices of it")
    slices, version, topology = int(found[1] or 1), found[2], found[3]
    if version not in TOPOLOGIES:
        raise TargetError(f"target {text}: {version} is none of {', '.join(TOPOLOGIES)}")
    shapes = TOPOLOGIES[version]
    if topology not in shapes:
        near = difflib.get_close_matches(topology, shapes, n=1, cutoff=0.7)
        hint = f" (nearest: {near[0]})" if near else ""
        raise TargetError(f"target {text}: {version} has slices of {', '.join(shapes)}{hint}")
    if slices < 1:
        raise TargetError(f"target {text}: at least one slice")
    return Target(version, topology, slices)


def has_compiler() -> bool:
    """Whether this environment has libtpu."""
    return importlib.util.find_spec("libtpu") is not None


def check_compiler() -> None:
    """Raises TargetError unless libtpu is the one that the installed JAX was released with."""
    wanted = _wanted_libtpu(metadata.requires("jax") or [])
    here = metadata.version("libtpu")
    if wanted is not None and not _matches(here, wanted):
        raise TargetError(
            f"libtpu {here} is installed, but jax {metadata.version('jax')} was released with "
            f"libtpu {wanted}: its programs may be refused or another's; make tpu-env installs it"
        )


def _wanted_libtpu(requirements: list[str]) -> str | None:
    found = (re.match(r"libtpu\s*==\s*([\d.*]+)", each) for each in requirements)
    return next((each[1] for each in found if each), None)


def _matches(version: str, wanted: str) -> bool:
    return version == wanted or (wanted.endswith(".*") and version.startswith(wanted[:-1]))


def devices(target: Target) -> list[Any]:
    """The devices of a target, for meshes and compilation only; nothing runs on them.

    On v4, where libtpu compiles for the two cores of a chip by themselves, there are twice as many
    as chips.

    Raises:
      TargetError: libtpu is missing, of another version, or refuses the topology.
    """
    if not has_compiler():
        raise TargetError("libtpu is not installed in this environment: make tpu-env")
    check_compiler()
    # The compiler alone takes no TPU, so that several may run at once, and asks no metadata server.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": target.slices} if target.slices > 1 else {}
    if target.topology == "1x1":
        options["chips_per_host_bounds"] = (1, 1, 1)
    name = f"{target.version}:{target.topology}"
    try:
        return list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except JaxRuntimeError as error:
        raise TargetError(f"libtpu refuses {target}: {str(error).splitlines()[0]}") from error
