"""RIGID: features of generated images move further under a little noise than those of real ones.

He, Chen and Ho, RIGID: A Training-free and Model-Agnostic Framework for Robust AI-Generated Image
Detection, 2024. Headline: on average more than 25 % above the best rival that is not trained.

    s(x) = cos(f(x), f(x + lambda d)),    d ~ N(0, I),    lambda = 0.05 of pixels in 0..1,

f being the embedding of a frozen tower (DINOv2's ViT-L/14). An image counts as real where s is
above the 5th percentile of s on real calibration images. With lambda = 0 every s is 1.

No code of the authors was found; what is here follows the paper. Differences: s may be a mean over
several draws; a record's noise depends on the seed and its place in the source, not on its batch;
noise is not clipped to the range of pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.similarity import unit
from vision.config.ranges import Finite, Fraction, NonEmpty, NonNegative, Positive, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed
from vision.metrics.detection import auroc, average_precision
from vision.train.objective import Batch, Variables

SCORE = "rigid/score"


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """``predict`` that also gives ``rigid/score`` float32 (B,), -1..1: s of every image.

    Attributes:
      predict: of the run.
      scale: lambda, of pixels in 0..1.
      std: by what pixels in 0..1 were divided, for all channels or for each.
      draws: of the noise, over which s is a mean.
      seed: of the noise.
      features: name of (B, D) that ``predict`` gives.
    """

    predict: Predict
    scale: float = 0.05
    std: tuple[float, ...] = (1.0,)
    draws: int = 1
    seed: int = 0
    features: str = "embedding"

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        image = batch["image"]
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise ValueError(f"'image' is {image.dtype}: put ops.ValueRange into data.ops")
        if len(self.std) not in (1, image.shape[-1]):
            raise ValueError(f"std={self.std}: one, or one for each of {image.shape[-1]} channels")
        outputs = self.predict(variables, batch)
        if self.features not in outputs:
            raise ValueError(f"predict gives {', '.join(sorted(outputs))}, not {self.features!r}")
        clean = unit(outputs[self.features])
        step = self.scale / jnp.asarray(self.std, image.dtype)

        def cosine(draw: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.key(self.seed), draw)

            def noise(index: jax.Array) -> jax.Array:
                return jax.random.normal(jax.random.fold_in(key, index), image.shape[1:])

            moved = image + step * jax.vmap(noise)(batch["_index"]).astype(image.dtype)
            noisy = self.predict(variables, {**batch, "image": moved})[self.features]
            return jnp.sum(clean * unit(noisy), -1)

        return {**outputs, SCORE: jax.lax.map(cosine, jnp.arange(self.draws)).mean(0)}


def threshold(calibration: np.ndarray, kept: float = 0.95) -> float:
    """The score that a share ``kept`` of real ones (N,) lies above, straight between scores."""
    return float(np.quantile(calibration, 1 - kept))


@dataclasses.dataclass(frozen=True)
@checked
class NoiseSensitivity:
    """Real images told from generated ones by their sensitivity to noise.

    For every lambda and generator yields ``<generator>_<lambda>_auroc``, ``_ap`` (average precision
    of real ones) and ``_accuracy`` (mean of the shares of real and of generated ones that are
    right at the threshold); for every lambda ``<lambda>_auroc`` and so on, the means over
    generators, and ``<lambda>_threshold``; then ``examples`` and, where there are any,
    ``nonfinite`` (left out). One lambda says little: for other towers than the authors' the order
    of real and generated can be the other way round (AUROC below 0.5), so give several.

    Attributes:
      calibration: real images, for the threshold.
      real: real images to ask about.
      generated: name of a generator to its images.
      scales: lambdas, of pixels in 0..1.
      std: by what pixels in 0..1 were divided: 0.5 for -1..1.
      draws: of the noise.
      kept: share of real calibration images above the threshold.
      seed: of the noise.
      features: name of (B, D) that ``predict`` gives.
    """

    calibration: EvaluationData
    real: EvaluationData
    generated: NonEmpty[Mapping[str, EvaluationData]]
    scales: NonEmpty[tuple[NonNegative[Finite], ...]] = (0.05,)
    std: NonEmpty[tuple[Positive[float], ...]] = (1.0,)
    draws: Positive[int] = 1
    kept: Fraction = 0.95
    seed: int = 0
    features: str = "embedding"

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads every set once for every lambda.

        Raises:
          DataError: a set without a record of finite scores.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        examples = nonfinite = 0
        for scale in self.scales:
            scoring = Sensitivity(predict, scale, self.std, self.draws, self.seed, self.features)
            scores: list[np.ndarray] = []
            for data in (self.calibration, self.real, *self.generated.values()):
                rows = embed(scoring, ctx, data, (SCORE,))[SCORE]
                finite = np.isfinite(rows)
                if not finite.any():
                    raise DataError(f"{data.source.info.name}: no record with a finite score")
                nonfinite += int((~finite).sum())
                scores.append(rows[finite])
            examples = sum(map(len, scores[1:]))
            calibration, real, *others = scores
            limit, numbers = threshold(calibration, self.kept), []
            yield f"{scale:g}_threshold", limit
            for name, x in zip(self.generated, others, strict=True):
                right = ((real > limit).mean() + (x <= limit).mean()) / 2
                numbers.append((auroc(real, x), average_precision(real, x), float(right)))
                for key, value in zip(("auroc", "ap", "accuracy"), numbers[-1], strict=True):
                    yield f"{name}_{scale:g}_{key}", value
            means = np.mean(numbers, 0)
            for key, value in zip(("auroc", "ap", "accuracy"), means, strict=True):
                yield f"{scale:g}_{key}", float(value)
        yield "examples", examples
        if nonfinite:
            yield "nonfinite", nonfinite
