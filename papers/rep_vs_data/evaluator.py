"""The evaluator of transfer: perturbations learned on a run, in pixels and at sites, on others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from papers.rep_vs_data.method import (
    Alignment,
    Call,
    aligned,
    channels,
    perturbation,
    perturbed,
    transported,
)
from papers.rep_vs_data.universal import Universal
from vision.blocks.sites import activations
from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.image_text.embeddings import embed
from vision.evaluators.robustness.attacks import Victim
from vision.run.restore import load_run
from vision.train.objective import Variables
from vision.train.tower import Tap

PIXELS = "pixels"
_BATCH = 100  # of images that are asked about


@dataclasses.dataclass(frozen=True)
@checked
class Transfer:
    """Perturbations for all images that lead a run to a class, and what they do to other runs.

    Success is the share of ``data``, without images of the class, that is given to the class;
    numbers are means over ``targets`` and other runs. Yields ``unperturbed``, success of nothing on
    the run itself; for ``pixels`` and for every site ``<place>_source``, on the run itself, and
    ``<place>_transfer``, on the others; for sites ``<place>_aligned`` too, on the others after the
    linear map between their activations; ``examples``; and the curve ``success_by_place``.

    Attributes:
      learned: labelled images that perturbations and maps between activations are learned on.
      data: labelled images that are asked about.
      others: name to the folder of a run of the same tower.
      targets: classes to lead to.
      pixels: the attack on pixels.
      activations: the attack on activations, with ``pixels=False``.
      sites: of the tower.
      align: how activations are mapped.
      mean, std: of the normalisation in the ops of both, per channel or one for all, of images in
        0..1.
      examples: how many of ``learned`` are used, in one batch.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches.
    """

    learned: EvaluationData
    data: EvaluationData
    others: NonEmpty[Mapping[str, str]]
    targets: NonEmpty[tuple[NonNegative[int], ...]] = (0,)
    pixels: Universal = dataclasses.field(default_factory=Universal)
    activations: Universal = dataclasses.field(
        default_factory=lambda: Universal(0.5, "l2", pixels=False)
    )
    sites: tuple[str, ...] = ()
    align: Alignment = "least_squares"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive[float], ...] = (1.0,)
    examples: Positive[int] = 256
    logits: str = "logits"
    label: str = "label"

    trained_classes: ClassVar[TrainedClasses] = {"learned": ("label",), "data": ("label",)}

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")
        if not self.pixels.pixels or self.activations.pixels:
            raise ValueError("pixels needs an attack with pixels=True, activations with False")
        if not (self.pixels.targeted and self.activations.targeted):
            raise ValueError("attacks lead to targets: set targeted=True")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads both data once, and the variables of every other run.

        Raises:
          DataError: pixels that ``mean`` and ``std`` do not bring to 0..1, or no images but those
            of a target.
          SiteError: the tower has no such site.
          ValueError: a target that is no class, a run of another tower, or outputs that lack.
        """
        victim = Victim(predict, self.logits, "", self.mean, self.std, "least_likely", 0)
        learned, asked = (self._read(victim, ctx, of) for of in (self.learned, self.data))
        others = [_variables(folder, ctx.variables) for folder in self.others.values()]
        places = (PIXELS, *self.sites)
        lines: dict[str, list[float]] = {"source": [], "transfer": [], "aligned": []}

        def success(variables: Variables, delta: Any, place: str, target: int) -> float:
            image = asked["image"][asked[self.label] != target]
            ask = _asked(victim, place)
            parts = [
                np.asarray(ask(variables, image[i : i + _BATCH], delta))
                for i in range(0, len(image), _BATCH)
            ]
            return float(np.mean(np.concatenate(parts) == target))

        nothing = np.zeros(asked["image"].shape[1:], np.float32)
        yield (
            "unperturbed",
            _mean(success(ctx.variables, nothing, PIXELS, t) for t in self.targets),
        )
        for place in places:
            rule = self.pixels if place == PIXELS else self.activations
            maps = [] if place == PIXELS else self._maps(victim, ctx, others, learned, place)
            found: dict[str, list[float]] = {name: [] for name in lines}
            for target in self.targets:
                delta = _learned(victim, rule, place)(
                    ctx.variables, learned["image"], target, learned[self.label] != target
                )
                found["source"].append(success(ctx.variables, delta, place, target))
                for variables in others:
                    found["transfer"].append(success(variables, delta, place, target))
                for variables, matrix in zip(others, maps, strict=bool(maps)):
                    moved = transported(np.asarray(delta), matrix)
                    found["aligned"].append(success(variables, moved, place, target))
            for name, values in found.items():
                lines[name].append(_mean(values))
                if values:
                    yield f"{place}_{name}", _mean(values)
        yield "examples", len(asked["image"])
        x = np.arange(float(len(places)))
        drawn = tuple(Line(name, x, np.asarray(y)) for name, y in lines.items())
        yield "success_by_place", Curve(drawn, f"place: {', '.join(places)}", "success")

    def _read(self, victim: Victim, ctx: EvalContext, data: EvaluationData) -> dict[str, Any]:
        """``image`` in 0..1 and labels."""
        rows = embed(victim.predict, ctx, data, (self.logits,), ("image", self.label))
        classes, name = rows[self.logits].shape[-1], data.source.info.name
        if max(self.targets) >= classes:
            raise ValueError(f"targets={self.targets}, but classes are 0..{classes - 1}")
        pixels = np.asarray(jax.jit(victim.pixels)(rows["image"]))
        if pixels.min() < -1e-3 or pixels.max() > 1 + 1e-3:
            raise DataError(
                f"{name}: with mean={self.mean} and std={self.std} pixels reach from "
                f"{pixels.min():.4g} to {pixels.max():.4g} and not from 0 to 1: set both to what "
                "data.ops normalise with"
            )
        label = rows[self.label]
        for target in self.targets:
            if (label == target).all():
                raise DataError(f"{name}: all images are of the target {target} by {self.label!r}")
        count = self.examples if data is self.learned else len(label)
        return {"image": pixels.clip(0, 1)[:count], self.label: label[:count]}

    def _maps(
        self, victim: Victim, ctx: EvalContext, others: list[Variables], learned: Any, site: str
    ) -> list[np.ndarray]:
        seen = _seen(victim, site)
        source, *rest = (
            channels(seen(variables, learned["image"])) for variables in (ctx.variables, *others)
        )
        return [aligned(source, other, self.align) for other in rest]


def _call(victim: Victim, variables: Variables) -> Call:
    predict: Any = victim.predict

    def call(pixels: jax.Array, tap: Tap | None) -> jax.Array:
        def told(variables: Variables, batch: Any) -> dict[str, jax.Array]:
            return predict(variables, batch) if tap is None else predict(variables, batch, tap)

        seen = dataclasses.replace(victim, predict=told)
        return seen.of(variables, {"image": pixels})(pixels)

    return call


@functools.lru_cache(maxsize=64)
def _learned(victim: Victim, rule: Universal, place: str) -> Any:
    site = "" if place == PIXELS else place

    def program(variables: Variables, pixels: Any, target: Any, attacked: Any) -> jax.Array:
        return perturbation(rule, _call(victim, variables), pixels, target, attacked, site)

    return jax.jit(program)


@functools.lru_cache(maxsize=64)
def _asked(victim: Victim, place: str) -> Any:
    site = "" if place == PIXELS else place

    def program(variables: Variables, pixels: jax.Array, delta: jax.Array) -> jax.Array:
        return perturbed(_call(victim, variables), pixels, delta, site).argmax(-1)

    return jax.jit(program)


@functools.lru_cache(maxsize=64)
def _seen(victim: Victim, site: str) -> Any:
    def program(variables: Variables, pixels: jax.Array) -> jax.Array:
        call = _call(victim, variables)
        return activations(lambda tap: call(pixels, tap), (site,))[0]

    return jax.jit(program)


def _variables(folder: str, like: Variables) -> Variables:
    found = load_run(Path(folder)).variables
    shapes = [
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(of)}
        for of in (found.params, like.params)
    ]
    if shapes[0] != shapes[1]:
        different = sorted(dict(shapes[0].items() ^ shapes[1].items()))
        raise ValueError(
            f"others: {folder} is a run of another tower; {different[0]} differs or is not in both"
        )
    return found


def _mean(values: Any) -> float:
    values = list(values)
    return float(np.mean(values)) if values else float("nan")
