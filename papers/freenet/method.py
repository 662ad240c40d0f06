"""FreeNet: every pixel of a hyperspectral scene is classified in one pass over all of it.

The encoder (``tower``) is a 3 x 3 convolution with GroupNorm and ReLU, then four levels of channel
gates (SE) and such convolutions, with 3 x 3 convolutions of stride 2 and ReLU in between. The
decoder goes up again: the level above, repeated to twice its size, is added to a 1 x 1 convolution
of the level, a 3 x 3 convolution follows, and at full size a 1 x 1 convolution gives the logits.

Global stratified sampling (``strata``) makes it trainable from a few hundred pixels per class:
every step sees the whole scene, and its loss the pixels w of one stratum only, as many of every
class,

    L = sum_p w_p CE(f(x)_p, y_p) / sum_p w_p

A pass over all strata has every learned pixel once; the strata of each pass are drawn anew.

Zheng et al., FPGA: Fast Patch-Free Global Learning Framework for Fully End-to-End Hyperspectral
Image Classification, 2020. Headline: more than 99 % of the pixels of Pavia University and Salinas
from 200 per class (figures unconfirmed), much faster than networks that read a patch per pixel.

Differences from the authors' code: theirs has four 3 x 3 convolutions in the decoder, uses the
first one twice and the last never; here each level has its own, and as many parameters. Their
permutations come from other generators, so that other pixels are learned from. They mark padding as
no class and so do we.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.config.ranges import Positive, checked
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import ConfusionMatrix, Figure
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply
from vision.train.schedule import TrainLength


@dataclasses.dataclass(frozen=True)
class StratumLoss(Objective):
    """Cross-entropy of the pixels of ``batch["counted"]``, as ``strata.LabelledPixels`` has them.

    Logged is ``pixels``, the share of these that are named right.
    """

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        logits, label = out["logits"].astype(jnp.float32), batch["label_map"]
        counted = batch["counted"] & (label >= 0) & batch["_mask"][:, None, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(label, 0))
        number = counted.sum()
        share = counted / jnp.maximum(number, 1)
        right = jnp.sum((logits.argmax(-1) == label) * share)
        return jnp.sum(losses * share), Aux({"pixels": right}, state, weight=number)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        out, _ = apply(self.model, variables, batch["image"], ctx)
        return {"logits": out["logits"].astype(jnp.float32)}


@dataclasses.dataclass(frozen=True)
class PixelAccuracy:
    """``overall`` and ``average`` (over classes that are there) accuracy of the counted pixels,
    Cohen's ``kappa``, and their confusion.

    Attributes:
      data: of ``strata.LabelledPixels``.
    """

    data: EvaluationData
    # Of a scene whose classes have another order than the run's, the map is refused by name.
    trained_classes: ClassVar[TrainedClasses] = {"data": ("label_map",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        names = self.data.source.info.class_names
        table = np.zeros((len(names), len(names)), np.int64)
        call = jax.jit(lambda variables, batch: predict(variables, batch)["logits"].argmax(-1))
        for batch in ctx.batches(self.data):
            told = np.asarray(call(ctx.variables, batch))
            label = np.asarray(batch["label_map"])
            counted = np.asarray(batch["counted"]) & np.asarray(batch["_mask"])[:, None, None]
            counted &= label >= 0
            np.add.at(table, (label[counted], told[counted]), 1)
        yield from accuracies(table).items()
        yield "confusion", ConfusionMatrix(table, names)


def accuracies(table: np.ndarray) -> dict[str, float]:
    """Overall and average accuracy and kappa of a confusion matrix, truth in rows, by counts."""
    total, right, of_class = table.sum(), np.diag(table), table.sum(1)
    if not total:
        raise ValueError("no pixel is counted: every labelled one is learned from")
    overall, there = right.sum() / total, of_class > 0
    expected = float(of_class @ table.sum(0)) / float(total) ** 2
    kappa = (overall - expected) / (1 - expected) if expected < 1 else 1.0
    average = np.mean(right[there] / of_class[there])
    return {"overall": float(overall), "average": float(average), "kappa": float(kappa)}


@checked
@dataclasses.dataclass(frozen=True)
class Polynomial:
    """``(1 - step / total) ** power``.

    Attributes:
      power: 1 is a line.
    """

    power: Positive[float] = 0.9

    def __call__(self, step: jax.Array, train_length: TrainLength) -> jax.Array:
        return (1 - jnp.minimum(step / train_length.total_steps, 1.0)) ** self.power
