"""Evaluation of label propagation on clips: J and F of masks, and PCK of points."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from papers.label_prop.method import Propagation, cells_of
from papers.label_prop.points import heat_maps, peaks
from papers.label_prop.video import boundary, correct_points, decay, recall, region
from vision.blocks.sites import activations
from vision.config.ranges import NonEmpty, Positive, checked
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.train.objective import Batch, Variables


@dataclasses.dataclass(frozen=True)
@checked
class LabelPropagation:
    """An evaluator: J and F of propagated masks, and PCK of the centres of boxes.

    Yields ``j``, ``f``, ``jf`` (means over objects of their means over frames but the first),
    ``j_recall``, ``f_recall``, ``j_decay``, ``f_decay``; with ``boxes`` ``pck_10`` and ``pck_20``
    (of points within 10 and 20 % of the longer side of their first box); ``objects`` and ``clips``,
    and the figure ``j_by_frame``.

    Attributes:
      clips: uint8 ``video`` (B, T, H, W, C) and ``instances`` (B, T, H, W), 0 for background
        and k + 1 for object k. Objects that are not visible in the first frame are left out.
      objects: maximum number of objects of a clip.
      sites: of the tower, whose maps (B, h, w, D) are concatenated; all of one size.
      weights: of each site's unit features; empty for equal ones.
      propagation: the propagation and its factors.
      boxes: name of (B, T, K, 4) boxes, y0, x0, y1, x1; "" for none.
      mean, std: of the tower's normalisation of pixels in 0..1: one for all channels, or one each.
    """

    clips: EvalData
    objects: Positive[int] = 10
    sites: NonEmpty[tuple[str, ...]] = ("map",)
    weights: tuple[float, ...] = ()
    propagation: Propagation = Propagation()  # noqa: RUF009 - frozen
    boxes: str = ""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Positive[float], ...] = (1.0,)

    def __post_init__(self) -> None:
        if len(self.weights) not in (0, len(self.sites)):
            raise ValueError(
                f"weights={self.weights}: one for each of {len(self.sites)} sites, or none"
            )
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``clips`` once.

        Raises:
          DataError: no object to follow.
          SiteError: the tower has no such site.
          ValueError: the batches lack what is needed.
        """
        regions: list[np.ndarray] = []
        boundaries: list[np.ndarray] = []
        points: dict[int, list[np.ndarray]] = {10: [], 20: []}
        count = 0
        for batch in ctx.batches(self.clips):
            names = ("video", "instances", *((self.boxes,) if self.boxes else ()))
            if missing := [name for name in names if name not in batch]:
                raise ValueError(
                    f"a batch of {self.clips.source.info.name} has no {missing[0]!r}; it has "
                    f"{', '.join(sorted(batch))}"
                )
            program = _program(predict, _without_clips(self), _replicated(batch["_mask"]))
            results = jax.device_get(program(ctx.variables, dict(batch)))
            truth = results["instances"]
            for i in np.flatnonzero(results["_mask"]):
                count += 1
                visible = [k for k in range(1, self.objects + 1) if (truth[i, 0] == k).any()]
                for k in visible:
                    frames = range(1, truth.shape[1])
                    pairs = [(results["masks"][i, t] == k, truth[i, t] == k) for t in frames]
                    regions.append(np.asarray([region(*pair) for pair in pairs]))
                    boundaries.append(np.asarray([boundary(*pair) for pair in pairs]))
                if self.boxes and visible:
                    boxes = results["boxes"][i].astype(np.float64)[:, np.asarray(visible) - 1]
                    size = (boxes[0, :, 2:] - boxes[0, :, :2]).max(-1)
                    centres = (boxes[1:, :, :2] + boxes[1:, :, 2:] - 1) / 2
                    predicted = results["points"][i, 1:][:, np.asarray(visible) - 1]
                    for share, correct in points.items():
                        correct.append(
                            correct_points(predicted, centres, size, share / 100).ravel()
                        )
        if not regions:
            raise DataError(f"{self.clips.source.info.name}: no object to follow")
        both = {"j": np.stack(regions), "f": np.stack(boundaries)}
        yield from ((name, float(x.mean())) for name, x in both.items())
        yield "jf", float(both["j"].mean() + both["f"].mean()) / 2
        for name, x in both.items():
            yield f"{name}_recall", float(np.mean([recall(curve) for curve in x]))
            yield f"{name}_decay", float(np.mean([decay(curve) for curve in x]))
        for share, correct in points.items():
            if correct:
                yield f"pck_{share}", float(np.concatenate(correct).mean())
        yield "objects", len(regions)
        yield "clips", count
        x = np.arange(1, both["j"].shape[1] + 1, dtype=np.float64)
        lines = tuple(Line(name, x, values.mean(0)) for name, values in both.items())
        yield "j_by_frame", Curve(lines, "frame", "J and F")


def _without_clips(evaluator: LabelPropagation) -> Any:
    """The evaluator without its data: what the compiled program depends on."""
    return dataclasses.replace(evaluator, clips=None)  # pyright: ignore[reportArgumentType]


def _replicated(x: jax.Array) -> Any:
    """A sharding that replicates ``x`` on every device, so that every process can read it."""
    if isinstance(x.sharding, NamedSharding):
        return NamedSharding(x.sharding.mesh, PartitionSpec())
    return x.sharding


@functools.lru_cache(maxsize=32)
def _program(predict: Predict, evaluator: LabelPropagation, sharding: Any) -> Any:
    predict_with_tap: Any = predict
    classes = evaluator.objects + 1

    def program(variables: Variables, batch: Batch) -> Mapping[str, jax.Array]:
        video = batch["video"]
        clips, frames, height, width, channels = video.shape
        pixels = video.reshape(clips * frames, height, width, channels).astype(jnp.float32) / 255
        images = (pixels - jnp.asarray(evaluator.mean)) / jnp.asarray(evaluator.std)
        maps = activations(
            lambda tap: predict_with_tap(variables, {"image": images}, tap), evaluator.sites
        )
        features = fused(maps, evaluator.weights)
        size: Any = features.shape[1:3]
        features = features.reshape(clips, frames, *features.shape[1:])
        first = jax.nn.one_hot(batch["instances"][:, 0].astype(jnp.int32), classes)

        def clip(inputs: Any) -> dict[str, jax.Array]:
            features, first, *boxes = inputs
            labels = evaluator.propagation(features, cells_of(first, size))
            large = jax.image.resize(labels, (frames, height, width, classes), "linear")
            predictions = {"masks": jnp.argmax(large, -1).astype(jnp.uint8)}
            if boxes:
                scale = jnp.asarray([height / size[0], width / size[1]])
                centres = (boxes[0][0, :, :2] + boxes[0][0, :, 2:]) / 2 / scale - 0.5
                heat = evaluator.propagation(features, heat_maps(centres, size))
                predictions["points"] = (peaks(heat) + 0.5) * scale - 0.5
            return predictions

        inputs = (features, first, *((batch[evaluator.boxes],) if evaluator.boxes else ()))
        outputs = {"instances": batch["instances"], "_mask": batch["_mask"]}
        if evaluator.boxes:
            outputs["boxes"] = batch[evaluator.boxes]
        return {**jax.lax.map(clip, inputs), **outputs}

    return jax.jit(program, out_shardings=sharding)


def fused(maps: list[jax.Array], weights: tuple[float, ...]) -> jax.Array:
    """Unit features of maps (N, h, w, D_s), each times its weight, side by side."""
    parts = []
    for x, weight in zip(maps, weights or (1.0,) * len(maps), strict=True):
        x = x.astype(jnp.float32)
        length = jnp.sqrt((x**2).sum(-1, keepdims=True))
        parts.append(math.sqrt(weight) * x / jnp.where(length > 0, length, 1))
    return jnp.concatenate(parts, -1)
