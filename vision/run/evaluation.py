"""Evaluation during training: the evaluators that are due run, and one that fails ends no run."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping

from vision.checkpoint.evaluations import StepEvaluation
from vision.config.errors import UserError
from vision.evaluate.class_names import match_classes
from vision.evaluate.evaluator import Evaluator, Stopped, error_text, evaluate
from vision.evaluate.figures import Figure
from vision.parallel.cluster import ClusterError
from vision.run.prepare import Prepared
from vision.train.state import State

log = logging.getLogger(__name__)


def evaluate_due(
    evaluators: Mapping[str, Evaluator],
    prepared: Prepared,
    state: State,
    step: int,
    report: Callable[[str, Mapping[str, float], Mapping[str, Figure]], None],
    stop: Callable[[], bool],
) -> StepEvaluation | None:
    """Runs evaluators on a state, on its parameter average where the run keeps one.

    An evaluator that raises is logged, and the others run. With several processes it has failed
    on all where it raised on one, and all go on together.

    Args:
      evaluators: name to evaluator, in the order in which they run.
      prepared: the run.
      state: after ``step`` updates.
      step: for the evaluators' context.
      report: called with the name, the metrics and the figures of every evaluator that has
        finished.
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
            metrics, figures = evaluate(
                evaluator,
                prepared.predict,
                state.averaged,
                step,
                prepared.mesh,
                stop=stop,
                prepare=functools.partial(match_classes, trained=classes, name=name),
            )
        except Stopped:
            return None
        except Exception as error:
            if isinstance(error, ClusterError):  # the other processes are not there any more
                raise
            failed[name] = error_text(error)
            if isinstance(error, UserError):
                log.error("evaluator %s failed at step %d: %s", name, step, failed[name])
            else:
                log.exception("evaluator %s failed at step %d: %s", name, step, failed[name])
            continue
        report(name, metrics, figures)
        measured |= {f"{name}/{key}": x for key, x in metrics.items() if math.isfinite(x)}
    finished = [name for name in evaluators if name not in failed]
    return StepEvaluation(measured, failed, finished)
