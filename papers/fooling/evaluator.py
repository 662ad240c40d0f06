"""The evaluator of fooling images: an image for every class, and how sure the network is of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from papers.fooling.ascent import Ascent
from papers.fooling.encodings import Shape
from papers.fooling.method import Elites, MapElites, ascended, begun, evolved, nearest
from vision.blocks.attack import LogitsFn
from vision.config.ranges import NonEmpty, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Gallery, Line, Picture
from vision.evaluators.robustness.attacks import Victim
from vision.evaluators.thumbnail import thumbnail
from vision.train.objective import Variables

_LOOKS = 20  # points of the curve, between which an evolution is one program
_CLASSES = 100  # of an ascent at a time


@dataclasses.dataclass(frozen=True)
@checked
class Fooling:
    """An image for every class that a producer makes a classifier sure of, from nothing.

    Yields for every producer ``<name>_median`` and ``<name>_least``, over classes, of the
    probability of the class; ``<name>_fooled``, the share of classes whose image the network gives
    to the class; and ``<name>_distance``, the mean of the Euclidean distance of an image to the
    nearest of ``data``, divided by the root of the count of numbers in it. Beside them for ``data``
    itself: ``real_median``, of the largest probability; ``real_distance``, to the nearest other
    image; and ``examples``. The gallery ``<name>`` shows an image for each of the first ``shown``
    classes, ``median_by_generation`` evolutions from start to end. ``predict`` must need nothing of
    a batch but ``image``.

    Attributes:
      data: real images to compare with, floating-point; what it is normalised with are ``mean`` and
        ``std``.
      producers: name to ``MapElites`` or ``Ascent``.
      mean, std: of the normalisation in ``data.ops``, per channel or one for all, of images in
        0..1.
      examples: how many of ``data`` are compared with.
      shown: classes in a gallery.
      logits: name of the logits (B, K) that ``predict`` gives.
      seed: of all producers.
    """

    data: EvaluationData
    producers: NonEmpty[Mapping[str, MapElites | Ascent]]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive[float], ...] = (1.0,)
    examples: Positive[int] = 1000
    shown: Positive[int] = 16
    logits: str = "logits"
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")
        if "real" in self.producers:
            raise ValueError("producers: 'real' is what the images of data are called")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` until it has enough images.

        Raises:
          DataError: no images, or images that ``mean`` and ``std`` do not bring to 0..1.
          ValueError: ``predict`` lacks the logits, or images are integers.
        """
        victim = Victim(predict, self.logits, "", self.mean, self.std, "least_likely", self.seed)
        real, sure, dtype = self._real(victim, ctx)
        shape = (int(real.shape[1]), int(real.shape[2]), int(real.shape[3]))
        names, lines = getattr(self.data.source.info, "class_names", ()), []
        for name, producer in self.producers.items():
            if isinstance(producer, MapElites):
                images, history = _evolution(victim, producer, ctx.variables, shape, dtype, sure[1])
                x = np.linspace(0, producer.generations, len(history) + 1)[1:]
                lines.append(Line(name, x, np.median(history, 1)))
            else:
                images = _ascent(victim, producer, ctx.variables, shape, dtype, sure[1])
            probabilities = _said(victim, ctx.variables, images, dtype)
            own = np.diagonal(probabilities)
            yield f"{name}_median", float(np.median(own))
            yield f"{name}_least", float(own.min())
            right = probabilities.argmax(1) == np.arange(len(own))
            yield f"{name}_fooled", float(right.mean())
            yield f"{name}_distance", float(nearest(images, real).mean())
            yield name, Gallery(tuple(_pictures(images[: self.shown], probabilities, names)))
        yield "real_median", float(np.median(sure[0]))
        yield "real_distance", float(nearest(real, real, itself=True).mean())
        yield "examples", len(real)
        if lines:
            yield "median_by_generation", Curve(tuple(lines), "generation", "median confidence")

    def _real(self, victim: Victim, ctx: EvalContext) -> Any:
        """Images in 0..1, largest probabilities with the number of classes, and their dtype."""
        images: list[np.ndarray] = []
        sure: list[np.ndarray] = []
        classes, dtype, name = 0, np.dtype(np.float32), self.data.source.info.name
        for batch in ctx.batches(self.data):
            image, dtype = batch["image"], np.dtype(batch["image"].dtype)
            pixels = np.asarray(jax.device_get(victim.pixels(image)))
            valid = np.asarray(jax.device_get(batch["_mask"]), bool)
            low, high = (pixels[valid].min(), pixels[valid].max()) if valid.any() else (0, 1)
            if low < -1e-3 or high > 1 + 1e-3:
                raise DataError(
                    f"{name}: with mean={self.mean} and std={self.std} pixels reach from {low:.4g} "
                    f"to {high:.4g} and not from 0 to 1: set both to what data.ops normalise with"
                )
            said = _said(victim, ctx.variables, pixels, dtype)
            classes = said.shape[1]
            images.append(pixels[valid])
            sure.append(said.max(1)[valid])
            if sum(map(len, images)) >= self.examples:
                break
        if not sum(map(len, images)):
            raise DataError(f"{name}: no images to compare with")
        real = np.concatenate(images)[: self.examples]
        return real, (np.concatenate(sure)[: self.examples], classes), dtype


def _logits_fn(victim: Victim, variables: Variables, dtype: np.dtype) -> LogitsFn:
    def logits(pixels: jax.Array) -> jax.Array:
        return victim.of(variables, {"image": pixels.astype(dtype)})(pixels)

    return logits


def _evolution(
    victim: Victim,
    search: MapElites,
    variables: Variables,
    shape: Shape,
    dtype: np.dtype,
    classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The elites' images, and their confidences (looks, K) on the way."""
    key = jax.random.key(victim.seed)
    state = jax.jit(lambda key: begun(search, key, classes, shape))(key)
    each = -(-search.generations // _LOOKS)
    history, left = [], search.generations
    while left > 0:
        state = _generations(victim, search, shape, dtype, min(each, left))(variables, state)
        history.append(np.asarray(state.confidence))
        left -= each
    images = jax.jit(lambda genomes: search.encoding.render(genomes, shape))(state.genomes)
    return np.asarray(images), np.stack(history)


@functools.lru_cache(maxsize=32)
def _generations(
    victim: Victim, search: MapElites, shape: Shape, dtype: np.dtype, count: int
) -> Any:
    def program(variables: Variables, state: Elites) -> Elites:
        return evolved(search, _logits_fn(victim, variables, dtype), state, shape, count)[0]

    return jax.jit(program)


def _ascent(
    victim: Victim,
    producer: Ascent,
    variables: Variables,
    shape: Shape,
    dtype: np.dtype,
    classes: int,
) -> np.ndarray:
    program = _ascents(victim, producer, shape, dtype)
    labels = np.arange(classes)
    parts = [program(variables, labels[i : i + _CLASSES]) for i in range(0, classes, _CLASSES)]
    return np.concatenate([np.asarray(part) for part in parts])


@functools.lru_cache(maxsize=32)
def _ascents(victim: Victim, producer: Ascent, shape: Shape, dtype: np.dtype) -> Any:
    def program(variables: Variables, label: jax.Array) -> jax.Array:
        logits_fn = _logits_fn(victim, variables, dtype)
        return ascended(producer, logits_fn, jax.random.key(victim.seed), label, shape)

    return jax.jit(program)


def _said(victim: Victim, variables: Variables, images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Probabilities (N, K)."""
    program = _probabilities(victim, dtype)
    parts = [program(variables, images[i : i + _CLASSES]) for i in range(0, len(images), _CLASSES)]
    return np.concatenate([np.asarray(part) for part in parts])


@functools.lru_cache(maxsize=32)
def _probabilities(victim: Victim, dtype: np.dtype) -> Any:
    def program(variables: Variables, pixels: jax.Array) -> jax.Array:
        return jax.nn.softmax(_logits_fn(victim, variables, dtype)(pixels))

    return jax.jit(program)


def _pictures(
    images: np.ndarray, probabilities: np.ndarray, names: tuple[str, ...]
) -> Iterator[Picture]:
    for number, image in enumerate(images):
        of = [
            names[i] if i < len(names) else str(i) for i in (number, probabilities[number].argmax())
        ]
        png = thumbnail({"image": np.round(255 * image).astype(np.uint8)})
        score = float(probabilities[number].max())
        yield Picture(number, f"class {number}", of[0], of[1], score, png)
