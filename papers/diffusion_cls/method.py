"""Linear probes on U-Net features of a diffusion model, by block and noise level.

A denoising network learns features of image content. It stays frozen: the image is noised once to
step t, the U-Net runs, the map of block b is average-pooled to k x k, and a classifier is fitted:

    x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e,   f_{t,b}(x) = flatten(pool_{k x k}(U_b(x_t, t)))

The question is which (t, b) is best: enough noise to remove detail, too little to hide the class,
and a block early in the decoder.

Mukhopadhyay et al., Do Text-free Diffusion Models Learn Discriminative Visual Representations?
(Diffusion Models Beat GANs on Image Classification), 2023. Headline: 71.89 % on ImageNet by a head
of attention, 61.95 % by a linear one (unconfirmed), at t = 90 and block 24 of 37. Differences: of
the heads only the linear one (A) is here, not the MLP, the small CNN and the attention head; it is
fitted to its minimum on one noise sample per record, where the authors sample at every step.
CKA between two (t, b) is ``vision.metrics.representation.linear_cka`` of such features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.diffusion import Diffusion, row_noise
from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.features.probe import LinearProbe, RidgeProbe
from vision.evaluators.image_text.embeddings import Rows, embed
from vision.train.objective import Batch, Variables

Batches = Callable[[EvaluationData], Iterator[Batch]]


def features(
    predict: Predict,
    variables: Variables,
    batch: Batch,
    diffusion: Diffusion,
    time: jax.Array | int,
    pool: int = 2,
    seed: int = 0,
) -> dict[str, jax.Array]:
    """Name of a block to f_{t,b}, float32 (B, k k C).

    Args:
      predict: of ``vision.objectives.denoise.Denoise``.
      variables: the diffusion model's.
      batch: ``image`` (B, H, W, C), clean, and ``_index`` (B,), which decides a record's noise.
      diffusion: the schedule that the model was trained with.
      time: t, () or (B,).
      pool: k; smaller maps are not pooled.
      seed: of the noise.
    """
    image = batch["image"]
    noise = row_noise(jax.random.key(seed), batch["_index"], image.shape[1:])
    noised = {"image": diffusion.noised(image, jnp.asarray(time), noise), "time": time}
    out = predict(variables, noised)
    return {name: pooled(x, pool) for name, x in out.items() if name.startswith("block")}


def pooled(x: jax.Array, size: int) -> jax.Array:
    """(B, h, w, C) to float32 (B, size size C): means over boxes as equal in size as possible."""
    for axis in (1, 2):
        length = x.shape[axis]
        count = min(size, length)
        edges = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        parts = [
            jax.lax.slice_in_dim(x, low, high, axis=axis).mean(axis, dtype=jnp.float32)
            for low, high in edges
        ]
        x = jnp.stack(parts, axis=axis)
    return x.reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
@checked
class DiffusionProbe:
    """A linear probe of every (t, b) of a sweep; the objective is ``Denoise``.

    Yields what ``probe`` does under ``tTTT_BLOCK_``, then ``best_top1``, ``best_time`` and
    ``best_block`` (its number) of the pair that is best on the records that the probe held out,
    and the figure ``sweep``: top-1 over t, a line per block.

    Attributes:
      probe: with the data to fit and to evaluate; its ``output`` is not used.
      diffusion: as in the objective.
      times: t.
      blocks: b, such as ``block03``.
      pool: k.
      seed: of the noise.
    """

    probe: LinearProbe | RidgeProbe
    diffusion: Diffusion = Diffusion()  # noqa: RUF009 - frozen
    times: NonEmpty[tuple[NonNegative[int], ...]] = (10, 30, 90, 150, 300)
    blocks: NonEmpty[tuple[str, ...]] = ("block00",)
    pool: Positive[int] = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if max(self.times) >= self.diffusion.steps:
            raise ValueError(f"times={self.times}: steps from 0 to {self.diffusion.steps - 1}")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads the data once for every t; errors as in ``LinearProbe.run``."""

        def encode(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
            # A number per row in the batch: all steps share one compiled program.
            return features(
                predict, variables, batch, self.diffusion, batch["time"], self.pool, self.seed
            )

        results: dict[tuple[int, str], dict[str, float]] = {}
        for time in self.times:
            timed = dataclasses.replace(ctx, batches=_with_time(ctx, time), store=None)
            rows = [
                embed(encode, timed, data, self.blocks, (self.probe.label,))
                for data in (self.probe.train, self.probe.test)
            ]
            cached = dataclasses.replace(timed, batches=_from_rows(self.probe, *rows))
            for block in self.blocks:
                metrics = results[time, block] = {}
                probe = dataclasses.replace(self.probe, output=block)
                for name, value in probe.run(_identity, cached):
                    if isinstance(value, (int, float)):
                        metrics[name] = float(value)
                        yield f"t{time:03d}_{block}_{name}", metrics[name]
        best = max(results, key=lambda pair: results[pair]["held_out_top1"])
        yield "best_top1", results[best]["top1"]
        yield "best_time", best[0]
        yield "best_block", int(best[1].removeprefix("block"))
        x = np.asarray(self.times, np.float64)
        lines = [
            Line(block, x, np.asarray([results[t, block]["top1"] for t in self.times]))
            for block in self.blocks
        ]
        yield "sweep", Curve(tuple(lines), "step of noise", "top-1")


def _with_time(ctx: EvalContext, time: int) -> Batches:
    def batches(data: EvaluationData) -> Iterator[Batch]:
        for batch in ctx.batches(data):
            yield {**batch, "time": jnp.full_like(batch["_index"], time)}

    return batches


def _from_rows(probe: LinearProbe | RidgeProbe, train: Rows, test: Rows) -> Batches:
    """The features of the probe's data, all rows as one batch."""

    def batches(data: EvaluationData) -> Iterator[Batch]:
        rows = train if data is probe.train else test
        yield {name: jnp.asarray(x) for name, x in rows.items()} | {
            "_mask": jnp.ones(len(rows["_index"]), bool)
        }

    return batches


def _identity(variables: Variables, batch: Batch) -> dict[str, jax.Array]:
    return dict(batch)
