"""Dry run: where every array of a config's state lives, and what a step needs, without training.

    python -m vision.programs.layout --config=configs/vit_s16_i1k.py --devices=64 \\
        --config.mesh.fsdp=8 --image=224x224x3 --classes=1000 --examples=1281167

    python -m vision.programs.layout --config=configs/vit_s16_i1k.py --target=v5e:4x4 --compile \\
        --image=224x224x3 --classes=1000 --examples=1281167

Prints every leaf of the state with its shape, dtype, layout and bytes on one device, and totals;
with --compile also memory, collectives and compile time of the step. Data is read up to its first
batch; where it is not at hand, --image, --classes and --examples stand in for it. A layout of -
is a whole dimension, of fsdp or tensor one that this axis splits; see docs/scaling.md.

With --target the devices are TPUs that need not be there, and --compile is their own compiler:
whether the step fits, what devices exchange, and the highest MFU that it can have. It needs
``make tpu-env``.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from vision.config.cli import help_first

FLAGS = {
    "config": "config file, optionally followed by :mode",
    "devices": "simulate so many CPU devices; without it, the devices here",
    "leaves": "print so many of the largest arrays only; all by default",
    "compile": "compile the step as well, which takes as long as in training",
    "image": "without data: size of an image, such as 224x224x3 or 224x224x3:uint8",
    "classes": "without data: number of classes",
    "examples": "without data: number of training examples",
    "target": "TPUs to lay out for, such as v5e:4x4, or 2xv5e:16x16 for two slices of it",
    "advise": "with --target: where the step does not fit, try what would make it fit",
    "json": "print one JSON object instead of tables",
}
if __name__ == "__main__":
    help_first(__doc__, FLAGS)

import jax

from vision.config import specs as configs
from vision.config.cli import UsageError, parse, run_main, whole_number
from vision.config.errors import UserError
from vision.config.specs import build
from vision.parallel.mesh import PARAMETER_AXES, path_of
from vision.parallel.targets import Target, has_compiler, parse_target
from vision.programs.target import (
    Outcome,
    advise,
    as_json,
    check_versions,
    measure,
    prepare_for,
    run_again,
    show,
)
from vision.run import experiment as experiments
from vision.run.compile import Compiled, compile_step, lay_out
from vision.run.experiment import DataSpec
from vision.run.prepare import observe, prepare

Tree = Any


@dataclasses.dataclass(frozen=True)
class LayoutRow:
    """One array of a state on a mesh.

    Attributes:
      path: such as ``params/model/head/kernel``.
      shape: of the whole array.
      dtype: its name.
      layout: mesh axis or None for each dimension.
      bytes: of the whole array.
      device_bytes: of the part on one device.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    layout: tuple[Any, ...]
    bytes: int
    device_bytes: int


def leaves(abstract: Tree) -> list[LayoutRow]:
    """The arrays of ``Compiled.abstract`` or ``lay_out``, in the tree's order."""
    found = []
    for key_path, x in jax.tree_util.tree_leaves_with_path(abstract):
        spec = tuple(x.sharding.spec)
        part = x.sharding.shard_shape(x.shape)
        found.append(
            LayoutRow(
                path=path_of(key_path),
                shape=x.shape,
                dtype=str(x.dtype),
                layout=spec + (None,) * (len(x.shape) - len(spec)),
                bytes=math.prod(x.shape) * x.dtype.itemsize,
                device_bytes=math.prod(part) * x.dtype.itemsize,
            )
        )
    return found


def totals(found: Iterable[LayoutRow]) -> dict[str, tuple[int, int, int]]:
    """Collection (``params``, ``opt_state``, ...) to arrays, bytes, and bytes on one device."""
    sums: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for leaf in found:
        row = sums[leaf.path.partition("/")[0]]
        for i, value in enumerate((1, leaf.bytes, leaf.device_bytes)):
            row[i] += value
    return {name: (row[0], row[1], row[2]) for name, row in sums.items()}


def show_leaves(found: Sequence[LayoutRow], largest: int = 0) -> str:
    """A table of leaves: all, or so many of the largest on a device."""
    chosen = sorted(found, key=lambda leaf: -leaf.device_bytes)[:largest] if largest else found
    rows = [("array", "shape", "dtype", "layout", "on a device")]
    for leaf in chosen:
        split = " ".join(axis or "-" for axis in leaf.layout) if any(leaf.layout) else "whole"
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        rows.append((leaf.path, shape, leaf.dtype, split, size(leaf.device_bytes)))
    table = _align(rows, "<<<<>")
    left = len(found) - len(chosen)
    return table + (f"\n... and {left} smaller ones (--leaves=all)" if left else "")


def show_totals(found: Iterable[LayoutRow]) -> str:
    rows = [("collection", "arrays", "all together", "on a device")]
    sums = totals(found)
    sums["state"] = tuple(map(sum, zip(*sums.values(), strict=True)))  # pyright: ignore
    for name, (count, whole, part) in sums.items():
        rows.append((name, f"{count:,}", size(whole), size(part)))
    return _align(rows, "<>>>")


def show_compiled(compiled: Compiled) -> str:
    """Memory, collectives and compile time of a step, in words."""
    seconds, memory = compiled.seconds, compiled.memory
    kinds = ", ".join(f"{count} {kind}" for kind, count in compiled.collectives.items())
    lines = [
        f"step compiled for {jax.default_backend()}: traced in {seconds['trace']:.1f} s, "
        f"compiled in {seconds['compile']:.1f} s",
        f"collectives: {kinds or 'none'} (those in a loop over layers count once)",
    ]
    if memory:
        peak = sum(memory[k] for k in ("arguments", "outputs", "temporaries")) - memory["reused"]
        lines += [
            f"state and batch on a device: {size(memory['arguments'])}",
            f"gradients, activations and other temporaries: {size(memory['temporaries'])}",
            f"outputs: {size(memory['outputs'])}, of which {size(memory['reused'])} take the place "
            "of the old state",
            f"together: {size(peak)}, as the {jax.default_backend()} compiler counts; others fuse "
            "and order differently",
        ]
    else:
        lines.append(f"the {jax.default_backend()} compiler does not say how much memory it needs")
    return "\n".join(lines)


def size(count: int) -> str:
    """``1.50 MiB`` for a number of bytes."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:.2f} {units[0]}"


def described(image: str, classes: int, examples: int, batch_size: int) -> DataSpec:
    """DataSpec about data that is not at hand.

    Args:
      image: ``224x224x3``: height, width, channels; floats, or bytes with ``:uint8`` behind it.
      classes: number of classes; 0 for data without any.
      examples: number of examples, which lengths in epochs need.
      batch_size: rows of a global batch.
    """
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?::(float32|uint8))?", image)
    if found is None:
        raise UsageError(f"--image={image}, but it is like 224x224x3, or 224x224x3:uint8")
    if not examples:
        raise UsageError("--image needs --examples=<number of training examples> beside it")
    shape = tuple(int(found[i]) for i in (1, 2, 3))
    return DataSpec(
        examples,
        tuple(f"class {i}" for i in range(classes)),
        {
            "image": ((batch_size, *shape), found[4] or "float32"),
            "label": ((batch_size,), "int32"),
            "_mask": ((batch_size,), "bool"),
            "_index": ((batch_size,), "int32"),
        },
    )


def _data_spec(config: Any, options: Any) -> DataSpec:
    if options.image:
        classes = whole_number("classes", options.classes)
        examples = whole_number("examples", options.examples)
        return described(str(options.image), classes, examples, config.data.batch_size)
    try:
        return observe(build(config.data))
    except UserError as error:
        raise UsageError(
            f"{error} (a dry run needs no data: add --image=224x224x3 --classes=1000 "
            "--examples=1281167, with your numbers)"
        ) from error


def _align(rows: Sequence[tuple[str, ...]], sides: str) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{x:{s}{w}}" for x, s, w in zip(row, sides, widths, strict=True)) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: list[str]) -> int:
    options = parse(
        arguments,
        __doc__ or "",
        required=("config",),
        **FLAGS,
    )
    target = _target(options)
    if target is not None:
        if not has_compiler():
            return run_again(arguments)
        check_versions()
        jax.config.update("jax_platforms", "cpu")
    if options.devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", whole_number("devices", options.devices))
    largest = 0 if options.leaves in (False, "all") else whole_number("leaves", options.leaves)
    config: Any = configs.load(options.config, options.overrides)
    experiments.check(config, options.config)
    data_spec = _data_spec(config, options)
    outcome = None
    if target is None:
        prepared = prepare(config, data_spec)
    elif options.compile:
        prepared, outcome = measure(config, data_spec, target)
    else:
        prepared = prepare_for(config, data_spec, target)
    step, mesh, rules = prepared.step, prepared.mesh, prepared.experiment.sharding
    compiled = outcome.compiled if outcome else None
    if options.compile and target is None:
        compiled = compile_step(step, prepared.batch, mesh, rules)
    abstract = compiled.abstract if compiled else lay_out(step, prepared.batch, mesh, rules)
    if options.json:
        print(json.dumps(_as_json(mesh, leaves(abstract), compiled, outcome)))
        return 0

    found = leaves(abstract)
    axes = " x ".join(f"{name} {length}" for name, length in mesh.shape.items())
    print(f"{mesh.size} device(s), {mesh.devices.flat[0].device_kind}: {axes}\n")
    print(show_leaves(found, largest), show_totals(found), sep="\n\n")
    for update in {each.phase: each for each in step.phase_updates(abstract.params)}.values():
        rates = update.optimizer.table(update.trained(abstract.params), update.towers)
        if len(rates) > 1:
            head = f"learning rate of {update.phase} x" if update.phase else "learning rate x"
            print("\n" + _align([(head, "parameters", "the first"), *rates], "<><"))
    used = {axis for leaf in found for axis in leaf.layout}
    for axis in (a for a in PARAMETER_AXES if mesh.shape[a] > 1 and a not in used):
        print(f"\nno array is split over {axis}: config.sharding has no rule that says so")
    if outcome:
        print("\n" + show(outcome))
        if options.advise and not outcome.fit.fits and target is not None:
            print("\nwhat would make it fit:")
            found_way = advise(config, data_spec, target, print)
            print(f"use {found_way}" if found_way else "none of these: a smaller batch, or tower")
    elif compiled:
        print("\n" + show_compiled(compiled))
    return 0


def _target(options: Any) -> Target | None:
    if options.advise and not (options.target and options.compile):
        raise UsageError("--advise needs --target=... and --compile beside it")
    if not options.target:
        return None
    if options.devices:
        raise UsageError("--target says how many devices there are: leave out --devices")
    return parse_target("" if options.target is True else options.target)


def _as_json(
    mesh: jax.sharding.Mesh,
    found: Sequence[LayoutRow],
    compiled: Compiled | None,
    outcome: Outcome | None,
) -> dict[str, Any]:
    """What the tables say, in bytes and seconds."""
    result: dict[str, Any] = {
        "mesh": dict(mesh.shape),
        "device_kind": mesh.devices.flat[0].device_kind,
        "state": {
            name: {"arrays": count, "bytes": whole, "device_bytes": part}
            for name, (count, whole, part) in totals(found).items()
        },
        "arrays": [dataclasses.asdict(row) for row in found],
    }
    if outcome:
        result["compiled"] = as_json(outcome)
    elif compiled:
        result["compiled"] = {
            "memory": dict(compiled.memory),
            "collectives": dict(compiled.collectives),
            "compile_seconds": dict(compiled.seconds),
        }
    return result


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
