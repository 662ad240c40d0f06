"""Checks of the arrays that metrics are computed from, and two sums that many of them share.

Errors are of three kinds. An argument of the wrong dtype or shape is the caller's mistake:
``ValueError``. Data that a metric is not defined for (NaN among scores to be sorted, a label
outside the classes, a single class) is a ``MetricError``, which names the array, the number of
invalid rows and the first of them. A metric without data (no examples, no positives) is NaN, never
0, and is reported with its count. Metrics for which NaN scores give NaN or count as wrong document
that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vision.config.errors import UserError

_CELLS = 2**22  # float64 numbers per block: 32 MiB


class MetricError(UserError):
    """Scores, labels or features that a metric is not defined for."""


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Consecutive slices of ``rows`` rows; with ``width`` float64 columns each is about 32 MiB."""
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
        expected_rows = "N" if rows is None else rows
        raise ValueError(
            f"{name} is {x.dtype}{list(x.shape)}; it must be real numbers ({expected_rows},)"
        )
    return x.astype(np.float64)


def class_indices(name: str, x: Any, rows: int | None, classes: int | None) -> np.ndarray:
    """``x`` as int64 (N,) class indices, where -1 means unlabelled.

    Raises:
      ValueError: not integers, not 1-D, not ``rows`` long.
      MetricError: an index outside -1..classes-1.
    """
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind not in "iu" or (rows is not None and len(x) != rows):
        expected_rows = "N" if rows is None else rows
        raise ValueError(
            f"{name} is {x.dtype}{list(x.shape)}; it must be integers ({expected_rows},)"
        )
    limit = np.inf if classes is None else classes
    invalid = np.flatnonzero((x < -1) | (x >= limit))
    if len(invalid):
        valid_range = "-1 or more" if classes is None else f"-1 (unlabelled) or 0..{classes - 1}"
        raise MetricError(
            f"{name}: {len(invalid)} of {len(x)} are out of range, the first is {x[invalid[0]]} in "
            f"row {invalid[0]}; a label is {valid_range}: compare the label order of the data with "
            "the model's"
        )
    return x.astype(np.int64)


def booleans(name: str, x: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """``x``, which is bool or integers 0 and 1, as bool of ``shape``; None is any length.

    Raises:
      ValueError: another shape, or values other than 0 and 1.
    """
    x = np.asarray(x)
    fits = x.ndim == len(shape) and all(
        size is None or actual == size for actual, size in zip(x.shape, shape, strict=True)
    )
    if (
        not fits
        or x.dtype.kind not in "biu"
        or (x.dtype.kind != "b" and ((x != 0) & (x != 1)).any())
    ):
        expected_shape = ", ".join("N" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{name} is {x.dtype}{list(x.shape)}; it must be bool or 0 and 1 ({expected_shape})"
        )
    return x.astype(bool)


def defined(name: str, x: np.ndarray, finite: bool = False) -> np.ndarray:
    """``x`` unchanged, after checking that it has no NaN (``finite``: nor infinity).

    Raises:
      MetricError: some rows have; the message has their number and the first.
    """
    invalid = ~np.isfinite(x) if finite else np.isnan(x)
    bad_rows = np.flatnonzero(invalid.any(tuple(range(1, x.ndim))))
    if len(bad_rows):
        what = "NaN or infinity" if finite else "NaN"
        raise MetricError(
            f"{name}: {len(bad_rows)} of {len(x)} rows hold {what}, the first is "
            f"row {bad_rows[0]}; check the model on that example, or leave such rows out and "
            "report their number"
        )
    return x


def undefined_rows(scores: np.ndarray) -> np.ndarray:
    """bool (N,): rows of ``scores`` (N, K) that predict no class.

    Their maximum is not finite: they hold NaN or plus infinity, or nothing but minus infinity.
    Minus infinity beside finite scores is a class of probability zero, and such rows are defined.
    """
    return ~np.isfinite(scores.max(1))


def predictions(scores: np.ndarray) -> np.ndarray:
    """The class of largest score per row of ``scores`` (N, K), int64 (N,).

    The lowest index among equal scores. -1 for ``undefined_rows``: no class is predicted, so the
    example is wrong whatever its label, and ``(predictions == -1).sum()`` counts such rows.
    """
    scores = matrix("scores", scores)
    best = np.zeros(len(scores), np.int64)
    for rows in blocks(*scores.shape):
        block = scores[rows]
        best[rows] = np.where(undefined_rows(block), -1, block.argmax(1))
    return best


def softmax_parts(scores: np.ndarray, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """``top`` and ``normaliser``, float64 (N,), of a log-softmax.

    ``log p_k = (scores_k - top) / temperature - normaliser``. ``top`` is the largest score of a
    row, ``normaliser`` in 0..log K. Kept apart, no digits are lost to the size of the scores: the
    largest probability is ``exp(-normaliser)``. Minus infinity is a class of probability zero.
    ``normaliser`` is NaN where no probabilities are defined: rows with NaN, with plus infinity, or
    of minus infinity alone.
    """
    top, normaliser = np.zeros(len(scores)), np.zeros(len(scores))
    for rows in blocks(*scores.shape):
        block = scores[rows].astype(np.float64)
        top[rows] = block.max(1)
        with np.errstate(invalid="ignore"):
            block -= top[rows, None]
            normaliser[rows] = np.log(np.exp(block / temperature).sum(1))
    return top, normaliser


def log_normaliser(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``log sum_k exp(scores / temperature)``, float64 (N,).

    NaN where a row holds NaN; plus infinity where it holds that; minus infinity where it holds
    nothing else.
    """
    top, normaliser = softmax_parts(scores, temperature)
    return np.where(np.isinf(top), top, top / temperature + normaliser)


def ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """``numerator / denominator`` in float64, NaN where ``denominator`` is zero."""
    nan = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=nan, where=np.asarray(denominator) != 0)


def mean(values: np.ndarray) -> float:
    """Mean of ``values`` (N,), NaN if empty."""
    return float(values.mean()) if len(values) else float("nan")


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raises ValueError unless ``value`` is one of ``valid``."""
    if value not in valid:
        raise ValueError(f"{name}={value!r}; valid are {', '.join(valid)}")


def check_fraction(name: str, value: float) -> None:
    """Raises ValueError unless ``value`` lies in the open interval (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"{name}={value}; it must lie strictly between 0 and 1")
