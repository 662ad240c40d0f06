"""What all measures ask of their arrays, and the two sums that many of them share.

Three kinds of trouble, three answers. An argument of the wrong kind or shape is the caller's
mistake: ``ValueError``. Data that a measure is not defined for (NaN among scores that are to be
sorted, a label beyond the classes, a single class) is ``MetricError``, which names the array, how
many of its rows are at fault and the first. A measure of nothing (no examples, no positives) is
NaN, never 0, and the count beside it says why. Where NaN scores make a NaN or a wrong answer
instead, the measure says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vision.config.errors import UserError

_CELLS = 2**22  # of float64 at a time: 32 MiB


class MetricError(UserError):
    """Scores, labels or features that a measure is not defined for."""


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices of ``rows`` rows, so that a block of rows of ``width`` float64 stays small."""
    step = max(1, _CELLS // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def matrix(name: str, x: Any) -> np.ndarray:
    """``x`` as an array of real numbers (N, K), its dtype kept.

    Raises:
      ValueError: not 2-D, no columns, or not real numbers that numpy knows (bool, bfloat16).
    """
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] == 0 or x.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} is {x.dtype}{list(x.shape)}; it must be real numbers (N, K), K > 0"
        )
    return x


def vector(name: str, x: Any, rows: int | None = None) -> np.ndarray:
    """``x`` as float64 (N,).

    Raises:
      ValueError: not 1-D, not real numbers or bool, or not ``rows`` long.
    """
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind not in "fiub" or (rows is not None and len(x) != rows):
        wanted = "N" if rows is None else rows
        raise ValueError(f"{name} is {x.dtype}{list(x.shape)}; it must be real numbers ({wanted},)")
    return x.astype(np.float64)


def whole(name: str, x: Any, rows: int | None, classes: int | None) -> np.ndarray:
    """``x`` as int64 (N,): labels, where -1 means unlabelled.

    Raises:
      ValueError: not integers, not 1-D, not ``rows`` long.
      MeasureError: a number outside -1..classes-1.
    """
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind not in "iu" or (rows is not None and len(x) != rows):
        wanted = "N" if rows is None else rows
        raise ValueError(f"{name} is {x.dtype}{list(x.shape)}; it must be integers ({wanted},)")
    top = np.inf if classes is None else classes
    at = np.flatnonzero((x < -1) | (x >= top))
    if len(at):
        span = "-1 or more" if classes is None else f"-1 (unlabelled) or 0..{classes - 1}"
        raise MetricError(
            f"{name}: {len(at)} of {len(x)} are out of range, the first is {x[at[0]]} in row "
            f"{at[0]}; a label is {span}: compare the label order of the data with the model's"
        )
    return x.astype(np.int64)


def bits(name: str, x: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """``x`` as bool of ``shape``, where None is any length; bool, or integers 0 and 1.

    Raises:
      ValueError: another shape, or anything else than 0 and 1.
    """
    x = np.asarray(x)
    fits = x.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(x.shape, shape, strict=True)
    )
    if (
        not fits
        or x.dtype.kind not in "biu"
        or (x.dtype.kind != "b" and ((x != 0) & (x != 1)).any())
    ):
        wanted = ", ".join("N" if want is None else str(want) for want in shape)
        raise ValueError(
            f"{name} is {x.dtype}{list(x.shape)}; it must be bool or 0 and 1 ({wanted})"
        )
    return x.astype(bool)


def defined(name: str, x: np.ndarray, finite: bool = False) -> np.ndarray:
    """``x``, when none of it is NaN (``finite``: nor infinite).

    Raises:
      MeasureError: with the number of such rows, and the first.
    """
    bad = ~np.isfinite(x) if finite else np.isnan(x)
    at = np.flatnonzero(bad.any(tuple(range(1, x.ndim))))
    if len(at):
        what = "NaN or infinity" if finite else "NaN"
        raise MetricError(
            f"{name}: {len(at)} of {len(x)} rows hold {what}, the first is row {at[0]}; look at "
            "what the model makes of that example, or leave such rows out and say how many"
        )
    return x


def predictions(scores: np.ndarray) -> np.ndarray:
    """The best class per row of ``scores`` (N, K), int64 (N,).

    The lowest index among equal scores. -1 where a row holds NaN: no class is predicted, so the
    example is wrong whatever its label, and ``(predictions == -1).sum()`` counts them.
    """
    scores = matrix("scores", scores)
    best = np.zeros(len(scores), np.int64)
    for rows in blocks(*scores.shape):
        part = scores[rows]
        best[rows] = np.where(np.isnan(part).any(1), -1, part.argmax(1))
    return best


def softmax_parts(scores: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """``top`` and ``rest``, float64 (N,), of ``log p_k = (scores_k - top) / temperature - rest``.

    ``top`` is the largest of a row, ``rest`` in 0..log K. In two parts no digits are lost to the
    size of the scores: the largest probability is ``exp(-rest)``. Minus infinity is a class of
    probability zero. ``rest`` is NaN where no probabilities are defined: rows with NaN, with plus
    infinity, or of minus infinity alone.
    """
    top, rest = np.zeros(len(scores)), np.zeros(len(scores))
    for rows in blocks(*scores.shape):
        part = scores[rows].astype(np.float64)
        top[rows] = part.max(1)
        with np.errstate(invalid="ignore"):
            part -= top[rows, None]
            rest[rows] = np.log(np.exp(part / temperature).sum(1))
    return top, rest


def log_normaliser(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``log sum_k exp(scores / temperature)``, float64 (N,).

    NaN where a row holds NaN; plus infinity where it holds that; minus infinity where it holds
    nothing else.
    """
    top, rest = softmax_parts(scores, temperature)
    return np.where(np.isinf(top), top, top / temperature + rest)


def ratio(part: Any, whole_: Any) -> np.ndarray:
    """``part / whole_`` in float64, NaN where ``whole_`` is zero."""
    nan = np.full(np.broadcast(part, whole_).shape, np.nan)
    return np.divide(part, whole_, out=nan, where=np.asarray(whole_) != 0)


def mean(values: np.ndarray) -> float:
    """Mean of ``values`` (N,), NaN of none."""
    return float(values.mean()) if len(values) else float("nan")


def of_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is one of ``valid``."""
    if value not in valid:
        raise ValueError(f"{name}={value!r}; valid are {', '.join(valid)}")


def share(name: str, value: float) -> None:
    """Raises ValueError unless ``value`` is in (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"{name}={value}; it must be between 0 and 1, both left out")
