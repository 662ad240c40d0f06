"""The dry run against a TPU's own compiler: the part of the layout command that needs libtpu.

Where this environment has no libtpu, the command runs itself again by the Python of
``.venv-tpu`` (``make tpu-env``), or the one that ``VISION_TPU_PYTHON`` names.
"""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from vision.config.errors import UserError
from vision.config.specs import spec
from vision.parallel import chips, targets
from vision.parallel.mesh import Mesh, ShardingRule
from vision.parallel.targets import TOPOLOGIES, Target, TargetError
from vision.programs import roofline as roof
from vision.run import hlo
from vision.run.compile import Compiled, compile_step
from vision.run.experiment import DataSpec
from vision.run.prepare import Prepared, prepare

_ROOT = Path(__file__).resolve().parents[2]
_PYTHON = "VISION_TPU_PYTHON"
_PARENT = "VISION_TPU_PARENT_JAX"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What compiling a config for a target came to.

    Attributes:
      target: the slices.
      batch_size: of the global batch.
      fit: whether it fits.
      compiled: None where the compiler gave up.
      summary, roofline: likewise.
      flops_per_device: model FLOPs of a step on one device.
    """

    target: Target
    batch_size: int
    fit: roof.Fit
    compiled: Compiled | None = None
    summary: hlo.Summary | None = None
    roofline: roof.Roofline | None = None
    flops_per_device: float = 0.0


def python_with_compiler() -> Path | None:
    """The Python of the environment that has libtpu; None where there is none."""
    if named := os.environ.get(_PYTHON):
        return Path(named)
    path = _ROOT / ".venv-tpu" / "bin" / "python"
    return path if path.exists() else None


def environment_of_compiler() -> dict[str, str]:
    """Environment variables for a program of the Python that has libtpu."""
    return {
        **os.environ,
        _PARENT: metadata.version("jax"),
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        # libtpu looks for the machine that it is not on, and says so.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run_again(arguments: list[str]) -> int:
    """Runs the layout command by the Python that has libtpu; its exit status.

    Raises:
      TargetError: there is no such Python.
    """
    python = python_with_compiler()
    if python is None:
        raise TargetError(
            "--target needs the TPU's compiler (libtpu), in an environment of its own: make "
            f"tpu-env, which makes .venv-tpu; or set {_PYTHON} to a Python that has jax[tpu]=="
            f"{metadata.version('jax')}"
        )
    if not python.exists():
        raise TargetError(f"{_PYTHON}={python}: there is no such file")
    command = [str(python), "-m", "vision.programs.layout", *arguments]
    return subprocess.run(command, env=environment_of_compiler(), check=False).returncode


def check_versions() -> None:
    """Raises TargetError where this environment's JAX is not that of whoever ran it again."""
    parent, here = os.environ.get(_PARENT), metadata.version("jax")
    if parent is not None and parent != here:
        raise TargetError(
            f"the environment with libtpu has jax {here}, the one that trains jax {parent}: what "
            "compiles in one may not in the other; make tpu-env"
        )


def prepare_for(config: Any, data_spec: DataSpec, target: Target) -> Prepared:
    """A config's parts on the mesh of a target; nothing is compiled.

    Raises:
      UserError: a target that does not exist, or a mesh or other parts that do not fit it.
    """
    devices = targets.devices(target)
    check_mesh(config, target, len(devices))
    return prepare(config, data_spec, devices=devices)


def measure(config: Any, data_spec: DataSpec, target: Target) -> tuple[Prepared, Outcome]:
    """Compiles the step of a config for a target.

    Raises:
      UserError: a mesh, a rule or a batch that does not fit the target.
    """
    prepared = prepare_for(config, data_spec, target)
    step, mesh = prepared.step, prepared.mesh
    device_kind = mesh.devices.flat[0].device_kind
    chip = chips.find(device_kind)
    assert chip is not None, f"{device_kind} is missing from vision/parallel/chips.py"
    share = target.chips / mesh.size
    size = prepared.step.train_length.batch_size
    try:
        compiled = compile_step(step, prepared.batch, mesh, prepared.experiment.sharding)
    except JaxRuntimeError as error:
        fit = roof.refusal(str(error))
        if fit is None:
            raise
        return prepared, Outcome(target, size, fit)
    available = None if chip.hbm_gib is None else round(chip.hbm_gib * share * 2**30)
    # Nothing can be put on these devices, only the kind of them matters.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        flops = step.flops(compiled.abstract, prepared.batch)  # pyright: ignore[reportArgumentType] - shapes do
    summary = hlo.summary(compiled.text(), mesh.size)
    dtype = getattr(getattr(prepared.experiment.model, "precision", None), "compute", "float32")
    each = flops / mesh.size
    return prepared, Outcome(
        target,
        size,
        roof.fit_of(compiled.memory, available),
        compiled,
        summary,
        roof.roofline(summary, each, chip, dtype, share),
        each,
    )


def show(outcome: Outcome) -> str:
    """The outcome in words."""
    lines = [roof.show_fit(outcome.fit)]
    if outcome.summary is not None and outcome.roofline is not None:
        lines.append(roof.show_summary(outcome.summary))
        lines.append(
            roof.show_roofline(outcome.roofline, outcome.summary, outcome.flops_per_device)
        )
    return "\n".join(lines)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome for machines; bytes, seconds and FLOPs."""
    seconds = {} if outcome.compiled is None else dict(outcome.compiled.seconds)
    return {
        "target": str(outcome.target),
        "chips": outcome.target.chips,
        "batch_size": outcome.batch_size,
        "flops_per_device": outcome.flops_per_device,
        **roof.as_json(outcome.fit, outcome.summary, outcome.roofline),
        "compile_seconds": seconds,
    }


def check_mesh(config: Any, target: Target, devices: int) -> None:
    """Raises TargetError where the mesh of a config does not fill a target; says what would."""
    mesh = config.get("mesh") or {}
    sizes = {axis: mesh.get(axis, 1) for axis in ("replica", "data", "fsdp", "tensor")}
    if "data" not in mesh:
        sizes["data"] = -1
    fixed = math.prod(size for size in sizes.values() if size > 0)
    if -1 in sizes.values():
        if devices % fixed == 0:
            return
        fits = [str(n) for n in range(1, devices + 1) if devices % n == 0]
        ways = f"the sizes beside -1 multiply to one of {', '.join(fits)}"
    elif fixed == devices:
        return
    else:
        same = [
            f"--target={version}:{shape}"
            for version, shapes in TOPOLOGIES.items()
            for shape in shapes
            if Target(version, shape).chips == fixed
        ]
        ways = " or ".join(["--config.mesh.data=-1, which takes those that are left", *same])
    shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
    raise TargetError(f"a mesh of {shape} does not fill the {devices} devices of {target}: {ways}")


def remedies(config: Any, target: Target) -> Iterator[tuple[str, Target, Any]]:
    """What may make a config fit, cheapest first: how to say it, the target, the changed config."""
    models = _nodes_with_remat(config.model, "model")
    for kind in ("dots", "full"):
        paths = [path for path, now in models if now not in (kind, "full")]
        if paths:
            words = " ".join(f"--config.{path}.remat={kind}" for path in paths)
            yield words, target, _changed(config, {f"{path}.remat": kind for path in paths})
    if (config.get("mesh") or {}).get("fsdp", 1) == 1:
        change = {
            "mesh": spec(Mesh, data=1, fsdp=target.chips),
            "sharding": (spec(ShardingRule, pattern=".*", layout="fsdp"),),
        }
        words = (
            f"mesh=spec(Mesh, data=1, fsdp={target.chips}), "
            "sharding=[spec(ShardingRule, pattern='.*', layout='fsdp')] in the config"
        )
        yield words, target, _changed(config, change)
    for count in (2, 4, 8):
        parts = config.accumulate * count
        if (config.data.batch_size // target.chips) % parts == 0:
            yield f"--config.accumulate={parts}", target, _changed(config, {"accumulate": parts})
    larger = target.larger()
    while larger is not None and config.data.batch_size % larger.chips == 0:
        yield f"--target={larger}", larger, config
        larger = larger.larger()


def advise(
    config: Any, data_spec: DataSpec, target: Target, say: Callable[[str], None]
) -> str | None:
    """The first of ``remedies`` with which a config fits; None where none does.

    Args:
      config, data_spec, target: what does not fit.
      say: hears what each of them came to.
    """
    for words, other, changed in remedies(config, target):
        try:
            _, outcome = measure(changed, data_spec, other)
        except UserError as error:
            say(f"{words}: {error}")
            continue
        say(f"{words}: {roof.show_fit(outcome.fit).splitlines()[0].partition(' (--advise')[0]}")
        if outcome.fit.fits:
            return words
    return None


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    config = config.copy_and_resolve_references()
    config.unlock()
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = config
        for name in parents:
            node = node[name]
        with node.ignore_type():
            node[last] = value
    return config


def _nodes_with_remat(node: Any, path: str) -> list[tuple[str, str]]:
    found = [(path, node["remat"])] if "remat" in node else []
    for name, value in node.items():
        if hasattr(value, "items"):
            found += _nodes_with_remat(value, f"{path}.{name}")
    return found
