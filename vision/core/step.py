"""The one training step and the one initial state, for every objective."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from vision.core.objective import Batch, Context, Objective
from vision.core.optim import Ema, Optimizer, trained_norm
from vision.core.schedule import Horizon
from vision.core.state import State, seed_key, step_key

Tree = Any
Metrics = dict[str, jax.Array]


class BatchOp(Protocol):
    """A traced operation on a whole batch: mixup, augmentation on the device."""

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]: ...


@dataclasses.dataclass(frozen=True)
class Step:
    """Everything compiled code needs to know about one training run.

    Attributes:
      objective: what is learned.
      optimizer: how parameters move.
      horizon: length of the run.
      batch_ops: applied to every training batch before the loss, on the device.
      ema: keep a parameter average in the slot ``ema``.
      seed: of all randomness in the step.
    """

    objective: Objective
    optimizer: Optimizer
    horizon: Horizon
    batch_ops: tuple[BatchOp, ...] = ()
    ema: Ema | None = None
    seed: int = 0

    def init(self, batch: Batch) -> State:
        """The state before the first update. Traceable; ``batch`` only gives shapes."""
        key = seed_key(self.seed)
        k_params, k_ops = jax.random.split(jax.random.wrap_key_data(key))
        batch = self._prepare(batch, k_ops)
        variables = self.objective.init(k_params, batch)
        slots = dict(variables.slots)
        if self.ema is not None:
            slots["ema"] = self.ema.init(variables.params, variables.model_state)
        return State(
            step=jnp.zeros([], jnp.int32),
            params=variables.params,
            model_state=variables.model_state,
            opt_state=self._transform(variables.params).init(variables.params),
            slots=slots,
            key=key,
        )

    def update(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """One optimization step. Traceable."""
        k_ops, k_loss = jax.random.split(step_key(state.key, state.step))
        batch = self._prepare(batch, k_ops)
        ctx = Context(
            model_state=state.model_state,
            step=state.step,
            total_steps=self.horizon.total_steps,
            train=True,
            key=k_loss,
        )
        gradient = jax.value_and_grad(self.objective.loss, has_aux=True)
        (loss, aux), grads = gradient(state.params, state.slots, batch, ctx)
        transform = self._transform(state.params)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params: dict[str, Tree] = optax.apply_updates(state.params, updates)  # pyright: ignore
        model_state = {**state.model_state, **aux.model_state}
        slots = dict(self.objective.after_update(params, state.slots, aux, ctx))
        if self.ema is not None:
            slots["ema"] = self.ema.update(state.slots["ema"], params, model_state, state.step)
        metrics = {
            "loss": loss,
            "learning_rate": self.optimizer.rate(state.step, self.horizon),
            "grad_norm": trained_norm(grads, self.optimizer.rules),
            **aux.metrics,
        }
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            slots=slots,
        )
        return state, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    def predict(self, variables: Any, batch: Batch) -> dict[str, jax.Array]:
        """What evaluators read: the objective's predictions in evaluation mode. Traceable."""
        ctx = Context(
            model_state=variables.model_state,
            step=jnp.zeros([], jnp.int32),
            total_steps=self.horizon.total_steps,
            train=False,
        )
        return self.objective.predict(variables.params, variables.slots, batch, ctx)

    def _prepare(self, batch: Batch, key: jax.Array) -> Batch:
        prepared = dict(batch)
        for i, op in enumerate(self.batch_ops):
            prepared = op(prepared, jax.random.fold_in(key, i))
        return prepared

    def _transform(self, params: Tree) -> optax.GradientTransformation:
        return self.optimizer.build(params, self.horizon)
