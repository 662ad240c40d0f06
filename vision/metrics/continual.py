"""Metrics of class-incremental learning: accuracy after each task, and forgetting."""

from __future__ import annotations

import numpy as np

from vision.metrics.arrays import MetricError


def continual(correct: np.ndarray, sizes: np.ndarray) -> dict[str, float]:
    """Last accuracy, average incremental accuracy and forgetting.

    Args:
      correct: (B, B), number of correct predictions on the test records of task k (column) after
        stage b (row), among the classes of stages 0..b; entries with k > b are not read.
      sizes: (B,), number of test records of each task, all positive.

    Returns:
      ``last``, the accuracy on all tasks after the last stage; ``average``, the mean over stages
      of the accuracy on the tasks so far; ``forgetting``, the mean over tasks but the last of the
      best accuracy of a task at any stage minus its final one (0 for a single task).

    Raises:
      MetricError: shapes that do not match, or a task without records.
    """
    correct, sizes = np.asarray(correct, np.float64), np.asarray(sizes, np.float64)
    stages = len(sizes)
    if correct.shape != (stages, stages) or stages == 0 or sizes.min() <= 0:
        raise MetricError(f"correct {correct.shape} and sizes {sizes.shape}: (B, B) and (B,) > 0")
    stage_accuracy = [
        float(correct[b, : b + 1].sum() / sizes[: b + 1].sum()) for b in range(stages)
    ]
    accuracy = correct / sizes
    forgotten = [accuracy[k:, k].max() - accuracy[-1, k] for k in range(stages - 1)]
    return {
        "last": stage_accuracy[-1],
        "average": float(np.mean(stage_accuracy)),
        "forgetting": float(np.mean(forgotten)) if forgotten else 0.0,
    }


def memory_in_examples(floats: int, example_bytes: int) -> int:
    """How many stored examples take as much memory as ``floats`` float32 numbers, rounded down."""
    return floats * 4 // example_bytes
