"""Random numbers by name: every draw is a function of (seed, stream, index, purpose) alone.

Only the raw 64-bit output of Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011) is used, because numpy promises it to be the same in every version and on
every platform, which it does not promise for the distributions of ``Generator``.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_SHIFT = np.uint64(11)


@functools.lru_cache(maxsize=1024)
def _word(text: str) -> int:
    """64 bits that depend on ``text`` only (``hash`` differs between processes)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class _Scratch(threading.local):
    """One bit generator a thread: setting its state is ten times faster than making a new one,
    and nothing is carried over, because every draw sets the whole state."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)
        self.state = self.bits.state


_SCRATCH = _Scratch()


@functools.lru_cache(maxsize=1024)
def _key(seed: int, stream: str) -> np.ndarray:
    return np.array([seed & _MASK, _word(stream)], np.uint64)


def uniforms(seed: int, stream: str, index: int, purpose: str, count: int) -> np.ndarray:
    """``count`` float64 numbers in [0, 1); a longer request starts with the shorter one's."""
    state = _SCRATCH.state
    counter = np.array((0, index & _MASK, _word(purpose), 0), np.uint64)
    state["state"] = {"key": _key(seed, stream), "counter": counter}
    _SCRATCH.bits.state = state
    raw = _SCRATCH.bits.random_raw(count)
    raw >>= _SHIFT
    return raw * 2.0**-53


def choice(options: Sequence[T], u: float) -> T:
    """The option that a uniform number in [0, 1) falls on."""
    return options[int(u * len(options))]


def between(limits: tuple[float, float], u: float) -> float:
    """A uniform number moved from [0, 1) to ``limits``."""
    low, high = limits
    return low + (high - low) * u


def spread(seed: int, stream: str, index: int) -> float:
    """Term ``index`` of a low-discrepancy sequence in [0, 1) (additive recurrence, golden ratio).

    Any run of n terms has about n (b - a) of them in [a, b), a few more or fewer, whatever n
    is: class counts drawn with it are close to what was asked, even for rare classes.
    """
    return (((index + 1) * _GOLDEN + _word(f"{stream}/{seed}")) & _MASK) / 2.0**64


@functools.lru_cache(maxsize=256)
def _steps(size: int) -> tuple[int, ...]:
    return tuple(step for step in range(1, max(size, 2)) if math.gcd(step, size) == 1)


def turn(seed: int, stream: str, block: int, size: int) -> tuple[int, int]:
    """Offset and step of a bijection i -> (offset + step * i) % size, one per block."""
    bits = _word(f"{stream}/{seed}/{block}")
    steps = _steps(size)
    return bits % size, steps[(bits >> 32) % len(steps)]


def shares(count: int, allowed: Sequence[int], imbalance: str, skew: float) -> tuple[float, ...]:
    """Expected share of each of ``count`` classes; 0 for those not ``allowed``. Sums to 1.

    Args:
      count: of classes.
      allowed: numbers of the classes that have examples; at least one.
      imbalance: ``none``, ``zipf`` (class c proportional to (c + 1)^-skew) or ``exponential``
        (the last class is ``skew`` times rarer than the first).
      skew: strength of the imbalance.
    """
    if imbalance == "zipf":
        weights = [(c + 1.0) ** -skew for c in range(count)]
    elif imbalance == "exponential":
        weights = [skew ** (-c / max(count - 1, 1)) for c in range(count)]
    else:
        weights = [1.0] * count
    present = set(allowed)
    weights = [w if c in present else 0.0 for c, w in enumerate(weights)]
    return tuple(weight / sum(weights) for weight in weights)


def portion(shares: Sequence[float], quantile: float) -> int:
    """The class that a number in [0, 1) falls on, classes lying in order with their shares."""
    total = 0.0
    for c, share in enumerate(shares):
        total += share
        if quantile < total:
            return c
    return max(c for c, share in enumerate(shares) if share)
