"""Evaluation of UNEM on few-shot tasks, beside EM with fixed hyper-parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from papers.unem.method import Constants, Form, constants, learn, log_assignments
from vision.config.ranges import Ge, Positive, checked
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.labelled import labelled
from vision.metrics.significance import normal_interval
from vision.probes.episodes import Episodes, draw_episodes


@dataclasses.dataclass(frozen=True)
@checked
class UnrolledEM:
    """Transductive few-shot tasks by UNEM, by EM with fixed hyper-parameters, and inductively.

    Hyper-parameters are learned on tasks from ``fit``, and all methods are evaluated on the same
    tasks from ``data``. Yields ``learned``, the mean accuracy over tasks, ``fixed_<g>`` for every g
    of ``grid``, with a ``grid`` also ``fixed``, the pair of g and s of ``grid`` and ``scales`` that
    is best on the tasks of ``fit``, and ``inductive`` (one layer, gaussian: the nearest mean of the
    support; dirichlet: the best zero-shot probability); of each ``<name>_ci95``, half the
    width of its 95 % interval; ``classes`` of ``data``, ``examples``, and, only where there are
    any, ``unlabelled`` and ``nonfinite`` (left out). The figure ``constants`` shows g_l and
    1 + t_l per layer. The same ``seed`` draws the same tasks.

    Attributes:
      fit: records to learn the hyper-parameters on, of other classes or other records.
      data: records to evaluate. Batches of both have ``label`` int (B,), -1 being none.
      form: ``gaussian`` on features or ``dirichlet`` on zero-shot logits (N, classes).
      ways: classes of the support.
      present: number of classes with queries.
      shots, queries: support records per class, and queries per present class.
      fit_tasks, tasks: number of tasks drawn from ``fit`` and ``data``.
      layers: L, also with fixed hyper-parameters.
      balance: initial g.
      scale: initial s, and s of the fixed hyper-parameters.
      steps, rate, batch_size: of Adam.
      grid: fixed values of g to evaluate.
      scales: values of s to choose from beside ``grid``; empty for ``scale``.
      seed: of the tasks.
      output: name of the features (B, D) that ``predict`` gives.
    """

    fit: EvaluationData
    data: EvaluationData
    form: Form = "gaussian"
    ways: Annotated[int, Ge(2)] = 20
    present: Positive[int] = 5
    shots: Positive[int] = 5
    queries: Positive[int] = 15
    fit_tasks: Positive[int] = 1000
    tasks: Annotated[int, Ge(2)] = 1000
    layers: Positive[int] = 10
    balance: Positive[float] = 1.0
    scale: Positive[float] = 1.0
    steps: Positive[int] = 100
    rate: float = 0.1
    batch_size: Positive[int] = 10
    grid: tuple[Positive[float], ...] = ()
    scales: tuple[Positive[float], ...] = ()
    seed: int = 0
    output: str = "embedding"

    def __post_init__(self) -> None:
        if self.present > self.ways:
            raise ValueError(f"present={self.present} of ways={self.ways}")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``fit`` and ``data`` once.

        Raises:
          DataError: no records with labels.
          FitError: too few classes with enough examples.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        rows = [labelled(predict, ctx, d, self.output, "label") for d in (self.fit, self.data)]
        fit_tasks, test_tasks = (
            tasks(
                part.x,
                draw_episodes(
                    part.labels, self.ways, self.shots, self.queries, count, self.seed + i
                ),
                self.present,
                self.form,
            )
            for i, (part, count) in enumerate(zip(rows, (self.fit_tasks, self.tasks), strict=True))
        )
        start = constants(self.layers, self.balance, self.scale, temperature=1.5)
        learned, _ = learn(start, *fit_tasks, self.form, self.steps, self.rate, self.batch_size)
        methods = {"learned": learned}
        methods |= {f"fixed_{g:g}": constants(self.layers, g, self.scale) for g in self.grid}
        if self.grid:
            methods["fixed"] = self.chosen(fit_tasks)
        methods["inductive"] = constants(0 if self.form == "dirichlet" else 1, 0.0, self.scale)
        for name, rule in methods.items():
            interval = normal_interval(np.asarray(accuracies(rule, *test_tasks, self.form)))
            yield name, interval.value
            yield f"{name}_ci95", (interval.high - interval.low) / 2
        yield "classes", len(np.unique(rows[1].labels))
        yield "examples", len(rows[1].x)
        for name in ("unlabelled", "nonfinite"):
            if count := sum(getattr(part, name) for part in rows):
                yield name, count
        layer = np.arange(1.0, self.layers + 1)
        weights = [np.asarray(jax.nn.softplus(learned[n])) for n in ("balance", "temperature")]
        lines = (Line("balance", layer, weights[0]), Line("temperature", layer, 1 + weights[1]))
        yield "constants", Curve(lines, "layer", "learned")

    def chosen(self, fit_tasks: tuple[np.ndarray, ...]) -> Constants:
        """The fixed constants of ``grid`` and ``scales`` with the best mean accuracy on tasks."""
        rules = [
            constants(self.layers, g, s) for g in self.grid for s in self.scales or (self.scale,)
        ]
        means = [float(jnp.mean(accuracies(rule, *fit_tasks, self.form))) for rule in rules]
        return rules[int(np.argmax(means))]


def tasks(x: np.ndarray, drawn: Episodes, present: int, form: Form) -> tuple[np.ndarray, ...]:
    """Support (E, K, n, D) and queries (E, M, D), float32, and the queries' labels int (M,).

    Queries are those of the first ``present`` classes of an episode, whose order is random.
    """
    queries = drawn.query[:, :present]
    support = x[drawn.support]
    query = x[queries.reshape(len(queries), -1)]
    if form == "dirichlet":  # of the task's classes only
        support = np.take_along_axis(support, drawn.classes[:, None, None], -1)
        query = np.take_along_axis(query, drawn.classes[:, None], -1)
    label = np.repeat(np.arange(present), queries.shape[2])
    return support.astype(np.float32), query.astype(np.float32), label


@functools.partial(jax.jit, static_argnames=("form",))
def accuracies(
    learned: Constants, support: jax.Array, query: jax.Array, label: jax.Array, form: Form
) -> jax.Array:
    """Accuracy of every task, (E,)."""

    def accuracy(task: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.argmax(log_assignments(learned, *task, form), -1) == label)

    return jax.lax.map(accuracy, (support, query), batch_size=16)
