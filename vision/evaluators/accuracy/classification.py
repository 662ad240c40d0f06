"""Accuracy, likelihood and calibration of a classifier, and its most confident mistakes."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vision.config.ranges import NonNegative, Positive, checked
from vision.config.schema import ConfigError, nearest
from vision.data.source import DataError
from vision.evaluate import metrics
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import ConfusionMatrix, Figure, Gallery, Picture
from vision.evaluators.several_labels import known
from vision.evaluators.thumbnail import picture
from vision.train.objective import Batch, Variables


@dataclasses.dataclass(frozen=True)
@checked
class Classification:
    """Measures a classifier on ``data``, every record once.

    Yields ``top1`` and, with more than 5 classes, ``top5`` (shares, 0..1), ``nll`` (nats), ``ece``
    (0..1), ``examples`` (labelled ones, over which all of these are), and, only where there are
    any, ``unlabelled`` (label -1) and ``nan_examples`` (scores without a finite maximum: wrong, and
    they make ``nll`` and ``ece`` NaN). Then the figures ``confusion``, ``reliability`` and
    ``mistakes``. How ties, soft labels and missing labels count: ``vision.evaluate.metrics``.

    ``predict`` has to give ``logits`` and ``log_probabilities``, both (B, K).

    Attributes:
      data: what is read.
      mistakes: how many of the most confident wrong answers to show; equal probabilities in the
        order of the records.
      bins: of the calibration error and the reliability diagram.
      label: name of the labels in a batch: int (B,), or weights (B, K) that count as their
        largest class. Several classes of one image (``MultiLabel``, ``PartialLabels``) are refused:
        ``MultiLabelClassification`` and ``LabelSets`` measure them.
      image: name of the image in the records of ``data.source``, for the pictures.
      confusion_max_classes: with more classes than this there is no confusion matrix (on the
        device it takes 4 K^2 bytes).
    """

    metric_names: ClassVar[tuple[str, ...]] = (
        "top1",
        "top5",
        "nll",
        "ece",
        "examples",
        "unlabelled",
        "nan_examples",
    )

    data: EvaluationData
    mistakes: NonNegative[int] = 24
    bins: Positive[int] = 15
    label: str = "label"
    image: str = "image"
    confusion_max_classes: int = 4096

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no batches, labels that are no class, or class names of another number than
            the logits have columns.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        totals, num_classes = self._accumulate(predict, ctx)
        self._check_labels(totals, num_classes)
        names = self._class_names(num_classes)

        yield "top1", totals.top1.compute()
        if num_classes > 5:
            yield "top5", totals.top5.compute()
        yield "nll", totals.nll.compute()
        yield "ece", totals.ece.compute()
        yield "examples", totals.examples.compute()
        if unlabelled := totals.unlabelled.compute():
            yield "unlabelled", unlabelled
        if nan_examples := totals.nan.compute():
            yield "nan_examples", nan_examples
        if totals.confusion is not None:
            yield "confusion", ConfusionMatrix(totals.confusion.compute(), names)
        yield "reliability", totals.ece.reliability()
        if self.mistakes:
            yield "mistakes", Gallery(tuple(self._pictures(totals.mistakes, names)))

    def _accumulate(self, predict: Predict, ctx: EvalContext) -> tuple[_Totals, int]:
        totals: _Totals | None = None
        num_classes = 0
        options = _Options(self.label, self.bins, self.mistakes, self.confusion_max_classes)
        in_flight: collections.deque[jax.Array] = collections.deque()
        for batch in ctx.batches(self.data):
            sharding = _replicated(batch["_mask"])
            measure, update = _programs(predict, options, sharding)
            if totals is None:
                shapes, num_classes = self._shapes(predict, measure, ctx.variables, batch)
                zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
                totals = jax.device_put(zeros, sharding)
            totals, done = update(totals, ctx.variables, batch)
            # Dispatch is asynchronous: without a bound the whole data set could wait on the
            # device, ahead of the computation.
            in_flight.append(done)
            if len(in_flight) > 2:
                in_flight.popleft().block_until_ready()
        if totals is None:
            raise DataError(
                f"{self.data.source.info.name}: no records to evaluate "
                f"({len(self.data.source)} in the source)"
            )
        return jax.device_get(totals), num_classes

    def _shapes(
        self, predict: Predict, measure: Callable[..., _Totals], variables: Variables, batch: Batch
    ) -> tuple[_Totals, int]:
        if self.label not in batch:
            raise ValueError(
                f"Classification needs {self.label!r} in a batch of "
                f"{self.data.source.info.name}; it has {', '.join(sorted(batch))}"
            )
        if known(self.label) in batch:
            raise DataError(
                f"{self.data.source.info.name}: {self.label!r} is known in part, by "
                f"{known(self.label)!r}; MultiLabelClassification takes such labels"
            )
        outputs = jax.eval_shape(_jitted(predict), variables, batch)
        for name in ("logits", "log_probabilities"):
            if name not in outputs:
                raise ValueError(
                    f"Classification needs {name!r} from the objective's predict; it gives "
                    f"{', '.join(sorted(outputs)) or 'nothing'}"
                )
        shapes = [tuple(outputs[name].shape) for name in ("logits", "log_probabilities")]
        if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[0][0] != len(batch["_mask"]):
            raise ValueError(
                f"Classification needs logits and log_probabilities (B, K); predict gives "
                f"{shapes[0]} and {shapes[1]} for a batch of {len(batch['_mask'])}"
            )
        return jax.eval_shape(measure, variables, batch), shapes[0][1]

    def _check_labels(self, totals: _Totals, num_classes: int) -> None:
        if count := totals.bad_labels.compute():
            source = self.data.source
            raise DataError(
                f"{source.info.name}: {count} label(s) are no class: outside 0..{num_classes - 1} "
                "(and not -1, unlabelled), weights with NaN, or several classes at once (which "
                "MultiLabelClassification measures); one belongs to record "
                f"{source.key(int(totals.bad_record) - 1)!r}. Mend the labels, or use a head with "
                "as many classes as the data"
            )

    def _class_names(self, num_classes: int) -> tuple[str, ...]:
        info = self.data.source.info
        if info.class_names and len(info.class_names) != num_classes:
            raise DataError(
                f"{info.name} names {len(info.class_names)} classes but the logits have "
                f"{num_classes} columns: the head was made for another set of classes"
            )
        return tuple(info.class_names) or tuple(str(i) for i in range(num_classes))

    def _pictures(self, mistakes: _Mistakes, names: tuple[str, ...]) -> Iterator[Picture]:
        source = self.data.source
        for row in np.flatnonzero(mistakes.wrong):
            index = int(mistakes.index[row])
            label, prediction = names[mistakes.label[row]], names[mistakes.prediction[row]]
            probability = float(mistakes.probability[row])
            yield picture(source, index, self.image, label, prediction, probability)


@flax.struct.dataclass
class _Mistakes:
    """The most confident wrong answers so far, all fields (mistakes,); all zeros is none yet."""

    wrong: jax.Array
    probability: jax.Array
    index: jax.Array
    label: jax.Array
    prediction: jax.Array

    def merge(self, other: _Mistakes, keep: int) -> _Mistakes:
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self, other)
        # Sorted by index too, so that ties do not depend on the layout of the batches.
        _, negative, index, wrong, label, prediction = jax.lax.sort(
            (~both.wrong, -both.probability, both.index, both.wrong, both.label, both.prediction),
            num_keys=3,
        )
        ordered = _Mistakes(wrong, -negative, index, label, prediction)
        return jax.tree.map(lambda x: x[:keep], ordered)


@flax.struct.dataclass
class _Totals:
    top1: metrics.TopKAccuracy
    top5: metrics.TopKAccuracy
    nll: metrics.NegativeLogLikelihood
    ece: metrics.ExpectedCalibrationError
    confusion: metrics.ConfusionCounts | None
    examples: metrics.Count
    unlabelled: metrics.Count
    nan: metrics.Count
    bad_labels: metrics.Count
    bad_record: jax.Array  # 1 + index of a record whose label is no class; 0 for none
    mistakes: _Mistakes

    def merge(self, other: _Totals) -> _Totals:
        merged: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            match field.name:
                case "bad_record":
                    merged[field.name] = jnp.maximum(ours, theirs)
                case "mistakes":
                    merged[field.name] = ours.merge(theirs, keep=ours.wrong.shape[0])
                case _:
                    merged[field.name] = None if ours is None else ours.merge(theirs)
        return _Totals(**merged)


@dataclasses.dataclass(frozen=True)
class _Options:
    """The fields of ``Classification`` that the compiled program depends on."""

    label: str
    bins: int
    mistakes: int
    confusion_max_classes: int


def _measure(outputs: Mapping[str, jax.Array], batch: Batch, options: _Options) -> _Totals:
    """The totals of one batch."""
    logits, log_probabilities = outputs["logits"], outputs["log_probabilities"]
    num_classes = logits.shape[-1]
    labels = metrics.hard_labels(batch[options.label], num_classes)
    if batch[options.label].ndim == 2:  # two classes of weight 1 are a set, without a largest one
        labels = jnp.where((batch[options.label] == 1).sum(-1) > 1, -2, labels)
    mask, index = batch["_mask"].astype(bool), batch["_index"].astype(jnp.int32)
    counted = metrics.counted(labels, mask)
    undefined = metrics.undefined_rows(logits, log_probabilities)
    bad = mask & ((labels < -1) | (labels >= num_classes))
    confusion = None
    if num_classes <= options.confusion_max_classes:
        confusion = metrics.ConfusionCounts.from_model_output(logits, labels, mask)

    prediction = jnp.argmax(logits, -1).astype(jnp.int32)
    probability = jnp.exp(
        jnp.take_along_axis(log_probabilities.astype(jnp.float32), prediction[:, None], -1)[:, 0]
    )
    wrong = counted & ~undefined & (prediction != labels)
    mistakes = _Mistakes(wrong, probability, index, labels, prediction)
    none = jax.tree.map(lambda x: jnp.zeros(options.mistakes, x.dtype), mistakes)
    return _Totals(
        top1=metrics.TopKAccuracy.from_model_output(logits, labels, mask, k=1),
        top5=metrics.TopKAccuracy.from_model_output(logits, labels, mask, k=5),
        nll=metrics.NegativeLogLikelihood.from_model_output(log_probabilities, labels, mask),
        ece=metrics.ExpectedCalibrationError.from_model_output(
            log_probabilities, labels, mask, bins=options.bins
        ),
        confusion=confusion,
        examples=metrics.Count.from_model_output(counted),
        unlabelled=metrics.Count.from_model_output(mask & (labels == -1)),
        nan=metrics.Count.from_model_output(counted & undefined),
        bad_labels=metrics.Count.from_model_output(bad),
        bad_record=jnp.max(jnp.where(bad, index + 1, 0)),
        mistakes=none.merge(mistakes, keep=options.mistakes),
    )


def _replicated(x: jax.Array) -> Any:
    """Replicated on the devices that hold ``x``, so that every process can read the result."""
    sharding = x.sharding
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec())
    return sharding


@functools.lru_cache(maxsize=32)
def _jitted(predict: Predict) -> Any:
    return jax.jit(predict)


@functools.lru_cache(maxsize=32)
def _programs(
    predict: Predict, options: _Options, sharding: Any
) -> tuple[Callable[..., _Totals], Any]:
    """``measure(variables, batch)`` and the jitted ``update(totals, variables, batch)``."""

    def measure(variables: Variables, batch: Batch) -> _Totals:
        return _measure(_jitted(predict)(variables, batch), batch, options)

    def update(totals: _Totals, variables: Variables, batch: Batch) -> tuple[_Totals, jax.Array]:
        batch_totals = measure(variables, batch)
        return totals.merge(batch_totals), batch_totals.examples.count

    return measure, jax.jit(update, donate_argnums=0, out_shardings=sharding)


def classification_of(
    evaluators: Mapping[str, object] | None, workdir: Path, name_wanted: str | None
) -> tuple[str, Classification]:
    """Name and evaluator of a run's ``Classification``, the first where ``name_wanted`` is None.

    Args:
      evaluators: of the run.
      workdir: of the run, for messages.
      name_wanted: a name; None for any.

    Raises:
      ConfigError: there is none, or none of that name.
    """
    all_evaluators = dict(evaluators or {})
    classifications = {
        name: each for name, each in all_evaluators.items() if isinstance(each, Classification)
    }
    if name_wanted is not None and name_wanted not in classifications:
        kind = "is no Classification" if name_wanted in all_evaluators else "is not there"
        raise ConfigError(
            f"evaluator {name_wanted!r} of {workdir} {kind}"
            f"{nearest(name_wanted, [*classifications])}; its data is read"
        )
    if not classifications:
        raise ConfigError(f"the config of {workdir} has no Classification whose data to read")
    name = name_wanted or next(iter(classifications))
    return name, classifications[name]
