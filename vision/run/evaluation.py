"""Evaluation during training: the evaluators that are due run, and one that fails ends no run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import jax

from vision.checkpoint.evaluations import StepEvaluation
from vision.config.errors import UserError
from vision.evaluate.class_names import match_classes
from vision.evaluate.evaluator import Evaluator, Stopped, evaluate
from vision.run.prepare import Prepared
from vision.train.state import State

log = logging.getLogger(__name__)


def evaluate_due(
    evaluators: Mapping[str, Evaluator],
    prepared: Prepared,
    state: State,
    step: int,
    report: Callable[[str, Mapping[str, float]], None],
    stop: Callable[[], bool],
) -> StepEvaluation | None:
    """Runs evaluators on a state, on its parameter average where the run keeps one.

    An evaluator that raises is logged, and the others run. With several processes its error is
    raised: the others may wait for this process in the middle of theirs.

    Args:
      evaluators: name to evaluator, in the order in which they run.
      prepared: the run.
      state: after ``step`` updates.
      step: for the evaluators' context.
      report: called with the name and the metrics of every evaluator that has finished.
      stop: asked before every batch; True ends the evaluation.

    Returns:
      The metrics of those that finished and the errors of those that raised; None where ``stop``
      ended the evaluation.
    """
    measured: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, evaluator in evaluators.items():
        try:
            classes = prepared.data_spec.class_names
            metrics, _ = evaluate(
                match_classes(evaluator, classes, name),
                prepared.predict,
                state.averaged,
                step,
                prepared.mesh,
                stop=stop,
            )
        except Stopped:
            return None
        except Exception as error:
            if jax.process_count() > 1:
                raise
            failed[name] = _text(error)
            if isinstance(error, UserError):
                log.error("evaluator %s failed at step %d: %s", name, step, failed[name])
            else:
                log.exception("evaluator %s failed at step %d: %s", name, step, failed[name])
            continue
        report(name, metrics)
        measured |= {f"{name}/{key}": x for key, x in metrics.items() if math.isfinite(x)}
    return StepEvaluation(measured, failed)


def _text(error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return (text.splitlines() or [type(error).__name__])[0]
