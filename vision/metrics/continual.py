"""A learner that meets its classes task by task: what it knows after each, and what it forgets."""

from __future__ import annotations

import numpy as np

from vision.metrics.arrays import MetricError


def continual(right: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """The usual numbers of class-incremental learning.

    Args:
      right: (B, B), right answers on the test records of task k (column) after stage b (row),
        among the classes of stages 0..b; entries with k > b are not looked at.
      sizes: (B,), test records of each task, all positive.

    Returns:
      ``last``, the accuracy on all tasks after the last stage; ``average``, the mean over stages
      of the accuracy on the tasks so far; ``forgetting``, the mean over tasks but the last of the
      best accuracy that a task ever had less the one it has in the end (0 for a single task).

    Raises:
      MeasureError: shapes that do not fit, or a task without records.
    """
    right, sizes = np.asarray(right, np.float64), np.asarray(sizes, np.float64)
    stages = len(sizes)
    if right.shape != (stages, stages) or stages == 0 or sizes.min() <= 0:
        raise MetricError(f"right {right.shape} and sizes {sizes.shape}: (B, B) and (B,) > 0")
    after = [float(right[b, : b + 1].sum() / sizes[: b + 1].sum()) for b in range(stages)]
    each = right / sizes
    lost = [each[k:, k].max() - each[-1, k] for k in range(stages - 1)]
    return {
        "last": after[-1],
        "average": float(np.mean(after)),
        "forgetting": float(np.mean(lost)) if lost else 0.0,
    }


def worth_in_examples(floats: int, example_bytes: int) -> int:
    """Stored examples that take the memory of so many float32 numbers, rounded down."""
    return floats * 4 // example_bytes
