"""Whether a claim held, was refuted, or is undecided, from the numbers of its seeds.

Every seed gives a pair: the method and its baseline from the same start on the same batches. A
comparison says something only where its ``gates`` pass for every seed; then the 95 % interval of
the mean paired difference (Student's t) decides:

    held        the interval lies above the margin
    refuted     the interval lies below zero
    undecided   anything else, or a gate that failed

The margin is stated in the claim's file with the rule that it comes from, before the first run.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

from vision.papers.measured import Measured

HELD, REFUTED, UNDECIDED = OUTCOMES = ("held", "refuted", "undecided")
LEAST_PAIRS = 5
CONFIDENCE = 0.95
REACH = 0.97  # of the scale; what is nearer to its end cannot be told apart


@dataclasses.dataclass(frozen=True)
class Margin:
    """By how much the method has to be better.

    Attributes:
      value: in the unit of what is compared, 0 or more.
      rule: how it follows from the effect that the authors report, in words.
    """

    value: float
    rule: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value >= 0):
            raise ValueError(f"margin is {self.value!r}, not a number from 0 on")
        if not isinstance(self.rule, str) or not self.rule.strip():
            raise ValueError(f"rule of the margin is {self.rule!r}, not a text")


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of what is compared. The better end is ``best``: (1, 0) is that of an error.

    Attributes:
      worst: the value at the bad end.
      best: the value at the good end, another one.
      chance: what guessing gets; None where guessing means nothing, and then a premise has to say
        that the baseline has learned its task.
    """

    worst: float = 0.0
    best: float = 1.0
    chance: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.best - self.worst) or self.best == self.worst:
            raise ValueError(f"scale from {self.worst!r} to {self.best!r} has no length")

    def place(self, value: float) -> float:
        """0 at the worst end, 1 at the best one."""
        return (value - self.worst) / (self.best - self.worst)

    def gain(self, method: float, baseline: float) -> float:
        """By how much the method is better, in the unit of what is compared."""
        return (method - baseline) * math.copysign(1.0, self.best - self.worst)


@dataclasses.dataclass(frozen=True)
class Premise:
    """What has to be so, in every seed, before the comparison means anything.

    Attributes:
      what: a quantity and its unit.
      values: a number for every seed.
      at_least: the least that will do; None for no such bound.
      at_most: the most that will do; None for no such bound.
    """

    what: str
    values: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if not self.values or not all(math.isfinite(value) for value in self.values):
            raise ValueError(f"premise {self.what!r}: values are {self.values}")
        if self.at_least is None and self.at_most is None:
            raise ValueError(f"premise {self.what!r} has no bound: at_least or at_most")

    @property
    def holds(self) -> bool:
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return all(low <= value <= high for value in self.values)

    def __str__(self) -> str:
        bounds = []
        if self.at_least is not None:
            bounds.append(f"at least {self.at_least:.3g}")
        if self.at_most is not None:
            bounds.append(f"at most {self.at_most:.3g}")
        low, high = min(self.values), max(self.values)
        seen = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
        return f"{self.what} is {seen}, wanted {' and '.join(bounds)}"


@dataclasses.dataclass(frozen=True)
class Gate:
    """One condition, and what was seen of it.

    Attributes:
      name: pairs, chance, reach, premise or control.
      passed: in every seed.
      says: one line for readers.
    """

    name: str
    passed: bool
    says: str


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much the method is better, pair by pair.

    Attributes:
      values: of every pair; positive where the method is better.
      mean: of the values.
      low: lower end of the 95 % interval of the mean; -inf for a single pair.
      high: its upper end.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"


def difference(compared: Measured, scale: Scale) -> Difference:
    """Paired differences and their interval.

    Raises:
      ValueError: there is no baseline, or not a number of it for every one of the method.
    """
    baseline = compared.baseline
    if baseline is None or len(baseline.values) != len(compared.method.values):
        raise ValueError(f"{compared.what}: the method and its baseline do not come in pairs")
    values = tuple(map(scale.gain, compared.method.values, baseline.values))
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Difference(values, mean, -math.inf, math.inf)
    half = stdtrit(n - 1, (1 + CONFIDENCE) / 2) * statistics.stdev(values) / math.sqrt(n)
    return Difference(values, mean, float(mean - half), float(mean + half))


def gates(
    compared: Measured,
    margin: Margin,
    scale: Scale,
    premises: Sequence[Premise],
    control: Measured | None,
) -> tuple[Gate, ...]:
    """All conditions of a comparison, those that failed included.

    Args:
      compared: the method and its baseline.
      margin: by which the method has to be better.
      scale: of what is compared.
      premises: of the paper.
      control: the same comparison where the method cannot work, such as with shuffled attention;
        it must not hold. None where there was none, which is a gate that fails.
    """
    pairs = len(difference(compared, scale).values)
    assert compared.baseline is not None
    return (
        Gate("pairs", pairs >= LEAST_PAIRS, f"{pairs} pairs, wanted {LEAST_PAIRS}"),
        _above_chance(compared.baseline.values, scale, premises),
        _in_reach(compared.baseline.values, margin, scale),
        *(Gate("premise", premise.holds, str(premise)) for premise in premises),
        _control(control, margin, scale),
    )


def _above_chance(values: Sequence[float], scale: Scale, premises: Sequence[Premise]) -> Gate:
    """Twice chance; where that is far along the scale, as for an AUROC, half-way to its end."""
    if scale.chance is None:
        return Gate("chance", bool(premises), "no level of chance; premises take its place")
    chance = scale.place(scale.chance)
    wanted = min(2 * chance, (1 + chance) / 2)
    worst = min(values, key=scale.place)
    wanted_value = scale.worst + wanted * (scale.best - scale.worst)
    says = f"baseline is {worst:.3g} at its worst, wanted {wanted_value:.3g}; chance is "
    return Gate("chance", scale.place(worst) >= wanted, f"{says}{scale.chance:.3g}")


def _in_reach(values: Sequence[float], margin: Margin, scale: Scale) -> Gate:
    length = abs(scale.best - scale.worst)
    best = max(values, key=scale.place)
    at = scale.place(best) + margin.value / length
    says = (
        f"best baseline {best:.3g} and the margin are at {at:.0%} of the scale, wanted {REACH:.0%}"
    )
    return Gate("reach", at <= REACH, f"{says} at most")


def _control(control: Measured | None, margin: Margin, scale: Scale) -> Gate:
    if control is None:
        return Gate("control", False, "no negative control was run")
    seen = difference(control, scale)
    passed = len(seen.values) >= LEAST_PAIRS and not seen.low > margin.value
    says = f"{control.what}, {control.method.name}: {seen} of {len(seen.values)} pairs"
    return Gate("control", passed, f"{says}, must not be above the margin")


def decide(seen: Difference, margin: Margin, of_gates: Sequence[Gate]) -> str:
    """One of ``OUTCOMES``."""
    if not all(gate.passed for gate in of_gates):
        return UNDECIDED
    if seen.low > margin.value:
        return HELD
    return REFUTED if seen.high < 0 else UNDECIDED
