"""The one start-up of training, evaluation and restoring: a config becomes a step on a mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections

from vision.config.schema import ConfigError, nearest
from vision.config.specs import build
from vision.evaluate.evaluator import Predict
from vision.run.experiment import DataSpec, Experiment, TrainingData
from vision.train.optim import Optimizer
from vision.train.schedule import Interval, TrainLength, check_schedule
from vision.train.step import Step


@dataclasses.dataclass(frozen=True)
class Intervals:
    """When things happen in a run, beside steps.

    Attributes:
      log: when a row is written.
      save: when the state is saved.
      evaluate: name of an evaluator to when it runs; those that run only at the end are left out.
    """

    log: Interval
    save: Interval
    evaluate: Mapping[str, Interval]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A config with all its parts built. Nothing is compiled, and there is no state yet.

    Attributes:
      experiment: the parts; ``data`` is None where the ``DataSpec`` was known without it.
      data_spec: what the run knows of its training data.
      batch: name to shape and dtype of a global training batch.
      step: the step and its length.
      predict: ``(variables, batch) -> dict``; one object, by which evaluators keep what they
        compiled.
      mesh: the devices, in the shape of ``config.mesh``.
      intervals: when rows are written, states saved and evaluators run.
    """

    experiment: Experiment
    data_spec: DataSpec
    batch: dict[str, jax.ShapeDtypeStruct]
    step: Step
    predict: Predict
    mesh: jax.sharding.Mesh
    intervals: Intervals

    @property
    def total_steps(self) -> int:
        """Length of the run."""
        return self.step.train_length.total_steps


def prepare(
    config: ml_collections.ConfigDict,
    data_spec: DataSpec | None = None,
    devices: Sequence[Any] | None = None,
) -> Prepared:
    """Builds every part of a config, those that need another after it.

    Args:
      config: what ``get_config`` returned, after ``vision.run.experiment.check``.
      data_spec: what an earlier start learned from the training data, which is then neither built
        nor read; None to read its first batch.
      devices: of the mesh; None for those here.

    Raises:
      UserError: data that cannot be read, or lengths, a mesh or other parts that do not fit.
    """
    data: Any = None
    if data_spec is None:
        data = build(config.data)
        data_spec = observe(data)
    model = build(config.model, num_classes=len(data_spec.class_names) or None)
    objective = build(config.objective, model=model)
    if "labels" in getattr(data, "__dataclass_fields__", ()):
        data = dataclasses.replace(data, labels=objective.label_kinds)
    built = {"model": model, "data": data, "objective": objective}
    fields = {field.name for field in dataclasses.fields(Experiment)} - set(built)
    built |= {key: build(value) for key, value in config.items() if key in fields}
    experiment = Experiment(**built)

    batches: Any = config.data if data is None else data
    length = TrainLength(data_spec.num_examples, batches.batch_size)
    length = dataclasses.replace(length, total_steps=length.steps(experiment.total, "total"))
    if length.total_steps < 1:
        raise ConfigError(f"config.total is {experiment.total!r}: nothing to train")
    step = Step(
        objective=experiment.objective,
        optimizer=experiment.optimizer,
        train_length=length,
        batch_ops=build(batches.batch_ops) if data is None else batches.batch_ops,
        batch_shapes=experiment.batch_shapes,
        ema=experiment.ema,
        accumulate=experiment.accumulate,
        skip_nonfinite=experiment.nonfinite.action == "skip",
        seed=experiment.seed,
    )
    return Prepared(
        experiment=experiment,
        data_spec=data_spec,
        batch={name: jax.ShapeDtypeStruct(*kind) for name, kind in data_spec.batch.items()},
        step=step,
        predict=functools.partial(step.predict),
        mesh=experiment.mesh.build(devices),
        intervals=Intervals(
            evaluate={
                name: length.interval(distance, f"evaluate_every of {name}")
                for name, distance in experiment.evaluations().items()
            },
            log=length.interval(experiment.log_every, "log_every"),
            save=_save_interval(experiment.checkpoints.every, length),
        ),
    )


def _save_interval(every: str | None, length: TrainLength) -> Interval:
    """Between checkpoints: as the config says, else what loses no more than a tenth of a run."""
    if every is not None:
        return length.interval(every, "checkpoints.every")
    return Interval(min(1000.0, max(length.total_steps / 10, 1.0)))


def check_for_training(prepared: Prepared) -> None:
    """What a run that is to be trained needs besides: schedules within its length, packages of its
    loggers, and a ``checkpoints.best`` that its evaluator, where that says so, yields.

    Raises:
      ConfigError: one of them does not fit.
    """
    experiment, length = prepared.experiment, prepared.step.train_length
    for logger in experiment.loggers:
        logger.check()
    if isinstance(experiment.optimizer, Optimizer):
        check_schedule(experiment.optimizer.schedule, length, "optimizer.schedule")
    else:
        for name, optimizer in experiment.optimizer.items():
            check_schedule(optimizer.schedule, length, f"optimizer.{name}.schedule")
    best = experiment.checkpoints.best
    if best is None:
        return
    name, _, metric = best.partition("/")
    metrics = getattr((experiment.evaluators or {})[name], "metric_names", None)
    if metrics is not None and metric not in metrics:
        raise ConfigError(
            f"config.checkpoints.best is {best!r}, but evaluator {name} yields "
            f"{', '.join(metrics)}{nearest(metric, list(metrics)).partition('; valid')[0]}"
        )


def observe(data: TrainingData) -> DataSpec:
    """What training data says of itself, and its first batch."""
    loader = data.loader(seed=0, first_batch=0, process_index=0, process_count=1)
    try:
        first = next(loader)
    finally:
        loader.close()
    info = data.source.info
    batch = {name: (x.shape, str(x.dtype)) for name, x in first.items()}
    return DataSpec(len(data.source), tuple(info.class_names), batch)
