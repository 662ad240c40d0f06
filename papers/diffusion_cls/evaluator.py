"""Probes on the features of a diffusion model, for every block and noise level."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from papers.diffusion_cls.method import features
from vision.blocks.diffusion import Diffusion
from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line
from vision.evaluators.features.probe import LinearProbe, RidgeProbe
from vision.evaluators.image_text.embeddings import Rows, embed
from vision.train.objective import Batch, Variables

Batches = Callable[[EvaluationData], Iterator[Batch]]


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
