"""Early stopping: a run ends when an evaluation's number has not become better for some time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from vision.checkpoint.evaluations import StepEvaluation
from vision.config.ranges import NonNegative, Positive, checked
from vision.config.schema import ConfigError, nearest
from vision.run.cursor import RunCursor


@dataclasses.dataclass(frozen=True)
@checked
class EarlyStop:
    """Ends the run after ``patience`` evaluations in a row without a better value.

    What is counted is saved with every checkpoint: a run that is interrupted and resumed stops at
    the step at which it would have. The learning rate follows ``config.total`` all the same, so
    ``Constant`` suits better than a schedule that reaches 0 only at the end.

    Attributes:
      metric: of an evaluator that runs while training (``evaluate_every``): ``val/top1``.
      patience: evaluations.
      mode: whether the largest or the smallest value is best.
      min_delta: a value is better only if it is by more than this.
    """

    metric: str
    patience: Positive[int] = 5
    mode: Literal["max", "min"] = "max"
    min_delta: NonNegative[float] = 0.0

    @property
    def evaluator(self) -> str:
        return self.metric.partition("/")[0]


def check_metric(policy: EarlyStop | None, evaluator: str, metrics: Mapping[str, float]) -> None:
    """Raises ConfigError where an evaluator does not yield the metric that a run is to stop by."""
    if policy is None or policy.evaluator != evaluator:
        return
    names = [f"{evaluator}/{name}" for name in metrics]
    if policy.metric not in names:
        raise ConfigError(
            f"config.early_stop.metric is {policy.metric!r}, which {evaluator} does not yield"
            f"{nearest(policy.metric, names)}; it yields {', '.join(names)}"
        )


def counted(policy: EarlyStop | None, cursor: RunCursor, result: StepEvaluation) -> RunCursor:
    """The cursor after an evaluation: with a new best value, or one more that was not better.

    A value that is not finite is not better. An evaluator that failed or was not due counts neither
    way.

    Args:
      policy: of the run; None for none.
      cursor: at the step that was evaluated.
      result: what the evaluators that were due gave.
    """
    cursor = dataclasses.replace(cursor, unevaluated=False)
    if policy is None or not result.ran(policy.evaluator) or policy.evaluator in result.failed:
        return cursor
    value = result.metrics.get(policy.metric)
    best = cursor.best_value
    sign = 1 if policy.mode == "max" else -1
    if value is not None and (best is None or sign * (value - best) > policy.min_delta):
        return dataclasses.replace(
            cursor, best_value=value, best_step=cursor.step, evaluations_since_best=0
        )
    return dataclasses.replace(cursor, evaluations_since_best=cursor.evaluations_since_best + 1)


def stalled(policy: EarlyStop | None, cursor: RunCursor) -> str:
    """Why a run ends before its total, in words; empty where it goes on."""
    if policy is None or cursor.evaluations_since_best < policy.patience:
        return ""
    best = "never finite" if cursor.best_value is None else f"{cursor.best_value:.4g}"
    at = "" if cursor.best_value is None else f" of step {cursor.best_step}"
    return (
        f"stopped early: {policy.metric} has not been better than {best}{at} in "
        f"{cursor.evaluations_since_best} evaluations"
    )
