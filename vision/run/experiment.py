"""The root of every config, and how its parts are built in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol

import ml_collections

from vision.checkpoint.store import Checkpoints
from vision.config.hints import CONSTRUCTOR, is_spec
from vision.config.ranges import Ge, Lt, Positive, checked
from vision.config.schema import ConfigError, locate, nearest
from vision.config.specs import validate
from vision.evaluate.evaluator import BatchIterator, Evaluator
from vision.parallel import cluster
from vision.parallel.mesh import Mesh, ShardingRule
from vision.run.loggers import Logger
from vision.run.nonfinite import Nonfinite
from vision.run.sealed import seal, unseal
from vision.run.stopping import EarlyStop
from vision.run.workdir import WorkdirError, write_text
from vision.train.objective import Objective
from vision.train.optim import Ema, Optimizer
from vision.train.step import BatchOp, BatchShapes
from vision.train.tower import Tower, Tree


class TrainingData(Protocol):
    """Training data: an endless, exactly resumable stream of batches."""

    @property
    def source(self) -> Any: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def batch_ops(self) -> tuple[BatchOp, ...]: ...

    def loader(
        self, *, seed: int, first_batch: int, process_index: int, process_count: int
    ) -> BatchIterator: ...


class InitialWeights(Protocol):
    """Where the model's variables come from before the first step, instead of chance."""

    def load(
        self, model: Tower, variables: Mapping[str, Tree], class_names: tuple[str, ...] = ()
    ) -> Mapping[str, Tree]:
        """Fills the variables of the model.

        Args:
          model: ``Experiment.model``.
          variables: its fresh ``params`` and ``model_state``, and as ``objective`` the parameters
            of the objective's other networks by their names: arrays on the mesh; the result has
            the same structure, shapes, dtypes and shardings.
          class_names: of this run, in the order of its logits.
        """
        ...

    def remarks(self, evaluations: Mapping[str, tuple[Any, ...]]) -> list[str]:
        """Lines for people: evaluations that do not suit the weights.

        Args:
          evaluations: place in the config, such as ``evaluators.val.data.ops``, to the ops there.
        """
        ...


@dataclasses.dataclass(frozen=True)
@checked
class Experiment:
    """One experiment: everything ``train.py`` and ``evaluate.py`` need.

    Lengths are texts such as ``"500 steps"``, ``"90 epochs"`` or ``"1e6 examples"``.

    Attributes:
      data: what is trained on.
      objective: what is learned; gets ``model`` where it declares one.
      optimizer: how; of an objective with phases a mapping, one for each by its name.
      total: length of the run.
      model: the tower; gets ``num_classes`` from the data where the config leaves it None.
      init_from: weights that the model starts from, ``vision.weights.init_from.InitFrom``; None
        for fresh ones. Read once: a run that resumes has its own.
      evaluators: name to what is measured; all of them run at the end.
      evaluate_every: distance between evaluations while training: one for all evaluators, or a
        mapping from the names of some to theirs. None: only at the end.
      batch_shapes: shapes of the training batch, one per step: several image sizes within one run,
        ``vision.data.batch_views.MixedResolution``. None for the one that the data has.
      ema: keep an average of the parameters and evaluate it; None for none.
      mesh: shape of the device mesh.
      sharding: layout of parameters, first match wins; none means replicated.
      accumulate: micro-batches that a batch is split into inside the step, one after another:
        the same update with less memory. See ``vision.train.step.Step``.
      nonfinite: what happens when a loss or gradient is NaN or infinite.
      checkpoints: how often states are saved and which are kept.
      early_stop: when a run ends before ``total``; None for never.
      log_every: distance between rows of ``metrics.jsonl``.
      loggers: where rows and the evaluators' figures go besides the workdir: ``Wandb``, ``MLflow``.
      seed: of parameters, data order, augmentation and dropout, from 0 to 2^32 - 1.
    """

    data: TrainingData
    objective: Objective
    optimizer: Optimizer | Mapping[str, Optimizer]
    total: str
    model: Tower | None = None
    init_from: InitialWeights | None = None
    evaluators: Mapping[str, Evaluator] | None = None
    evaluate_every: str | Mapping[str, str] | None = None
    batch_shapes: BatchShapes | None = None
    ema: Ema | None = None
    mesh: Mesh = Mesh()  # noqa: RUF009 - frozen
    sharding: tuple[ShardingRule, ...] = ()
    accumulate: Positive[int] = 1
    nonfinite: Nonfinite = Nonfinite()  # noqa: RUF009 - frozen
    checkpoints: Checkpoints = Checkpoints()  # noqa: RUF009 - frozen
    early_stop: EarlyStop | None = None
    log_every: str = "50 steps"
    loggers: tuple[Logger, ...] = ()
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0

    def evaluations(self) -> dict[str, str]:
        """Name of every evaluator that runs while training to the distance between its runs."""
        if isinstance(self.evaluate_every, str):
            return dict.fromkeys(self.evaluators or {}, self.evaluate_every)
        return dict(self.evaluate_every or {})


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a run learned from its data, kept in the workdir so that nothing else is needed later.

    Attributes:
      num_examples: records in the training source.
      class_names: in label order; empty without classes.
      batch: name to ``(shape, dtype)`` of a global training batch.
    """

    num_examples: int
    class_names: tuple[str, ...]
    batch: Mapping[str, tuple[tuple[int, ...], str]]

    def save(self, path: Path) -> None:
        """Writes it in one step; of several processes the first does."""
        if cluster.is_main():
            write_text(path, seal(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> DataSpec:
        """Reads what ``save`` wrote.

        Raises:
          WorkdirError: the file cannot be read or is damaged.
        """
        try:
            plain, _ = unseal(path.read_bytes().decode("utf-8", "backslashreplace"))
            batch = {name: (tuple(shape), dtype) for name, (shape, dtype) in plain["batch"].items()}
            return cls(plain["num_examples"], tuple(plain["class_names"]), batch)
        except OSError as error:
            raise WorkdirError(f"{path} cannot be read: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkdirError(
                f"{path} is damaged ({error}): delete it and run the train.py command again, which "
                "writes it anew and trains nothing twice"
            ) from error


# What ``vision.run.prepare`` fills in; all else that a constructor requires is in the config.
OFFERED = {"objective": frozenset({"model"})}


def check(config: ml_collections.ConfigDict, source: str = "config") -> None:
    """``vision.config.specs.validate`` with what ``prepare`` fills in, and references by name."""
    if is_spec(config) and locate(config[CONSTRUCTOR]) is not Experiment:
        raise ConfigError(f"{source}: this needs one run, an Experiment, not {config[CONSTRUCTOR]}")
    validate(config, source=source, offered=OFFERED)
    chosen: Any = config.evaluators
    distances: Any = config.evaluate_every
    evaluators = list(chosen or {})
    if not isinstance(distances, str):
        for name in distances or {}:
            if name not in evaluators:
                raise ConfigError(
                    f"{source}: config.evaluate_every has {name!r}, which is no evaluator"
                    f"{nearest(name, evaluators)}"
                )
    _check_early_stop(config, evaluators, source)
    checkpoints: Any = config.checkpoints
    best: Any = checkpoints.best
    if best is not None:
        name, slash, _ = best.partition("/")
        if not slash or name not in evaluators:
            shown = [f"{each}/..." for each in evaluators]
            raise ConfigError(
                f"{source}: config.checkpoints.best is {best!r}, but it is the name of an "
                f"evaluator, a slash and one of its metrics{nearest(name, evaluators)}"
                + (f"; valid: {', '.join(shown)}" if shown else "; there are no evaluators")
            )


def _check_early_stop(config: Any, evaluators: list[str], source: str) -> None:
    if config.early_stop is None:
        return
    metric, distances = config.early_stop.metric, config.evaluate_every
    name, slash, _ = metric.partition("/")
    running = evaluators if isinstance(distances, str) else list(distances or {})
    if not slash or name not in evaluators:
        raise ConfigError(
            f"{source}: config.early_stop.metric is {metric!r}, but it is the name of an "
            f"evaluator, a slash and one of its metrics{nearest(name, evaluators)}"
        )
    if name not in running:
        raise ConfigError(
            f"{source}: config.early_stop.metric is {metric!r}, but {name} runs at the end only: "
            "set config.evaluate_every"
        )
