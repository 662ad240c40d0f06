"""TexTile: whether a texture can be laid side by side, told by a classifier of what that gives.

A texture x is laid 2 x 2, resized to 512 pixels and shown to a network f of one logit, trained by
cross-entropy on textures that tile (1) and that do not (0). The measure is

    TexTile(x) = 1 / (1 + exp(-lambda f(x))),     lambda = 0.25

and its gradient mends textures: softplus(-f(x)) is a loss of x (``mend``), or one beside another in
synthesis. A texture that tiles still does when it is rolled around (``Rolled``), mirrored or
recoloured; a part cut out of it no longer does (``Cut``), which makes negatives of positives.

Rodriguez-Pardo et al., TexTile: A Differentiable Metric for Texture Tileability, 2024; authors'
code: crp94/textile. Headline: it agrees with people, where SSIM, LPIPS and FID do not. The tower is
ConvNeXt-B with residual linear attention before the third and the fourth stage, 16 heads of 128 and
256 channels (``tower``). Differences from the authors' code, of which the training is not public:
probability and size of the augmentations that keep or break tiling are ours; of those that break it
there is the cut alone, since rotation and shear of a texture cut it too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Fraction, Positive, checked
from vision.data.ops.base import Example, noted
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed
from vision.metrics.detection import auroc
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    classified,
)

SCORE = "tileability"
LAMBDA = 0.25


@dataclasses.dataclass(frozen=True)
@checked
class TellTiles(Objective):
    """Cross-entropy of one logit per texture; ``label`` int (B,) is 1 where it tiles, 0, or -1.

    ``predict`` gives ``tileability`` (B,) in 0..1, and ``logits`` (B, 2) of which the first is 0.

    Attributes:
      scale: lambda of the measure.
    """

    scale: Positive[float] = LAMBDA

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        logit, _, state = self._logit(variables, batch, ctx)
        tiles = batch["label"] == 1
        losses = jax.nn.softplus(jnp.where(tiles, -logit, logit))
        valid = batch["_mask"] & (batch["label"] >= 0)
        return averaged(losses, valid, state, top1=(logit > 0) == tiles)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        logit, embedding, _ = self._logit(variables, batch, ctx)
        both = jnp.stack([jnp.zeros_like(logit), logit], -1)
        return {**classified(both, embedding), SCORE: jax.nn.sigmoid(self.scale * logit)}

    def _logit(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, jax.Array, dict]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        if "logits" not in out or out["logits"].shape[-1] != 1:
            raise ValueError("the tower of TellTiles has one logit: set num_classes=1")
        return out["logits"][:, 0].astype(jnp.float32), out["embedding"], state


@dataclasses.dataclass(frozen=True)
class Rolled:
    """Rolls ``image`` (H, W, C) around by random rows and columns: it tiles as before."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = np.asarray(example["image"])
        rows, columns = (int(rng.integers(side)) for side in image.shape[:2])
        rolled = np.roll(image, (rows, columns), (0, 1))
        return noted({**example, "image": rolled}, "Rolled", rows=rows, columns=columns)


@dataclasses.dataclass(frozen=True)
@checked
class Cut:
    """Cuts a random part out of ``image`` (H, W, C), which then no longer tiles: label 0.

    Images with another label than 1 are cut too, so that the size of the result says nothing; the
    others that are left whole are resized by later ops.

    Attributes:
      probability: of a cut.
      least: smallest share of each side that is kept; the largest is 0.9.
    """

    probability: Fraction = 0.5
    least: Fraction = 0.5

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return noted(example, "Cut", box=None)
        image = np.asarray(example["image"])
        height, width = (
            max(1, int(rng.uniform(self.least, 0.9) * side)) for side in image.shape[:2]
        )
        y, x = (
            int(rng.integers(whole - part + 1))
            for whole, part in zip(image.shape[:2], (height, width), strict=True)
        )
        out = {**example, "image": image[y : y + height, x : x + width]}
        if int(example["label"]) == 1:
            out["label"] = np.int32(0)
        return noted(out, "Cut", box=(y, x, height, width))


@functools.partial(jax.jit, static_argnames=("logit", "steps"))
def mend(
    logit: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    steps: int,
    rate: float,
    weight: float,
) -> jax.Array:
    """Images (B, H, W, C) in -1..1 that tile better and are near those given.

    Gradient descent on softplus(-f(x)) + weight mean((x - x_0)^2) per image, its gradient
    normalised to a root mean square of 1.

    Args:
      logit: images to (B,).
      images: x_0.
      steps: number of steps.
      rate: of each, in units of pixels.
      weight: of the distance.
    """

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(jax.nn.softplus(-logit(x)) + weight * ((x - images) ** 2).mean((1, 2, 3)))

    def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        slope = jax.grad(loss)(x)
        size = jnp.sqrt(jnp.mean(slope**2, (1, 2, 3), keepdims=True))
        return jnp.clip(x - rate * slope / (size + 1e-12), -1, 1), None

    return jax.lax.scan(step, images, None, steps)[0]


def seam(images: np.ndarray) -> np.ndarray:
    """Mean step across the seams of images (N, H, W, C), over that between neighbours, (N,)."""
    x = np.asarray(images, np.float64)
    across = np.abs(x[:, 0] - x[:, -1]).mean((1, 2)) + np.abs(x[:, :, 0] - x[:, :, -1]).mean((1, 2))
    within = np.abs(np.diff(x, axis=1)).mean((1, 2, 3)) + np.abs(np.diff(x, axis=2)).mean((1, 2, 3))
    return across / np.maximum(within, 1e-12)


@dataclasses.dataclass(frozen=True)
@checked
class Tileability:
    """The mean of the measure over textures and, where they have labels, how well it tells them.

    Yields ``tileability``, the mean over images, ``examples``, with labels of both kinds ``auroc``
    of those that tell and ``accuracy`` (logit above 0), and, only where there are any,
    ``nonfinite`` (left out).

    Attributes:
      data: textures; ``label`` int (B,), 1 where it tiles, 0 where it does not, -1 for unknown.
    """

    data: EvaluationData

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          ValueError: ``predict`` does not give ``tileability``, or batches lack ``label``.
        """
        rows = embed(predict, ctx, self.data, (SCORE,), ("label",))
        scores, labels = rows[SCORE], rows["label"]
        finite = np.isfinite(scores)
        yield "tileability", float(scores[finite].mean()) if finite.any() else float("nan")
        yield "examples", len(scores)
        parts = [scores[finite & (labels == kind)] for kind in (1, 0)]
        if all(map(len, parts)):
            yield "auroc", auroc(*parts)
            right = (parts[0] > 0.5).sum() + (parts[1] <= 0.5).sum()
            yield "accuracy", float(right / sum(map(len, parts)))
        if count := int((~finite).sum()):
            yield "nonfinite", count
