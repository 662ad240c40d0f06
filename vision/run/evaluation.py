"""Evaluation during training: runs the evaluators that are due, until a signal comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vision.evaluate.evaluator import Evaluator, Stopped, evaluate
from vision.run.prepare import Prepared
from vision.train.state import State


def evaluate_due(
    evaluators: Mapping[str, Evaluator],
    prepared: Prepared,
    state: State,
    step: int,
    report: Callable[[str, Mapping[str, float]], None],
    stop: Callable[[], bool],
) -> bool:
    """Runs evaluators on a state, on its parameter average where the run keeps one.

    Args:
      evaluators: name to evaluator, in the order in which they run.
      prepared: the run.
      state: after ``step`` updates.
      step: for the evaluators' context.
      report: called with the name and the metrics of every evaluator that has finished.
      stop: asked before every batch; True ends the evaluation.

    Returns:
      Whether all of them have finished.
    """
    for name, evaluator in evaluators.items():
        try:
            metrics, _ = evaluate(
                evaluator, prepared.predict, state.averaged, step, prepared.mesh, stop=stop
            )
        except Stopped:
            return False
        report(name, metrics)
    return True
