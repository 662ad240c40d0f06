"""RICS: robustness to translation by classifying a crop that is selected by its content.

Shifman and Weiss, Lost in Translation: Modern Neural Networks Still Struggle With Small Realistic
Image Transformations, 2024. Headline: without training, predictions change under a shift by one
pixel for fewer than 5 % of images, at 1 % of accuracy, and for none under cyclic shifts.

An image of side H has n = H - h + 1 positions per axis for a crop of side h. Each position q has a
score s(q) = g(crop at q), a function of the pixels of the crop alone; the crop q* = argmax s(q) is
classified. An image shifted by (dx, dy) contains most of the same crops, at other positions with
the same scores: unless the best crop leaves the image, or a better one enters, the classifier gets
the same pixels, bit for bit. If all orders of the scores are equally likely,

    P(same crop) = |both| / |either| = (n - |dx|)(n - |dy|) / (2 n^2 - (n - |dx|)(n - |dy|)),

(n - 1) / (n + 1) for one pixel along one axis: 95 % from n = 39. With ``cyclic`` the positions are
those of a torus, no crop leaves or enters, and the prediction never changes.

Difference: the paper's text does not define g, so there are two. ``filter``: the response of a
fixed random filter at the crop's centre; it is large at edges, so the crop is likely centred on an
object. ``hash``: a hash of all pixels of the crop, for which the formula is exact. Both are
computed in integers, so that sums do not depend on their order and scores not on the position. Ties
of the response are broken by the hash, not by position.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp

from papers.rics.scores import LEVELS, hashes, responses
from vision.config.ranges import Positive, checked
from vision.evaluate.evaluator import EvalContext, Evaluator, Predict
from vision.evaluate.figures import Figure
from vision.train.objective import Batch, Variables

Score = Literal["filter", "hash"]


@dataclasses.dataclass(frozen=True)
@checked
class Rics:
    """An evaluator whose classifier gets the crop that is selected by the image's content.

    The data of the wrapped evaluator has images of side H, larger than ``window_px``, where the
    model alone would use a centre crop. Yields what that evaluator yields.

    Attributes:
      evaluator: the wrapped evaluator, such as ``Translation``.
      window_px: side of the crop that is the model's input.
      score: ``filter`` or ``hash``, see above.
      filter_px: side of the filter.
      cyclic: crops may wrap around the edges.
      seed: of filter and hash.
    """

    evaluator: Evaluator
    window_px: Positive[int]
    score: Score = "filter"
    filter_px: Positive[int] = 5
    cyclic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.filter_px > self.window_px:
            raise ValueError(
                f"filter_px={self.filter_px} does not fit into window_px={self.window_px}"
            )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Raises what the evaluator raises, and ValueError for images below ``window_px``."""

        def predict_on_crops(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
            return predict(variables, {**batch, "image": self.crops(batch["image"])[0]})

        yield from self.evaluator.run(predict_on_crops, ctx)

    def crops(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Selected crops (B, h, h, C) of ``images`` (B, H, W, C) and their origins, int32 (B, 2).

        Traceable. Floating-point pixels are quantised to 1/256 for the scores.

        Raises:
          ValueError: images smaller than the window.
        """
        side = self.window_px
        if images.ndim != 4 or min(images.shape[1:3]) < side:
            raise ValueError(
                f"images are {list(images.shape)}; window_px={side} needs (B, H, W, C) of as much"
            )
        if self.cyclic:
            images = jnp.pad(images, ((0, 0), (0, side - 1), (0, side - 1), (0, 0)), mode="wrap")
        levels = images
        if jnp.issubdtype(images.dtype, jnp.floating):
            levels = jnp.round(images.astype(jnp.float32) * LEVELS)
        levels = levels.astype(jnp.int32)
        keys = hashes(levels, side, self.seed)
        if self.score == "filter":
            score = responses(levels, side, self.filter_px, self.seed)
            best = score.max((1, 2), keepdims=True)
            keys = jnp.where(score == best, keys, 0)
        grid = keys.shape[1:]
        flat = jnp.argmax(keys.reshape(len(keys), -1), 1)
        start = jnp.stack(jnp.unravel_index(flat, grid), 1).astype(jnp.int32)

        def cut(image: jax.Array, origin: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(
                image, (origin[0], origin[1], 0), (side, side, image.shape[2])
            )

        return jax.vmap(cut)(images, start), start


def share_of_same_crops(n: int, down: int, right: int) -> float:
    """P(same crop) after a shift, for ``n`` x ``n`` positions with scores in random order."""
    both = max(0, n - abs(down)) * max(0, n - abs(right))
    return both / (2 * n * n - both)
