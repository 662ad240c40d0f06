"""What is measured: evaluators, the data they read, and what they are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from vision.config.errors import UserError
from vision.evaluate.figures import Figure
from vision.parallel import cluster
from vision.parallel.mesh import batch_share, to_device
from vision.train.objective import Batch, Variables

Predict = Callable[[Variables, Batch], dict[str, jax.Array]]


class BatchIterator(Protocol):
    """Iterates over host batches: dicts of numpy arrays with this process's rows.

    Every batch has ``_mask`` (rows,) bool, False where a row only fills up, and ``_index``
    (rows,) int32, the record's position in its source.
    """

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]: ...

    def __next__(self) -> dict[str, np.ndarray]: ...

    def take_bad(self) -> list[Any]:
        """Records that could not be read since the last call (``on_error="mask"``)."""
        ...

    def close(self) -> None:
        """Stops the threads and processes behind the loader."""
        ...


class EvaluationData(Protocol):
    """Data read once, in order, the last batch filled up with masked rows."""

    @property
    def source(self) -> Any: ...

    def loader(self, *, process_index: int, process_count: int) -> BatchIterator: ...


class Store(Protocol):
    """Keeps what a model says of data, so that the next evaluator need not ask it again."""

    def rows(
        self,
        predict: Predict,
        data: EvaluationData,
        required: tuple[str, ...],
        optional: tuple[str, ...],
        read: Callable[[tuple[str, ...], tuple[str, ...]], Mapping[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """The named arrays, one row per record; ``read`` makes those that are not kept."""
        ...

    def folder(self, predict: Predict, data: EvaluationData) -> Path | None:
        """Where an evaluator may keep files about this model and data; None for nowhere.

        It may not be there yet. A change of weights, code or data gives another one.
        """
        ...


@dataclasses.dataclass(frozen=True)
class EvalContext:
    """What an evaluator may use besides ``predict``.

    Attributes:
      variables: parameters (or their average), model state and extra state to evaluate.
      step: training step they come from.
      batches: reads an ``EvaluationData`` as dicts of global arrays split over the mesh.
      store: keeps what is read on the host; None for nothing.
    """

    variables: Variables
    step: int
    batches: Callable[[EvaluationData], Iterator[Mapping[str, jax.Array]]]
    store: Store | None = None


class Evaluator(Protocol):
    """A frozen dataclass that measures something and yields named values and figures.

    ``predict(variables, batch)`` is traceable and the same object in every call of a run: an
    evaluator jits its own function of it and may cache by it. A run's own takes a ``Tap`` as a
    third argument, which reaches into the objective's model.

    One whose names are known beforehand may list them as ``metric_names``: then a config that
    refers to another is refused before anything is computed.
    """

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]: ...


class Stopped(Exception):
    """An evaluation was broken off because the run was asked to stop."""


def context(
    variables: Variables,
    step: int,
    mesh: jax.sharding.Mesh,
    stop: Callable[[], bool] = lambda: False,
    store: Store | None = None,
) -> EvalContext:
    """The context on a mesh; before every batch it asks ``stop``, and at yes raises ``Stopped``.

    Several processes meet at every batch, after it was read and before anything waits for their
    devices, so that a record that one of them cannot read holds no other up (``together``).
    """

    def batches(data: EvaluationData) -> Iterator[Mapping[str, jax.Array]]:
        part, parts = batch_share(mesh)
        loader = data.loader(process_index=part, process_count=parts)
        try:
            for batch in loader:
                cluster.meet()
                if stop():
                    raise Stopped
                yield to_device(batch, mesh)
        finally:
            loader.close()

    return EvalContext(variables, step, batches, store)


def evaluate(
    evaluator: Evaluator,
    predict: Predict,
    variables: Variables,
    step: int,
    mesh: jax.sharding.Mesh,
    stop: Callable[[], bool] = lambda: False,
    store: Store | None = None,
    prepare: Callable[[Evaluator], Evaluator] = lambda evaluator: evaluator,
) -> tuple[dict[str, float], dict[str, Figure]]:
    """Runs one evaluator; returns its numbers and its figures by name.

    ``stop`` is asked before every batch; when it says yes, ``Stopped`` is raised. ``store`` is
    that of ``EvalContext``; ``prepare`` changes the evaluator, and may fail like it. With several
    processes an error of one is raised on all of them, as a ``FailedTogetherError``: see
    ``cluster.together``.
    """
    numbers: dict[str, float] = {}
    figures: dict[str, Figure] = {}

    def run() -> None:
        ctx = context(variables, step, mesh, stop, store)
        for name, value in prepare(evaluator).run(predict, ctx):
            if isinstance(value, (int, float)):
                numbers[name] = float(value)
            else:
                figures[name] = value

    with jax.set_mesh(mesh):
        cluster.together(run, agreed=(Stopped,), text=error_text)
    return numbers, figures


def error_text(error: Exception) -> str:
    """The first line of what an evaluator's error says, with its kind where it is no user's."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return (text.splitlines() or [type(error).__name__])[0]
