"""Axes of charts: round ticks, positions between 0 and 1, and lines thinned for drawing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from vision.report.numbers import number

# Beyond these, the arithmetic of axes itself would leave the range of floats.
SMALLEST, LARGEST = 1e-300, 1e300


@dataclasses.dataclass(frozen=True)
class Axis:
    """Maps values to 0..1. ``low < high``, and both positive on a logarithmic axis.

    Attributes:
      low: value at 0.
      high: value at 1.
      log: logarithmic.
      percent: ticks are written in percent.
    """

    low: float
    high: float
    log: bool = False
    percent: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Positions of finite values, 0..1 inside the axis; NaN stays NaN."""
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                position = np.log(values / self.low) / math.log(self.high / self.low)
            return np.where(values > SMALLEST, position, np.nan)
        return (values - self.low) / (self.high - self.low)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """About ``count`` round values inside the axis, as (position, text)."""
        values = self._log_ticks(count) if self.log else self._linear_ticks(count)
        position = self.place(np.asarray(values, np.float64))
        return [(float(p), self._text(v)) for p, v in zip(position, values, strict=True)]

    def _linear_ticks(self, count: int) -> list[float]:
        step = _round_step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        stride = max(1, math.ceil((high - low) / count))
        for factors in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
            values = [f * 10.0**e for e in range(low, high + 1, stride) for f in factors]
            inside = [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
            if len(inside) >= 3 or stride > 1:
                return inside
        return inside if len(inside) > 1 else self._linear_ticks(count)

    def _text(self, value: float) -> str:
        if self.percent:
            return f"{100 * value:.6g}%"
        if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
            return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
        return number(value, 6).rstrip("0").rstrip(".") if value % 1 else number(value)


def _round_step(step: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= step * (1 - 1e-9))


def fit(values: np.ndarray, *, log: bool = False, percent: bool = False, pad: float = 0.05) -> Axis:
    """The axis that holds all finite values (all positive ones if ``log``), with a margin.

    Values beyond ``LARGEST`` count as not finite.
    """
    usable = values[(np.abs(values) < LARGEST) & ((values > SMALLEST) | (not log))]
    if usable.size == 0:
        return Axis(0.1 if log else 0.0, 1.0, log, percent)
    low, high = float(usable.min()), float(usable.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        high = low  # rounding errors are nothing to zoom into
    if log:
        air = (high / low) ** pad if high > low else 1.5
        return Axis(low / air, high * air, True, percent)
    air = (high - low) * pad if high > low else abs(high) * 0.1 or 1.0
    bottom, top = low - air, high + air
    if low >= 0:
        bottom = max(bottom, 0.0)
    if percent and high <= 1:
        top = min(top, 1.0)
    return Axis(bottom, top if top > bottom else bottom + 1, log, percent)


def trailing_mean(values: np.ndarray, window: int) -> np.ndarray:
    """(N,) mean of each value and up to ``window - 1`` before it; non-finite ones left out."""
    finite = np.isfinite(values)
    # Not a running sum: one huge value would wipe out the digits of all that follow.
    ones = np.ones(min(window, len(values)))
    total = np.convolve(np.where(finite, values, 0.0), ones)[: len(values)]
    count = np.convolve(finite.astype(np.float64), ones)[: len(values)]
    return np.where(finite, total / np.maximum(count, 1), np.nan)


def thin(y: np.ndarray, points: int) -> np.ndarray:
    """Indices of at most about ``points`` values that draw like all of them.

    Values are grouped in order, and of every group the smallest, the largest and a non-finite
    one (a gap in the line) are kept, besides the first and the last of all.
    """
    if len(y) <= points:
        return np.arange(len(y))
    indices = {0, len(y) - 1}
    for group in np.array_split(np.arange(len(y)), max(1, points // 2)):
        values = y[group]
        finite = np.isfinite(values)
        if finite.any():
            indices.add(int(group[np.argmin(np.where(finite, values, np.inf))]))
            indices.add(int(group[np.argmax(np.where(finite, values, -np.inf))]))
        if not finite.all():
            indices.add(int(group[np.argmin(finite)]))
    return np.asarray(sorted(indices))
