"""RICS: the picture's own content chooses the crop that is classified, not the camera.

Shifman and Weiss, Lost in Translation: Modern Neural Networks Still Struggle With Small Realistic
Image Transformations, 2024. Headline: without training, answers change under a pixel for fewer
than 5 % of pictures, at 1 % of accuracy, and for none under cyclic moves.

In a picture of side H there are n = H - h + 1 places a side for a crop of side h. Each place q has
a score s(q) = g(crop at q), which is a function of the pixels that the crop shows and of nothing
else; the crop q* = argmax s(q) is classified. A picture that moved by (dx, dy) shows most of the
crops that it showed before, at other places, with the same scores: unless the winner has left, or
a new one came in, the classifier gets the same pixels, bit for bit. Where all orders of scores are
equally likely,

    P(same crop) = |both| / |either| = (n - |dx|)(n - |dy|) / (2 n^2 - (n - |dx|)(n - |dy|)),

(n - 1) / (n + 1) for a pixel along one axis: 95 % from n = 39. With ``cyclic`` the places are those
of a torus, none leaves or comes, and the answer never changes.

The paper leaves g open as far as its text goes. Two are here. ``filter``: the response of a fixed
random filter at the crop's centre; it likes edges, so the winner sits on the thing in the picture
rather than anywhere. ``hash``: a hash of all pixels of the crop, for which the formula is exact.
Both are computed in whole numbers: sums do not depend on their order, nor scores on the place. Of
equal responses the hash decides, so that a tie is no way for the place to come in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from vision.evaluate.evaluator import EvalContext, Evaluator, Predict
from vision.evaluate.figures import Figure
from vision.train.objective import Batch, Variables

Score = Literal["filter", "hash"]
_LEVELS = 256  # steps of a whole number in the range of the pixels


@dataclasses.dataclass(frozen=True)
class Rics:
    """An evaluator whose classifier looks at the crop that the picture's content chooses.

    The evaluator's data gives pictures larger than ``window_px``: of side H where the model without
    it has a crop in the middle. Its numbers are those of the evaluator.

    Attributes:
      evaluator: what is asked of the classifier, such as ``Translation``.
      window_px: side of the crop that the model gets.
      score: ``filter`` or ``hash``, see above.
      filter_px: side of the filter.
      cyclic: crops may reach over the edge and go on at the other.
      seed: of filter and hash.
    """

    evaluator: Evaluator
    window_px: int
    score: Score = "filter"
    filter_px: int = 5
    cyclic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise ValueError(f"score={self.score!r}: 'filter' or 'hash'")
        if not 1 <= self.filter_px <= self.window_px:
            raise ValueError(
                f"filter_px={self.filter_px}, window_px={self.window_px}: the filter has 1 pixel "
                "or more and fits into the window"
            )

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Errors are those of the evaluator, and ValueError of pictures below ``window_px``."""

        def chosen(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
            return predict(variables, {**batch, "image": self.crops(batch["image"])[0]})

        yield from self.evaluator.run(chosen, ctx)

    def crops(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of ``images`` (B, H, W, C): the crops (B, h, h, C), and int32 (B, 2), where they start.

        Traceable. Floating-point pixels are told apart down to 1/256.

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
            levels = jnp.round(images.astype(jnp.float32) * _LEVELS)
        levels = levels.astype(jnp.int32)
        tags = _hashes(levels, side, self.seed)
        if self.score == "filter":
            score = _responses(levels, side, self.filter_px, self.seed)
            best = score.max((1, 2), keepdims=True)
            tags = jnp.where(score == best, tags, 0)
        places = tags.shape[1:]
        flat = jnp.argmax(tags.reshape(len(tags), -1), 1)
        start = jnp.stack(jnp.unravel_index(flat, places), 1).astype(jnp.int32)

        def cut(image: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (at[0], at[1], 0), (side, side, image.shape[2]))

        return jax.vmap(cut)(images, start), start


def share_of_same_crops(n: int, down: int, right: int) -> float:
    """P(same crop) after a move, of ``n`` x ``n`` places whose scores may be in any order."""
    both = max(0, n - abs(down)) * max(0, n - abs(right))
    return both / (2 * n * n - both)


def _responses(levels: jax.Array, side: int, filter_px: int, seed: int) -> jax.Array:
    """int32 (B, n, m): a random odd filter at the centre of every crop of ``levels``."""
    rng = np.random.default_rng([seed, 0])
    taps = rng.integers(-64, 65, (filter_px, filter_px, levels.shape[3]))
    taps -= taps[::-1, ::-1].copy()  # odd: nothing where all is one colour
    first = (side - filter_px) // 2
    n, m = (size - side + 1 for size in levels.shape[1:3])
    total: Any = 0
    for i, j in np.ndindex(filter_px, filter_px):
        part = levels[:, first + i : first + i + n, first + j : first + j + m]
        total = total + (part * taps[i, j].astype(np.int32)).sum(-1, dtype=jnp.int32)
    return total


def _hashes(levels: jax.Array, side: int, seed: int) -> jax.Array:
    """uint32 (B, n, m), 1 or more: of all pixels of every crop, by sums modulo 2^32."""
    rng = np.random.default_rng([seed, 1])
    rows, columns, channels = (
        jnp.asarray(rng.integers(2**31, size=size) * 2 + 1, jnp.uint32)
        for size in (side, side, levels.shape[3])
    )
    mixed = (levels.astype(jnp.uint32) * channels).sum(-1, dtype=jnp.uint32)
    # Mixed beyond a linear map: else like pixels would make like hashes.
    for shift, odd in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ (mixed >> shift)) * jnp.uint32(odd)
    for axis, weights in ((1, rows), (2, columns)):
        mixed = _weighted(mixed, weights, axis)
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x7FEB352D)
    return ((mixed ^ (mixed >> 15)) >> 1) + 1


def _weighted(x: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Sums of ``weights`` over every run of as many entries of ``x`` along ``axis``."""
    places = x.shape[axis] - len(weights) + 1

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        return total + jax.lax.dynamic_slice_in_dim(x, i, places, axis) * weights[i]

    shape = (*x.shape[:axis], places, *x.shape[axis + 1 :])
    return jax.lax.fori_loop(0, len(weights), add, jnp.zeros(shape, jnp.uint32))
