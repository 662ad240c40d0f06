"""What claims found: ``result.json`` in the folder of a paper.

Numbers of every seed are kept; means and spreads stand beside them, for readers of the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.config.errors import UserError


class ResultError(UserError):
    """A result that is not one."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two things that are compared.

    Attributes:
      name: what it is called beside the other.
      values: a number for every seed; at least one.
    """

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds; 0 for a single number."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def number(self) -> str:
        """``0.698 ± 0.029``; without a spread for a single number."""
        spread = f" ± {self.spread:.2g}" if len(self.values) > 1 else ""
        return f"{self.mean:.3g}{spread}"

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A quantity, for the method and for what it is compared with.

    Attributes:
      what: its name and unit.
      method: the method's.
      baseline: the other's; None for an error, which is compared with 0.
    """

    what: str
    method: Side
    baseline: Side | None = None

    def __str__(self) -> str:
        against = "" if self.baseline is None else f" against {self.baseline}"
        return f"{self.what}: {self.method}{against}"


@dataclasses.dataclass(frozen=True)
class Parity:
    """Agreement with another implementation.

    Attributes:
      peer: the package that has it.
      version: of the package.
      max_error: the largest difference, relative where the claim says so.
    """

    peer: str
    version: str
    max_error: float

    def __str__(self) -> str:
        return f"{self.peer} {self.version}: {self.max_error:.2g}"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a claim found.

    Attributes:
      claim: one sentence.
      holds: whether it was so.
      measured: at least one quantity.
      seeds: of the runs; empty where nothing is random.
      seconds: of processor time for the whole claim, which a busy machine changes less than
        the time on the wall.
      parity: with a public implementation; None without one.
      depends: path of every file it depends on, from the root, to the hash of what it uses there.
    """

    claim: str
    holds: bool
    measured: tuple[Measured, ...]
    seeds: tuple[int, ...]
    seconds: float
    parity: Parity | None
    depends: Mapping[str, str]

    @property
    def outcome(self) -> str:
        return "held" if self.holds else "not held"


def write(result: Result, path: Path) -> None:
    """Writes a result, its means and spreads beside the numbers they come from."""
    plain = dataclasses.asdict(result)
    for measured, written in zip(result.measured, plain["measured"], strict=True):
        for name in ("method", "baseline"):
            side: Side | None = getattr(measured, name)
            if side is not None:
                written[name] |= {"mean": side.mean, "spread": side.spread}
    path.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", encoding="utf-8")


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
    measured = tuple(
        Measured(
            _text(each["what"], "what"),
            _side(each["method"]),
            None if each["baseline"] is None else _side(each["baseline"]),
        )
        for each in plain["measured"]
    )
    parity = None if plain["parity"] is None else Parity(**plain["parity"])
    result = Result(**{**plain, "measured": measured, "parity": parity})
    result = dataclasses.replace(result, seeds=tuple(result.seeds))
    _text(result.claim, "claim")
    if type(result.holds) is not bool:
        raise ValueError(f"holds is {result.holds!r}, not true or false")
    if any(type(seed) is not int for seed in result.seeds):
        raise ValueError(f"seeds are {result.seeds!r}, not whole numbers")
    if not (math.isfinite(result.seconds) and result.seconds >= 0):
        raise ValueError(f"seconds is {result.seconds!r}")
    if not measured or not result.depends:
        raise ValueError("measured and depends must not be empty")
    return result


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
