"""Regression: one number, or several, per image."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vision.config.ranges import Positive, checked
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged

_SCALE = "target"


@dataclasses.dataclass(frozen=True)
@checked
class Regress(Objective):
    """Numbers from images, such as an age, a quality or a position.

    The head has one output per number (``num_classes``), in standard deviations of the target from
    its mean, both of the first training batch; they are kept in the checkpoint. ``predict`` gives
    ``prediction`` in the target's own unit. Logged is ``mae``, the mean absolute error in it.

    ``batch[target]`` is real, (B,) or (B, T); where ``batch[<target>_known]`` bool (B,) is False
    there is none (``Number(optional=True)``).

    Attributes:
      model: a tower with a head of T outputs; filled in from ``config.model``.
      target: name of the numbers in the batch.
      error: ``squared``; ``absolute``; ``huber``, which is squared up to ``delta`` and absolute
        beyond, so that single wrong targets weigh less.
      delta: of ``huber``, in standard deviations of the target.
    """

    target: str = "target"
    error: Literal["squared", "absolute", "huber"] = "squared"
    delta: Positive[float] = 1.0

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        numbers = self._targets(batch)[0].shape[1]
        scale = {"mean": jnp.zeros(numbers), "std": jnp.ones(numbers)}
        return super().init(key, batch).merge(extra_state={_SCALE: scale})

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """Takes the mean and the standard deviation of the first batch's targets."""
        targets, known = self._targets(batch)
        share = known[:, None] / jnp.maximum(known.sum(), 1)
        mean = (share * targets).sum(0)
        std = jnp.sqrt((share * (targets - mean) ** 2).sum(0))
        scale = {"mean": mean, "std": jnp.where(std > 0, std, 1)}
        return variables.merge(extra_state={_SCALE: scale})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        targets, known = self._targets(batch)
        outputs, state, _ = self._outputs(variables, batch, ctx)
        if outputs.shape != targets.shape:
            raise ValueError(
                f"the model gives {outputs.shape[1]} numbers and {self.target!r} has "
                f"{targets.shape[1]}: set config.model.num_classes={targets.shape[1]}"
            )
        scale: Any = variables.extra_state[_SCALE]
        errors = outputs - (targets - scale["mean"]) / scale["std"]
        losses = {
            "squared": lambda: jnp.square(errors),
            "absolute": lambda: jnp.abs(errors),
            "huber": lambda: optax.huber_loss(errors, delta=self.delta),
        }[self.error]()
        mae = (jnp.abs(errors) * scale["std"]).mean(1)
        return averaged(losses.mean(1), known, state, mae=mae)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``prediction`` (B,), of several numbers (B, T), and ``embedding`` (B, D), float32."""
        outputs, _, embedding = self._outputs(variables, batch, ctx)
        scale: Any = variables.extra_state[_SCALE]
        prediction = outputs * scale["std"] + scale["mean"]
        prediction = prediction[:, 0] if prediction.shape[1] == 1 else prediction
        return {"prediction": prediction, "embedding": embedding.astype(jnp.float32)}

    def _outputs(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[Any, Any, Any]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        return out["logits"].astype(jnp.float32), state, out["embedding"]

    def _targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """float32 (B, T), and which rows have them, bool (B,)."""
        if self.target not in batch:
            raise ValueError(f"a batch has no {self.target!r}; it has {', '.join(sorted(batch))}")
        targets = batch[self.target]
        if targets.ndim not in (1, 2) or not jnp.issubdtype(targets.dtype, jnp.floating):
            raise ValueError(
                f"{self.target!r} is {targets.dtype}{list(targets.shape)}; regression needs real "
                "numbers (B,) or (B, T): read the column as a Number"
            )
        targets = targets.astype(jnp.float32).reshape(len(targets), -1)
        known = batch["_mask"] & batch.get(f"{self.target}_known", True)
        return jnp.where(known[:, None], targets, 0), known
