"""The text of optimised HLO as computations, instructions and arrays."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^{}]*\})?")
_LINE = re.compile(r"^\s*(ROOT )?%([\w.-]+) = (.*)$")
_OPCODE = re.compile(r"([\w-]+)\(")
_CALLED = re.compile(r"(calls|to_apply|body|condition)=%([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_NAMES = re.compile(r"%([\w.-]+)")
_SPACE = re.compile(r"S\((\d+)\)")
_TILE = re.compile(r":T\(([\d,]+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in the program.

    Attributes:
      logical: bytes of its elements.
      bytes: as laid out, with tiles padded.
      in_hbm: whether it is in HBM; otherwise in the chip's own memory.
    """

    logical: int
    bytes: int
    in_hbm: bool


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: such as ``fusion.3`` and ``fusion``.
      arrays: of the result, leaf by leaf.
      operands: names.
      called: role (``calls``, ``body``, ...) to name of a computation.
      text: what stands behind the operands.
      root: whether it is the computation's result.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    called: Mapping[str, str]
    text: str
    root: bool


class Program:
    """A parsed module: computations by name, and its entry."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] | None = None
        for line in _whole_lines(text):
            if line.endswith("{") and line.startswith(("%", "ENTRY")):
                name = line.removeprefix("ENTRY ").lstrip("%").split(" ", 1)[0]
                current = self.computations[name] = []
                if line.startswith("ENTRY"):
                    self.entry = name
            elif line.startswith("}"):
                current = None
            elif current is not None and (found := _LINE.match(line)):
                current.append(_instruction(found[2], found[3], bool(found[1])))
        if not self.entry:
            raise ValueError("the text has no ENTRY computation: it is not HLO")

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """Computation to how often it runs in one step; fused and applied ones are not in it."""
        times: dict[str, int] = {}
        self.unknown_loops = 0

        def visit(name: str, count: int) -> None:
            times[name] = times.get(name, 0) + count
            for each in self.computations[name]:
                if each.opcode == "while":
                    turns = self._turns(each)
                    self.unknown_loops += turns is None
                    visit(each.called["body"], count * (turns or 1))
                elif each.opcode in ("call", "async-start"):
                    for role in ("calls", "to_apply"):
                        if role in each.called:
                            visit(each.called[role], count)
                elif each.opcode == "conditional":
                    # One branch runs: count the longest, as the slowest device does.
                    names = _branches(each)
                    visit(max(names, key=lambda n: len(self.computations[n])), count)

        visit(self.entry, 1)
        return times

    def _turns(self, loop: Instruction) -> int | None:
        """How often a loop's body runs: known, or the constant its counter is compared with."""
        if found := _TRIPS.search(loop.text):
            return int(found[1])
        condition = self.computations[loop.called["condition"]]
        limits = [each.text for each in condition if each.opcode == "constant"]
        numbers = [int(text) for text in limits if re.fullmatch(r"\d+", text)]
        return max(numbers) if numbers else None

    def within(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instructions of the fused computation that an instruction calls, at any depth."""
        for each in self.computations.get(instruction.called.get("calls", ""), ()):
            yield each
            yield from self.within(each)


def _whole_lines(text: str) -> Iterator[str]:
    """The lines; what a kernel says of itself, JSON over several lines, in that of its call."""
    open_line = ""
    for line in text.splitlines():
        if not open_line and not (line.startswith(" ") and line.endswith("{")):
            yield line
            continue
        open_line += line
        if open_line.count("{") == open_line.count("}"):
            yield open_line
            open_line = ""


def _branches(each: Instruction) -> list[str]:
    found = _BRANCHES.search(each.text)
    names = _NAMES.findall(found[1]) if found else []
    return names or re.findall(r"(?:true|false)_computation=%([\w.-]+)", each.text)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    shape, rest = _split_shape(rest)
    found = _OPCODE.match(rest)
    assert found is not None, f"{name}: no operation in {rest[:80]!r}"
    opcode = found[1]
    end = _closing(rest, found.end() - 1)
    inside, text = rest[found.end() : end], rest[end + 1 :]
    if opcode == "constant" or opcode == "parameter":
        text = inside
    if opcode == "custom-call" and (
        target := re.search(r'custom_call_target="(ConcatBitcast|AllocateBuffer)"', text)
    ):
        opcode = f"custom-call:{target[1]}"
    return Instruction(
        name,
        opcode,
        tuple(_array(*each) for each in _ARRAY.findall(shape)),
        tuple(_NAMES.findall(inside)),
        dict(_CALLED.findall(text)),
        text,
        root,
    )


def _split_shape(text: str) -> tuple[str, str]:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    return text[:end], text[end:].lstrip()


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"a parenthesis is not closed in {text[:80]!r}")


def _array(dtype: str, sizes: str, layout: str) -> Array:
    shape = [int(n) for n in sizes.split(",") if n]
    bits = _BITS.get(dtype)
    if bits is None:
        digits = re.search(r"\d+", dtype)
        bits = int(digits[0]) if digits else 8
    logical = math.prod(shape) * bits // 8
    place = _SPACE.search(layout)
    order = [int(n) for n in layout.strip("{").split(":")[0].strip("}").split(",") if n.isdigit()]
    padded = [shape[i] for i in order] if len(order) == len(shape) else shape
    if found := _TILE.search(layout):
        tile = [int(n) for n in found[1].split(",")][::-1]
        for i, side in enumerate(tile[: len(padded)]):
            padded[i] = -(-padded[i] // side) * side
    return Array(logical, math.prod(padded) * bits // 8, place is None)
