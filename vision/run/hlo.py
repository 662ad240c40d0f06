"""What a compiled program says of itself: memory traffic, collectives, the compiler's cycles.

Reads the text of optimised HLO (``jax.stages.Compiled.as_text()``). XLA's own cost analysis counts
the body of a loop once and every access to a TPU's on-chip memory as if it went to HBM; here a body
counts as often as it runs, and on-chip memory not at all.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from vision.run.hlo_text import Array, Instruction, Program

_CYCLES = re.compile(r'"estimated_cycles": ?"(\d+)"')
COLLECTIVES = (
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute",
    "ragged-all-to-all", "reduce-scatter",
)  # fmt: skip
# Names for a value or a part of one; and the ends of what is counted where it starts.
_FREE = frozenset(
    {
        "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota",
        "partition-id", "replica-id", "opt-barrier", "custom-call:ConcatBitcast", "add-dependency",
        "custom-call:AllocateBuffer",
    }
)  # fmt: skip
# What keeps a core busy while a collective is under way.
_COMPUTES = frozenset({"fusion", "dot", "convolution", "custom-call", "while", "conditional"})


@dataclasses.dataclass(frozen=True)
class Collective:
    """A data exchange of one step on one device.

    Attributes:
      kind: such as ``all-reduce``; ``between slices`` for one over the data-center network.
      bytes: of its largest operand or result on a device, without padding.
      sent: bytes that the device sends, by a ring algorithm.
      devices: that take part in one group.
      times: how often it runs in a step.
      overlaps: whether computation runs between its start and its end.
    """

    kind: str
    bytes: int
    sent: int
    devices: int
    times: int
    overlaps: bool


@dataclasses.dataclass(frozen=True)
class Summary:
    """One device's part of one step.

    Attributes:
      hbm_bytes: read from and written to the main memory.
      cycles: the compiler's estimate for all that it has one for; 0 where it gives none.
      collectives: in the order of the program.
      unknown_loops: loops whose number of turns the text does not say; they count as one turn.
    """

    hbm_bytes: int
    cycles: int
    collectives: tuple[Collective, ...]
    unknown_loops: int


def summary(text: str, devices: int) -> Summary:
    """Traffic, cycles and collectives of a compiled step.

    Args:
      text: optimised HLO of the program of one device.
      devices: of the mesh.

    Raises:
      ValueError: the text is not HLO.
    """
    program = Program(text)
    total, cycles = 0, 0
    exchanges: list[Collective] = []
    for name, times in program.runs.items():
        body = program.computations[name]
        arrays = {each.name: each.arrays for each in body}
        for each in body:
            total += times * _traffic(program, each, arrays)
            cycles += times * int(m[1] if (m := _CYCLES.search(each.text)) else 0)
        exchanges += _collectives(program, body, times, devices)
    return Summary(total, cycles, tuple(exchanges), program.unknown_loops)


def _in_hbm(arrays: tuple[Array, ...]) -> int:
    return sum(each.bytes for each in arrays if each.in_hbm)


def _traffic(program: Program, each: Instruction, arrays: Mapping[str, tuple[Array, ...]]) -> int:
    """Bytes of HBM that an instruction reads and writes; bodies of loops count by themselves."""
    opcode = each.opcode
    if opcode in _FREE or opcode.endswith("-done") or opcode in ("while", "conditional", "call"):
        return 0
    if opcode == "copy-start":  # destination, source, context
        return _in_hbm(each.arrays[:2])
    if opcode == "slice-start":  # (source), destination, context: as much is read as is written
        source, destination = each.arrays[0], each.arrays[1]
        return destination.bytes * (source.in_hbm + destination.in_hbm)
    operands = [arrays.get(name, ()) for name in each.operands]
    if opcode in ("dynamic-slice", "slice", "gather"):
        written = _in_hbm(each.arrays)
        source = operands[0] if operands else ()
        read = sum(a.bytes for a in each.arrays) if any(a.in_hbm for a in source) else 0
        return read + written
    if opcode == "dynamic-update-slice":
        return 2 * _in_hbm(operands[1])
    if opcode in ("send", "recv") or opcode.removesuffix("-start") in COLLECTIVES:
        return sum(map(_in_hbm, operands)) + sum(
            a.bytes
            for a in each.arrays[len(operands) if opcode.endswith("-start") else 0 :]
            if a.in_hbm
        )
    if opcode != "fusion":
        return sum(map(_in_hbm, operands)) + _in_hbm(each.arrays)
    return _fusion_traffic(program, each, operands)


def _fusion_traffic(program: Program, each: Instruction, operands: list[tuple[Array, ...]]) -> int:
    """A parameter of which a fusion reads slices only, and a result of which it writes a slice
    only, count by the slice."""
    body = program.computations.get(each.called.get("calls", ""), [])
    by_name = {inner.name: inner for inner in body}
    total = 0
    for inner in (i for i in body if i.opcode == "parameter"):
        number = int(inner.text)
        operand = operands[number] if number < len(operands) else ()
        if not any(a.in_hbm for a in operand):
            continue
        total += _read(program, body, inner, _in_hbm(operand))
    roots = [i for i in body if i.root]
    results = roots
    if roots and roots[0].opcode == "tuple":
        results = [by_name[name] for name in roots[0].operands]
    for array, result in zip(each.arrays, results, strict=False):
        if not array.in_hbm:
            continue
        origin = _behind(result, by_name)
        if origin.opcode == "dynamic-update-slice":
            update = by_name.get(origin.operands[1])
            total += sum(a.bytes for a in update.arrays) if update else array.bytes
        else:
            total += array.bytes
    return total if results else total + _in_hbm(each.arrays)


def _behind(result: Instruction, by_name: Mapping[str, Instruction]) -> Instruction:
    """What a bitcast renames."""
    while result.opcode == "bitcast" and result.operands and result.operands[0] in by_name:
        result = by_name[result.operands[0]]
    return result


def _read(program: Program, body: list[Instruction], value: Instruction, whole: int) -> int:
    """Bytes that a fused computation reads of a parameter, or of a bitcast of one."""
    total = 0
    for user in (each for each in body if value.name in each.operands):
        if user.opcode in ("dynamic-slice", "slice"):
            total += sum(a.bytes for a in user.arrays)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == value.name:
            continue  # written in place
        elif user.opcode == "bitcast":
            total += _read(program, body, user, whole)
        elif user.opcode == "fusion":  # within this one
            inside = program.computations.get(user.called.get("calls", ""), [])
            parameters = {int(each.text): each for each in inside if each.opcode == "parameter"}
            for number, name in enumerate(user.operands):
                if name == value.name:
                    inner = parameters.get(number)
                    total += _read(program, inside, inner, whole) if inner else whole
        else:
            return whole
    return min(total, whole)


def _collectives(
    program: Program, body: list[Instruction], times: int, devices: int
) -> Iterator[Collective]:
    """The exchanges that stand in a computation or in the fusions that it calls.

    An asynchronous one stands in several fusions, under one channel: it counts once, and it
    overlaps the computation that these fusions do beside it.
    """
    fused: dict[str, list[tuple[str, Instruction]]] = {}
    for i, each in enumerate(body):
        kind = each.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            overlaps = each.opcode.endswith("-start") and _computes_until_done(body, i)
            yield _collective(kind, each, times, devices, overlaps)
        elif each.opcode == "send" and "_xla_megascale" in each.text:
            sent = each.arrays[0].logical
            yield Collective(
                "between slices", sent, sent, devices, times, _computes_until_done(body, i)
            )
        elif each.opcode in ("fusion", "async-start"):
            for inner in program.within(each):
                if inner.opcode.removesuffix("-start") in COLLECTIVES:
                    channel = re.search(r"channel_id=(\d+)", inner.text)
                    key = channel[1] if channel else inner.name
                    fused.setdefault(key, []).append((each.called.get("calls", ""), inner))
    for places in fused.values():
        name, inner = places[0]
        kind = inner.opcode.removesuffix("-start")
        if kind == "all-reduce" and "reduce-scatter" in name:
            kind = "reduce-scatter"
        yield _collective(kind, inner, times, devices, len(places) > 1)


def _computes_until_done(body: list[Instruction], start: int) -> bool:
    """Whether anything is computed between a start and the end that takes its result."""
    for each in body[start + 1 :]:
        if each.opcode.endswith("-done") and body[start].name in each.operands:
            return False
        if each.opcode in _COMPUTES:
            return True
    return False


def _collective(
    kind: str, each: Instruction, times: int, devices: int, overlaps: bool
) -> Collective:
    group = group_size(each.text, devices)
    arrays = each.arrays
    if each.opcode.endswith("-start") and len(arrays) > 1:  # operand, result, contexts
        arrays = (max(arrays, key=lambda a: a.logical),)
    size = sum(a.logical for a in arrays)
    share = (group - 1) / group if group else 0.0
    factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(kind, share)
    if kind == "reduce-scatter" and each.opcode.startswith("reduce-scatter"):
        size *= group  # its result is one part of what is summed
    return Collective(kind, size, round(size * factor), group, times, overlaps)


def group_size(text: str, devices: int) -> int:
    """How many devices exchange data with each other, from an instruction's attributes."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", text):
        return int(found[2])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'([^']+)'", found[2]))
    if "source_target_pairs" in text:
        return 2
    return devices
