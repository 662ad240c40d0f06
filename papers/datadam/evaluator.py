"""Accuracy of networks trained on the distilled images alone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from papers.datadam.siamese import STRATEGIES, siamese_augment
from vision.config.ranges import Positive, checked
from vision.data.pipeline import EvalData
from vision.evaluate.class_names import TrainedClasses
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.robustness.perturbed import answers
from vision.objectives.classify import Classify
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Cosine, TrainLength
from vision.train.state import State
from vision.train.step import Step
from vision.train.tower import Tower


@dataclasses.dataclass(frozen=True)
class SiameseAugment:
    """``papers.datadam.siamese`` as a batch op.

    Attributes:
      strategies: as of ``siamese_augment``.
    """

    strategies: tuple[str, ...] = STRATEGIES

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        return {**batch, "image": siamese_augment(batch["image"], key, self.strategies)}


@dataclasses.dataclass(frozen=True)
@checked
class TrainedOnSynthetic:
    """Networks trained from scratch on the synthetic images of a run and tested on real ones.

    Every batch has all synthetic images; SGD with momentum 0.9 and a cosine schedule.
    Yields ``top1`` (the mean over networks), ``top1_deviation`` (over networks, with N - 1),
    ``networks`` and ``examples``, and, only where there are any, ``nonfinite``.

    Attributes:
      data: real test images with ``label``.
      model: a tower with a head of as many classes as there are synthetic ones.
      networks: number of networks, with seeds 0, 1, ...
      steps: training steps of each.
      learning_rate: peak.
      weight_decay: coupled.
      strategies: of the augmentation during training; empty for none.
    """

    data: EvalData
    model: Tower
    networks: Positive[int] = 5
    steps: Positive[int] = 300
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    strategies: tuple[str, ...] = STRATEGIES

    trained_classes: ClassVar[TrainedClasses] = {"data": ("label",)}

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once per network.

        Raises:
          ValueError: the run has no such images.
        """
        if "images" not in ctx.variables.params:
            raise ValueError(
                f"TrainedOnSynthetic needs a network 'images' in the run's parameters; it "
                f"has {', '.join(ctx.variables.params)}"
            )
        batch = synthetic_batch(ctx.variables.params["images"]["pixels"])
        step = self._step(len(batch["label"]))
        train = jax.jit(lambda seed, batch: self._trained(step, seed, batch))
        predict_network = functools.partial(step.predict)
        scores, result = [], None
        for seed in range(self.networks):
            state = train(jnp.asarray(seed), batch)
            trained = dataclasses.replace(ctx, variables=state.variables, store=None)
            result = answers(predict_network, trained, self.data, "logits", "label")
            scores.append(float(result.right.mean()))
        yield "top1", float(np.mean(scores))
        if len(scores) > 1:
            yield "top1_deviation", float(np.std(scores, ddof=1))
        yield "networks", len(scores)
        assert result is not None
        yield "examples", int((result.labels >= 0).sum())
        if result.nonfinite:
            yield "nonfinite", result.nonfinite

    def _step(self, rows: int) -> Step:
        optimizer = Optimizer(
            sgd(0.9),
            self.learning_rate,
            Cosine(),
            weight_decay=self.weight_decay,
            decay="coupled",
        )
        ops = (SiameseAugment(self.strategies),) if self.strategies else ()
        train_length = TrainLength(rows, rows, total_steps=self.steps)
        return Step(Classify(self.model), optimizer, train_length, batch_ops=ops)

    def _trained(self, step: Step, seed: jax.Array, batch: Mapping[str, Any]) -> State:
        state = dataclasses.replace(step, seed=seed).init(batch)  # pyright: ignore - it may be traced

        def update(state: State, _: None) -> tuple[State, None]:
            return step.update(state, batch)[0], None

        return jax.lax.scan(update, state, None, length=self.steps)[0]


def synthetic_batch(pixels: jax.Array) -> dict[str, jax.Array]:
    """(K, n, H, W, C) as a training batch of K n rows."""
    classes, per_class = pixels.shape[:2]
    rows = classes * per_class
    return {
        "image": pixels.reshape(rows, *pixels.shape[2:]),
        "label": jnp.repeat(jnp.arange(classes, dtype=jnp.int32), per_class),
        "_mask": jnp.ones(rows, bool),
        "_index": jnp.arange(rows, dtype=jnp.int32),
    }
