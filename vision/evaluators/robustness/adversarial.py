"""Adversarial robustness: accuracy before and after attacks, and sizes of perturbations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from vision.blocks.attack import Attack
from vision.config.ranges import Finite, NonEmpty, NonNegative, Positive, checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import Rows
from vision.evaluators.robustness.attacks import Kept, Target, Victim, attacked, clean
from vision.metrics.arrays import class_indices
from vision.weights.preprocessing import normalisation

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
@checked
class Adversarial:
    """Attacks on the records of ``data`` that a classifier classifies correctly.

    Yields, over labelled records, ``accuracy`` without attack, ``zero_gradient`` (the share whose
    loss has a gradient of exactly zero in every pixel, where gradient attacks fail for that
    reason alone), and for every attack
    ``<attack>_accuracy`` (records that are correct and withstand it), ``<attack>_success`` (of the
    correct ones, those that do not), ``<attack>_l2`` and ``<attack>_linf`` (mean norms of its
    successful perturbations, pixels in 0..1; NaN without any); with two or more attacks that have a
    radius ``worst_case_accuracy``, of records that withstand all of these; ``examples``, and, only
    where there are any, ``unlabelled`` and ``nonfinite`` (NaN or infinity among logits or
    gradients at any time: such logits are wrong before an attack and no success of one). With
    ``epsilons`` every attack that has a radius is made with each of these too, as
    ``<attack>_<radius>``, and the figure ``accuracy_by_radius`` shows them.

    Attacks work on images in 0..1, in the model's own resolution, and never leave that range. An
    attack's randomness depends on seed and record only. Where features are stored
    (``evaluate.py --features=FOLDER``) finished batches and the state of the running attack are
    stored there too: the same command resumes.

    Attributes:
      data: what is attacked; batches need floating-point ``image`` and labels.
      attacks: name to attack, such as ``{"pgd": spec(PGD, eps=4 / 255)}``; ``vision.blocks``.
      mean, std: of the normalisation in ``data.ops``, per channel or one for all, of images in
        0..1: 0.5 and 0.5 for ``ValueRange(-1, 1)``.
      epsilons: further radii.
      examples: only records before this place of ``data`` are attacked; None for all.
      target: class that targeted attacks aim at: of the wrong ones the ``least_likely`` or the
        ``runner_up`` by the clean logits.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      seed: of the attacks.
    """

    data: EvaluationData
    attacks: NonEmpty[Mapping[str, Attack]]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive[float], ...] = (1.0,)
    epsilons: tuple[NonNegative[Finite], ...] = ()
    examples: Positive[int] | None = None
    target: Target = "least_likely"
    logits: str = "logits"
    label: str = "label"
    seed: int = 0

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")
        self._check_normalisation()
        if self.epsilons and not any(map(_has_radius, self.attacks.values())):
            raise ValueError(f"epsilons: none of {', '.join(self.attacks)} has a radius eps")
        if len(set(map(_text, self.epsilons))) < len(self.epsilons):
            raise ValueError(f"epsilons={self.epsilons}: some are the same to six digits")
        if clash := {name for name in self.attacks if name in self._swept()}:
            raise ValueError(f"attacks: {clash.pop()!r} is what epsilons call one of theirs")

    def _check_normalisation(self) -> None:
        """``data.ops`` say mean and std already; other ones would attack other images."""
        known = normalisation(getattr(self.data, "ops", ()))
        if known is None:
            return
        size = max(len(x) for x in (self.mean, self.std, *known))
        given, stated = (
            [tuple(x) * size if len(x) == 1 else tuple(x) for x in pair]
            for pair in ((self.mean, self.std), known)
        )
        same_size = all(len(x) == size for x in (*given, *stated))
        if not same_size or not np.allclose(given, stated, atol=2e-4):
            raise ValueError(
                f"mean={self.mean} and std={self.std}, but data.ops normalise with "
                f"mean={known[0]} and std={known[1]}: set these"
            )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no labelled records, or images that ``mean`` and ``std`` do not bring to 0..1.
          MetricError: labels that are no class.
          ValueError: ``predict`` or the batches lack what is needed.
          WorkdirError: the folder for intermediate results cannot be written.
        """
        attacks = {**self.attacks, **self._swept()}
        rows = self._rows(predict, ctx, attacks)
        labelled = rows["label"] >= 0
        if not labelled.any():
            raise DataError(f"{self.data.source.info.name}: no labelled records to attack")
        rows = {name: x[labelled] for name, x in rows.items()}
        correct = rows["right"]
        yield "accuracy", float(correct.mean())
        yield "zero_gradient", float((rows["zero"] & ~rows["nonfinite"]).mean())
        robust_accuracy = {}
        for name in attacks:
            fooled = rows[f"{name}/found"]
            robust_accuracy[name] = float((correct & ~fooled).mean())
            yield f"{name}_accuracy", robust_accuracy[name]
            yield f"{name}_success", _mean(fooled[correct])
            yield f"{name}_l2", _mean(rows[f"{name}/l2"][fooled])
            yield f"{name}_linf", _mean(rows[f"{name}/linf"][fooled])
        bounded = [name for name, attack in self.attacks.items() if _has_radius(attack)]
        if len(bounded) > 1:
            any_fooled = np.logical_or.reduce([rows[f"{name}/found"] for name in bounded])
            yield "worst_case_accuracy", float((correct & ~any_fooled).mean())
        yield "examples", len(correct)
        if unlabelled := int((~labelled).sum()):
            yield "unlabelled", unlabelled
        nonfinite_parts = [rows["nonfinite"], *(rows[f"{name}/nonfinite"] for name in attacks)]
        if nonfinite := int(np.logical_or.reduce(nonfinite_parts).sum()):
            yield "nonfinite", nonfinite
        if self.epsilons:
            lines = [self._line(name, float(correct.mean()), robust_accuracy) for name in bounded]
            yield "accuracy_by_radius", Curve(tuple(lines), "radius, pixels in 0..1", "accuracy")

    def _rows(self, predict: Predict, ctx: EvalContext, attacks: Mapping[str, Attack]) -> Rows:
        """Of every record, in order: the rows of ``clean``, and ``<attack>/<row of attacked>``."""
        victim = Victim(
            predict, self.logits, self.label, self.mean, self.std, self.target, self.seed
        )
        limit = np.iinfo(np.int32).max if self.examples is None else self.examples
        cache = self._kept(predict, ctx)
        parts: list[Rows] = []
        for number, batch in enumerate(ctx.batches(self.data)):
            row_values, on_device = clean(victim, ctx.variables, batch, limit)
            self._check(row_values)
            for name, attack in attacks.items():
                attack_rows = cache.rows(number, attack, row_values["index"]) if cache else None
                if attack_rows is None:
                    attack_rows = attacked(
                        victim, attack, ctx.variables, batch, on_device, cache, number
                    )
                    if cache:
                        cache.save_rows(number, attack, row_values["index"], attack_rows)
                row_values |= {f"{name}/{what}": x for what, x in attack_rows.items()}
            valid = row_values.pop("valid")
            parts.append({name: x[valid] for name, x in row_values.items() if x.ndim})
            if (row_values["index"] >= limit - 1).any():
                break
        if not parts:
            raise DataError(f"{self.data.source.info.name}: no records to attack")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _kept(self, predict: Predict, ctx: EvalContext) -> Kept | None:
        folder = None if ctx.store is None else ctx.store.folder(predict, self.data)
        if folder is None:
            return None
        names = ("mean", "std", "examples", "target", "logits", "label", "seed")
        settings = {name: getattr(self, name) for name in names}
        return Kept.under(folder, [_FORMAT, settings, getattr(self.data, "batch_size", None)])

    def _check(self, row_values: Rows) -> None:
        valid, name = row_values["valid"], self.data.source.info.name
        class_indices(
            f"labels of {name}", row_values["label"][valid], None, int(row_values["classes"])
        )
        if not valid.any():
            return
        low, high = row_values["low"][valid].min(), row_values["high"][valid].max()
        if low < -1e-3 or high > 1 + 1e-3:
            raise DataError(
                f"{name}: with mean={self.mean} and std={self.std} pixels reach from {low:.4g} to "
                f"{high:.4g} and not from 0 to 1: set both to what data.ops normalise with"
            )

    def _swept(self) -> dict[str, Any]:
        return {
            f"{name}_{_text(eps)}": dataclasses.replace(attack, eps=eps)  # pyright: ignore[reportArgumentType]
            for name, attack in self.attacks.items()
            if _has_radius(attack)
            for eps in self.epsilons
        }

    def _line(self, name: str, clean: float, robust_accuracy: Mapping[str, float]) -> Line:
        attack: Any = self.attacks[name]
        points = {0.0: clean, attack.eps: robust_accuracy[name]}
        points |= {eps: robust_accuracy[f"{name}_{_text(eps)}"] for eps in self.epsilons}
        x = sorted(points)
        return Line(name, np.asarray(x), np.asarray([points[eps] for eps in x]))


def _has_radius(attack: Attack) -> bool:
    return hasattr(attack, "eps")


def _text(eps: float) -> str:
    return f"{eps:g}"


def _mean(x: np.ndarray) -> float:
    return float(x.mean()) if len(x) else math.nan
