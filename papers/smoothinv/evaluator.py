"""The evaluator of backdoors: what leads to a class from single images, and works on others."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from papers.smoothinv.inversion import Inversion
from papers.smoothinv.method import energy_inside, inverted
from papers.smoothinv.trigger import Trigger
from vision.config.ranges import Finite, NonEmpty, NonNegative, Positive, checked
from vision.data.source import DataError
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure, Gallery, Picture
from vision.evaluators.image_text.embeddings import embed
from vision.evaluators.robustness.attacks import Victim
from vision.evaluators.thumbnail import thumbnail
from vision.train.objective import Variables

_BATCH = 100  # of images that are asked about


@dataclasses.dataclass(frozen=True)
@checked
class BackdoorInversion:
    """Is there a class that what one image needs to become it turns all others into, too?

    For every candidate class climbs to it from each of the first ``images`` labelled images that
    are not of the class, one by one, and adds what was found to all other images. Yields
    ``success_<class>``, the mean share of images of other classes that it turns into the class;
    with two or more candidates ``suspect``, the class of the largest, and ``lead``, by how much it
    is ahead; ``accuracy`` and ``examples``; and the gallery ``perturbations``, of the first image,
    stretched from the smallest to the largest value, with what is said of the image with it. With
    a known ``trigger`` also ``trigger_success``, the share that the trigger itself turns, and
    ``energy``, the share of the squares of the backdoor's perturbations in the trigger's pixels.

    Attributes:
      data: clean labelled images, floating-point.
      candidates: classes to climb to.
      rule: of the climb.
      sigma: of the noise, of pixels in 0..1.
      samples: draws of the noise in every step.
      images: how many single images.
      trigger: the true one, where it is known.
      backdoor: its class; one of the candidates.
      mean, std: of the normalisation in ``data.ops``, per channel or one for all, of images in
        0..1.
      logits: name of the logits (B, K) that ``predict`` gives.
      label: name of an int (B,) entry of the batches; -1 is unlabelled.
      seed: of the noise.
    """

    data: EvaluationData
    candidates: NonEmpty[tuple[NonNegative[int], ...]]
    rule: Inversion = dataclasses.field(default_factory=Inversion)
    sigma: NonNegative[Finite] = 0.25
    samples: Positive[int] = 40
    images: Positive[int] = 1
    trigger: Trigger | None = None
    backdoor: NonNegative[int] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive[float], ...] = (1.0,)
    logits: str = "logits"
    label: str = "label"
    seed: int = 0

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")
        if (self.trigger is None) != (self.backdoor is None):
            raise ValueError("trigger and its class, backdoor, go together")
        if self.backdoor is not None and self.backdoor not in self.candidates:
            raise ValueError(f"backdoor={self.backdoor} is not one of {self.candidates}")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: pixels that ``mean`` and ``std`` do not bring to 0..1, or no images but those
            of a candidate.
          ValueError: a candidate that is no class, or outputs that lack.
        """
        victim = Victim(predict, self.logits, "", self.mean, self.std, "least_likely", self.seed)
        image, label, right = self._read(victim, ctx)
        tell = functools.partial(_said, victim, ctx.variables)
        names = getattr(self.data.source.info, "class_names", ())
        found: dict[int, float] = {}
        pictures = []
        for target in self.candidates:
            others = image[label != target]
            chosen = np.flatnonzero(label != target)[: self.images]
            delta = _climbed(victim, self.rule, self.samples)(
                ctx.variables, image[chosen], np.full(len(chosen), target), self.sigma
            )
            delta = np.asarray(delta)
            turned = [np.mean(tell(others + each).argmax(1) == target) for each in delta]
            found[target] = float(np.mean(turned))
            yield f"success_{target}", found[target]
            if target == self.backdoor and self.trigger is not None:
                mask = self.trigger.mask(*image.shape[1:3])
                inside = jax.jit(energy_inside)(delta, mask)
                yield "energy", float(np.mean(np.asarray(inside)))
                stamped = self.trigger.stamped(others)
                yield "trigger_success", float(np.mean(tell(stamped).argmax(1) == target))
            logits = tell(image[chosen[:1]] + delta[:1])[0]
            pictures.append(_picture(int(chosen[0]), target, delta[0], logits, names))
        if len(found) > 1:
            first, second = sorted(found.values(), reverse=True)[:2]
            yield "suspect", max(found, key=lambda target: found[target])
            yield "lead", first - second
        yield "accuracy", float(right.mean())
        yield "examples", len(image)
        yield "perturbations", Gallery(tuple(pictures))

    def _read(self, victim: Victim, ctx: EvalContext) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labelled images in 0..1, their labels, and which are told right."""
        rows = embed(victim.predict, ctx, self.data, (self.logits,), ("image", self.label))
        classes, name = rows[self.logits].shape[-1], self.data.source.info.name
        if max(self.candidates) >= classes:
            raise ValueError(f"candidates={self.candidates}, but classes are 0..{classes - 1}")
        labelled = rows[self.label] >= 0
        label = rows[self.label][labelled]
        for target in self.candidates:
            if (label == target).all():
                raise DataError(f"{name}: no labelled images but of class {target}")
        pixels = np.asarray(jax.jit(victim.pixels)(rows["image"][labelled]))
        if pixels.min() < -1e-3 or pixels.max() > 1 + 1e-3:
            raise DataError(
                f"{name}: with mean={self.mean} and std={self.std} pixels reach from "
                f"{pixels.min():.4g} to {pixels.max():.4g} and not from 0 to 1: set both to what "
                "data.ops normalise with"
            )
        return pixels.clip(0, 1), label, rows[self.logits][labelled].argmax(-1) == label


@functools.lru_cache(maxsize=16)
def _climbed(victim: Victim, rule: Inversion, samples: int) -> Any:
    def program(variables: Variables, images: Any, target: Any, sigma: Any) -> jax.Array:
        logits_fn = victim.of(variables, {"image": images})
        key = jax.random.key(victim.seed)
        return inverted(rule, logits_fn, images, target, key, sigma, samples)

    return jax.jit(program)


@functools.lru_cache(maxsize=16)
def _asked(victim: Victim) -> Any:
    def program(variables: Variables, images: jax.Array) -> jax.Array:
        return victim.of(variables, {"image": images})(jnp.clip(images, 0, 1))

    return jax.jit(program)


def _said(victim: Victim, variables: Variables, images: np.ndarray) -> np.ndarray:
    """Logits (N, K) of images that are clipped to 0..1."""
    ask = _asked(victim)
    parts = [ask(variables, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    return np.concatenate([np.asarray(part) for part in parts])


def _picture(
    index: int, target: int, delta: np.ndarray, logits: np.ndarray, names: tuple[str, ...]
) -> Picture:
    said = int(logits.argmax())
    to, now = (names[i] if i < len(names) else str(i) for i in (target, said))
    probability = np.exp(logits - logits.max())
    score = float(probability[said] / probability.sum())
    return Picture(index, f"to {to}", to, now, score, thumbnail({"image": delta}))
