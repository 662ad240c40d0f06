"""Quantities that claims measure, with a number for every seed."""

from __future__ import annotations

import dataclasses
import statistics


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
