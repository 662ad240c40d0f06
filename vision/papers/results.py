"""What claims found: ``result.json`` in the folder of a paper.

Numbers of every seed are kept. Means, spreads, the interval, the outcome and the gates that failed
stand beside them, for readers of the file; they are computed from the numbers, and a file in which
they are not is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.config.errors import UserError
from vision.papers.measured import Measured, Parity, Side
from vision.papers.outcome import (
    Difference,
    Gate,
    Margin,
    Premise,
    Scale,
    decide,
    difference,
    gates,
)


class ResultError(UserError):
    """A result that is not one."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a claim found.

    Attributes:
      claim: one sentence.
      compared: the quantity that decides, of the method and its baseline, in pairs.
      margin: by which the method has to be better.
      scale: of what is compared.
      premises: what has to be so for the comparison to mean anything.
      control: the comparison where the method cannot work; None where there was none.
      measured: what was seen besides, and decides nothing.
      seeds: of the runs; empty where nothing is random.
      seconds: of processor time for the whole claim, which a busy machine changes less than
        the time on the wall.
      parity: with a public implementation; None without one.
      depends: path of every file it depends on, from the root, to the hash of what it uses there.
    """

    claim: str
    compared: Measured
    margin: Margin
    scale: Scale
    premises: tuple[Premise, ...]
    control: Measured | None
    measured: tuple[Measured, ...]
    seeds: tuple[int, ...]
    seconds: float
    parity: Parity | None
    depends: Mapping[str, str]

    def __post_init__(self) -> None:
        """Raises ValueError where a comparison does not come in pairs."""
        _ = self.difference, self.gates

    @functools.cached_property
    def difference(self) -> Difference:
        """Of the method and its baseline."""
        return difference(self.compared, self.scale)

    @functools.cached_property
    def gates(self) -> tuple[Gate, ...]:
        """Conditions of the comparison."""
        return gates(self.compared, self.margin, self.scale, self.premises, self.control)

    @property
    def failed(self) -> tuple[Gate, ...]:
        """Gates that did not pass."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def outcome(self) -> str:
        """One of ``outcome.OUTCOMES``."""
        return decide(self.difference, self.margin, self.gates)

    @property
    def all_measured(self) -> tuple[Measured, ...]:
        """What decides, the control, and what was seen besides."""
        control = () if self.control is None else (self.control,)
        return (self.compared, *control, *self.measured)

    @property
    def reasons(self) -> list[str]:
        """A line on the difference, and one for every gate that failed."""
        failed = [f"{gate.name}: {gate.says}" for gate in self.failed]
        margin = f"margin {self.margin.value:.3g}"
        return [f"paired difference {self.difference}, 95 % interval; {margin}", *failed]


def write(result: Result, path: Path) -> None:
    """Writes a result, and what follows from its numbers beside them."""
    plain = dataclasses.asdict(result)
    written = [plain["compared"], *plain["measured"]]
    written += [] if result.control is None else [plain["control"]]
    for measured in written:
        for name in ("method", "baseline"):
            if measured[name] is not None:
                side = Side(**measured[name])
                measured[name] |= {"mean": side.mean, "spread": side.spread}
    plain = _derived(result) | plain
    path.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _derived(result: Result) -> dict[str, Any]:
    seen = result.difference
    interval = [seen.low, seen.high] if math.isfinite(seen.low) else None
    failed = [gate.name for gate in result.failed]
    return {"outcome": result.outcome, "interval": interval, "failed": failed}


def read(path: Path) -> Result:
    """Reads a result.

    Raises:
      ResultError: not JSON, an entry too many or too few, or one of a wrong kind; it says which.
    """
    try:
        return _result(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise ResultError(f"{path}: there is no {error}; record the claim again") from error
    except (OSError, TypeError, ValueError, AttributeError) as error:
        reason = str(error) or type(error).__name__
        raise ResultError(f"{path}: {reason}; record the claim again") from error


def _result(plain: Any) -> Result:
    derived = {name: plain.pop(name) for name in ("outcome", "interval", "failed")}
    parts = {
        "compared": _measured(plain["compared"]),
        "margin": Margin(**plain["margin"]),
        "scale": Scale(**plain["scale"]),
        "premises": tuple(
            Premise(**{**each, "values": tuple(each["values"])}) for each in plain["premises"]
        ),
        "control": None if plain["control"] is None else _measured(plain["control"]),
        "measured": tuple(_measured(each) for each in plain["measured"]),
        "seeds": tuple(plain["seeds"]),
        "parity": None if plain["parity"] is None else Parity(**plain["parity"]),
    }
    result = Result(**{**plain, **parts})
    _text(result.claim, "claim")
    if any(type(seed) is not int for seed in result.seeds):
        raise ValueError(f"seeds are {result.seeds!r}, not whole numbers")
    if not (math.isfinite(result.seconds) and result.seconds >= 0):
        raise ValueError(f"seconds is {result.seconds!r}")
    if not result.depends:
        raise ValueError("depends must not be empty")
    for name, expected in _derived(result).items():
        if not _same(derived[name], expected):
            raise ValueError(f"{name} {derived[name]!r} is not that of the numbers, {expected!r}")
    return result


def _same(written: Any, expected: Any) -> bool:
    if not isinstance(expected, list) or not all(isinstance(each, float) for each in expected):
        return written == expected
    return len(written) == len(expected) and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
        for a, b in zip(written, expected, strict=True)
    )


def _measured(plain: Mapping[str, Any]) -> Measured:
    baseline = None if plain["baseline"] is None else _side(plain["baseline"])
    return Measured(_text(plain["what"], "what"), _side(plain["method"]), baseline)


def _side(plain: Mapping[str, Any]) -> Side:
    side = Side(_text(plain["name"], "name"), tuple(plain["values"]))
    if not side.values or not all(math.isfinite(value) for value in side.values):
        raise ValueError(f"{side.name}: values are {side.values}")
    for name in ("mean", "spread"):
        if not math.isclose(plain[name], getattr(side, name), rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"{side.name}: {name} {plain[name]} is not that of its values")
    return side


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r}, not a text")
    return value
