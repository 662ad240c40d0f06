"""Evaluation of MuSc: anomalies among unlabelled images, by image and by pixel."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import numpy as np
from annotated_types import Gt, Lt

from papers.musc.at_sites import AtSites
from papers.musc.method import aggregated, enlarged, mutual_scores, rescored
from vision.blocks.activation_maps import as_maps
from vision.config.ranges import NonEmpty, NonNegative, Odd, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed
from vision.metrics.detection import auroc, average_precision, best_f1
from vision.metrics.localisation import region_overlap


@dataclasses.dataclass(frozen=True)
@checked
class MutualScoring:
    """The images of ``data`` score each other; labels and masks are only compared with.

    Yields ``image_auroc``, ``image_ap`` and ``image_f1`` of the images' scores, ``pixel_auroc``,
    ``pixel_ap``, ``pixel_f1`` and ``pro`` (up to a false positive rate of 0.3) of the maps where
    there are ``masks``, all 0..1; then ``examples`` and ``anomalous``.

    Attributes:
      data: images of one kind, some of them anomalous. Batches have ``image`` (B, H, W, C).
      sites: of the tower, whose maps are scored, (B, h, w, C) or (B, prefix + h w, C).
      neighbourhoods: r, odd.
      share: of the other images, those with the closest match, above 0 and below 1.
      neighbours: of the re-scoring; (1,) for none.
      prefix: number of tokens before the patches.
      label: name of an int (B,) entry, 0 for a normal image.
      masks: name of a bool entry, (B, H, W) or (B, K, H, W) for K parts; "" for none.
      features: name of (B, D) that ``predict`` gives, by which images are alike.
    """

    data: EvaluationData
    sites: NonEmpty[tuple[str, ...]]
    neighbourhoods: NonEmpty[tuple[Odd, ...]] = (1, 3, 5)
    share: Annotated[float, Gt(0), Lt(1)] = 0.3
    neighbours: NonEmpty[tuple[Positive[int], ...]] = (1, 2, 3)
    prefix: NonNegative[int] = 0
    label: str = "label"
    masks: str = "masks"
    features: str = "embedding"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: all images are normal, or all anomalous.
          SiteError: the tower has no such site.
          ValueError: too few images, or ``predict`` or the batches lack what is needed.
        """
        outputs = tuple(f"site/{name}" for name in self.sites)
        fields = ("image", self.label, *((self.masks,) if self.masks else ()))
        names = (*outputs, self.features)
        rows = embed(AtSites(predict, self.sites), ctx, self.data, names, fields)
        odd = rows[self.label] != 0
        if odd.all() or not odd.any():
            name, kind = self.data.source.info.name, "anomalous" if odd.all() else "normal"
            raise DataError(f"{name}: all {len(odd)} images are {kind} by {self.label!r}")
        size: Any = rows["image"].shape[1:3]
        heat = self.heat([rows[name] for name in outputs], size)
        scores = rescored(heat.max((1, 2)), rows[self.features], self.neighbours)
        yield "image_auroc", auroc(scores[odd], scores[~odd])
        yield "image_ap", average_precision(scores[odd], scores[~odd])
        yield "image_f1", best_f1(scores[odd], scores[~odd])
        if self.masks:
            mask = rows[self.masks] != 0
            mask = mask.any(1) if mask.ndim == 4 else mask
            if mask.shape != heat.shape:
                raise ValueError(f"{self.masks!r} is {mask.shape} beside images {heat.shape}")
            inside, outside = heat[mask], heat[~mask]
            yield "pixel_auroc", auroc(inside, outside)
            yield "pixel_ap", average_precision(inside, outside)
            yield "pixel_f1", best_f1(inside, outside)
            yield "pro", region_overlap(heat, mask)
        yield "examples", len(odd)
        yield "anomalous", int(odd.sum())

    def heat(self, maps: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
        """Maps float32 (N, H, W), 0..2, of images of ``size`` from what sites give of them."""
        large = []
        for x in maps:
            grid = np.asarray(as_maps(x[:, self.prefix :] if x.ndim == 3 else x, size))  # pyright: ignore
            scored = [np.asarray(_scored(grid, r, self.share)) for r in self.neighbourhoods]
            large.append(enlarged(np.mean(scored, 0), size))
        return np.mean(large, 0)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _scored(maps: jax.Array, neighbourhood: int, share: float) -> jax.Array:
    scores = mutual_scores(aggregated(maps, neighbourhood), share)
    return scores.reshape(maps.shape[:3])
