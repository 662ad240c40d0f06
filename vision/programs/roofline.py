"""What a step that was compiled for a device can reach there: memory, exchanges, a roofline.

Four times have to pass in a step at least: that of the model's products at the chip's peak, of
what goes through its main memory, of what it sends to its neighbours, and to other slices. The
longest is the bound; the first over it the highest MFU that this program can have. Beside it
stands the compiler's own estimate, cycle by cycle, of what it generated.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vision.parallel.chips import Chip
from vision.run.hlo import Collective, Summary

_MEMORY = {
    "arguments": "state and batch",
    "temporaries": "gradients, activations and other temporaries",
    "outputs": "outputs that do not take the place of the old state",
    "code": "the program",
}
_REFUSED = (
    r"required for HLO temporaries \((?P<need>[\d.]+)(?P<unit>[KMGT]?)\) exceeds available "
    r"HBM \((?P<have>[\d.]+)(?P<unit2>[KMGT]?)\)",
    r"Used (?P<need>[\d.]+)(?P<unit>[KMGT]?) of (?P<have>[\d.]+)(?P<unit2>[KMGT]?) hbm",
)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclasses.dataclass(frozen=True)
class Fit:
    """Whether a step fits into a device.

    Attributes:
      needed: bytes; only the temporaries where the compiler gave up (``refused``).
      available: bytes; None where they are not known.
      parts: kind to bytes, which add up to ``needed``.
      refused: the compiler gave up, and there is no program.
    """

    needed: int
    available: int | None
    parts: Mapping[str, int]
    refused: bool = False

    @property
    def fits(self) -> bool | None:
        """None where the available bytes are not known."""
        if self.refused:
            return False
        return None if self.available is None else self.needed <= self.available


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Least seconds of one step on one device, by what has to pass in them.

    Attributes:
      seconds: ``products``, ``memory``, ``interconnect``, ``slices``; without those whose peak is
        not published.
      estimate_s: the compiler's; None where it gives none.
    """

    seconds: Mapping[str, float]
    estimate_s: float | None

    @property
    def bound(self) -> str:
        """Which takes longest."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def ceiling(self) -> float:
        """The highest MFU, in (0, 1]."""
        return self.seconds["products"] / self.seconds[self.bound]

    @property
    def estimate(self) -> float | None:
        """MFU by the compiler's estimate."""
        return self.seconds["products"] / self.estimate_s if self.estimate_s else None


def fit_of(memory: Mapping[str, int], available: int | None) -> Fit:
    """From the compiler's count (``vision.run.compile.Compiled.memory``)."""
    parts = {name: memory.get(name, 0) for name in _MEMORY}
    parts["outputs"] -= memory.get("reused", 0)
    return Fit(sum(parts.values()), available, parts)


def refusal(message: str) -> Fit | None:
    """From the compiler's error; None where it is another one than too little memory."""
    for pattern in _REFUSED:
        if found := re.search(pattern, message):
            need, have = (
                round(float(found[value]) * 2 ** _UNITS[found[unit]])
                for value, unit in (("need", "unit"), ("have", "unit2"))
            )
            return Fit(need, have, {"temporaries": need}, refused=True)
    return None


def roofline(
    summary: Summary, flops_per_device: float, chip: Chip, dtype: str, share: float = 1.0
) -> Roofline:
    """Args:
    summary: of the compiled step.
    flops_per_device: model FLOPs of a step, without recomputation.
    chip: its peaks.
    dtype: of the products, ``bfloat16`` or another that the chip multiplies in it.
    share: of a chip that a device is: 0.5 where the compiler sees the cores of a chip one by one.
    """
    peak = (chip.bfloat16 if dtype != "float16" else chip.float16) or 0.0
    sent, between = 0.0, 0.0
    for each in summary.collectives:
        if each.kind == "between slices":
            between += each.times * each.sent
        else:
            # A permutation goes to one neighbour, by one link.
            links = max(chip.links, 1) if each.kind == "collective-permute" else 1
            sent += each.times * each.sent * links
    seconds = {"products": flops_per_device / (peak * share * 1e12)}
    if chip.hbm_gb_s:
        seconds["memory"] = summary.hbm_bytes / (chip.hbm_gb_s * share * 1e9)
    if chip.link_gb_s:
        seconds["interconnect"] = sent / (chip.link_gb_s * share * 1e9)
    if chip.slice_gb_s and between:
        seconds["slices"] = between / (chip.slice_gb_s * share * 1e9)
    cycles = summary.cycles / (chip.clock_ghz * 1e9) if chip.clock_ghz else 0.0
    return Roofline(seconds, cycles or None)


def by_kind(collectives: tuple[Collective, ...]) -> dict[str, dict[str, int]]:
    """Kind to ``count``, ``bytes`` (of the arrays) and ``overlapped`` (so many of the count)."""
    found: dict[str, dict[str, int]] = collections.defaultdict(
        lambda: {"count": 0, "bytes": 0, "overlapped": 0}
    )
    for each in collectives:
        row = found[each.kind]
        row["count"] += each.times
        row["bytes"] += each.times * each.bytes
        row["overlapped"] += each.times * each.overlaps
    return dict(sorted(found.items()))


def show_fit(fit: Fit) -> str:
    """``fits: 2.75 of 15.75 GiB`` and the parts."""
    gib = 2**30
    needed = f"{fit.needed / gib:,.2f}"
    if fit.available is None:
        lines = [f"needs {needed} GiB on a device; how much it has is not known"]
    elif fit.fits:
        lines = [f"fits: {needed} of {fit.available / gib:,.2f} GiB"]
    else:
        over = (fit.needed - fit.available) / gib
        what = "temporaries alone need " if fit.refused else ""
        lines = [
            f"does not fit: {what}{needed} of {fit.available / gib:,.2f} GiB, "
            f"{over:,.2f} GiB too much (--advise tries what would make it fit)"
        ]
    lines += [
        f"  {size / gib:8,.2f} GiB  {_MEMORY[name]}" for name, size in fit.parts.items() if size
    ]
    return "\n".join(lines)


def show_summary(summary: Summary) -> str:
    """The collectives, a line per kind."""
    lines = [
        f"  {row['count']:5d} {kind}: {row['bytes'] / 1e6:,.1f} MB, {row['overlapped']} overlapped"
        for kind, row in by_kind(summary.collectives).items()
    ]
    if not lines:
        return "no exchange between devices"
    head = "exchanges of a step, and how many of them run while something is computed:"
    return "\n".join([head, *lines])


def show_roofline(found: Roofline, summary: Summary, flops_per_device: float) -> str:
    """The times in milliseconds, the bound and the ceilings."""
    amounts = {
        "products": f"{flops_per_device / 1e12:.3g} TFLOP",
        "memory": f"{summary.hbm_bytes / 1e9:.3g} GB through HBM",
        "interconnect": "sent to neighbours",
        "slices": "sent to other slices",
    }
    lines = ["least time of a step:"]
    for name, seconds in found.seconds.items():
        lines.append(f"  {seconds * 1e3:9.3f} ms  {name}: {amounts[name]}")
    lines.append(f"bound: {found.bound}; MFU at most {found.ceiling:.2f}")
    if found.estimate is not None and found.estimate_s is not None:
        lines.append(
            f"the compiler's estimate of its program: {found.estimate_s * 1e3:.3f} ms, "
            f"MFU {found.estimate:.2f}"
        )
    if summary.unknown_loops:
        lines.append(
            f"{summary.unknown_loops} loop(s) whose number of turns the data decides count as one"
        )
    return "\n".join(lines)


def as_json(fit: Fit, summary: Summary | None, found: Roofline | None) -> dict[str, Any]:
    """The same for machines; bytes and seconds."""
    rows: dict[str, Any] = {
        "fits": fit.fits,
        "needed_bytes": fit.needed,
        "available_bytes": fit.available,
        "memory": dict(fit.parts),
    }
    if summary is not None:
        rows["hbm_bytes"] = summary.hbm_bytes
        rows["collectives"] = by_kind(summary.collectives)
        rows["unknown_loops"] = summary.unknown_loops
    if found is not None:
        rows |= {
            "seconds": dict(found.seconds),
            "bound": found.bound,
            "mfu_ceiling": found.ceiling,
            "estimate_seconds": found.estimate_s,
            "estimate_mfu": found.estimate,
        }
    return rows
