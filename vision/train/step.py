"""The one training step and the one initial state, for every objective."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from vision.config.ranges import Positive, checked
from vision.train.accumulate import loss_and_gradient
from vision.train.flops import count, without_recomputation
from vision.train.objective import Batch, Context, Objective, Variables
from vision.train.optim import Ema, Optimizer, match_rules, trained_norm
from vision.train.phases import PhaseUpdate, phase_updates
from vision.train.schedule import TrainLength
from vision.train.state import State, seed_key, step_key
from vision.train.tower import Tap, Tapped

Tree = Any
Metrics = dict[str, jax.Array]
_FIRST_BATCH = 2**32 - 1  # in the place of a step's number, which no run reaches


class BatchOp(Protocol):
    """A traced operation on a whole batch: mixup, augmentation on the device."""

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]: ...


class BatchShapes(Protocol):
    """Shapes of a batch, such as image sizes, of which every step takes one.

    Each is compiled, into one step: only the chosen one runs.
    """

    @property
    def shares(self) -> tuple[float, ...]:
        """How much of the run each shape gets; they add up to one."""
        ...

    def choose(self, key: jax.Array, step: jax.Array, total_steps: int) -> jax.Array:
        """Number of the shape of a step, a traced integer scalar; on every device the same."""
        ...

    def reshape(self, batch: Batch, shape: int) -> Batch:
        """The batch in that shape, with all its rows. Traceable; ``shape`` is a Python number."""
        ...


@dataclasses.dataclass(frozen=True)
@checked
class Step:
    """Everything compiled code needs to know about one training run.

    Attributes:
      objective: what is learned.
      optimizer: how parameters move; one per phase, by name, where the objective has phases.
      train_length: length of the run.
      batch_ops: applied to every training batch before the loss, on the device.
      batch_shapes: draws the shape of a step's batch after ``batch_ops``; None for one shape.
      ema: keep a parameter average as ``extra_state["ema"]``.
      seed: of all randomness in the step; a traced integer where many networks are trained at once.
      accumulate: number of micro-batches that the gradient of a batch is computed in, to save
        memory: see ``vision.train.accumulate``. Batch ops run on the whole batch.
      skip_nonfinite: where the loss or the norm of its gradient is not finite, the state stays
        as it is, bit for bit, but for ``step``: the batch is passed over. The optimizer counts
        updates, so its schedule waits meanwhile. Reported as the metric ``skipped``, 0 or 1.
    """

    objective: Objective
    optimizer: Optimizer | Mapping[str, Optimizer]
    train_length: TrainLength
    batch_ops: tuple[BatchOp, ...] = ()
    batch_shapes: BatchShapes | None = None
    ema: Ema | None = None
    seed: int | jax.Array = 0
    accumulate: Positive[int] = 1
    skip_nonfinite: bool = False

    def init(self, batch: Batch) -> State:
        """The state before the first update. Traceable; ``batch`` only gives shapes."""
        k_params, k_ops = jax.random.split(jax.random.wrap_key_data(seed_key(self.seed)))
        return self.init_state(self.objective.init(k_params, self._prepare(batch, k_ops)))

    def init_state(self, variables: Variables) -> State:
        """The state before the first update with these variables. Traceable."""
        extra_state = dict(variables.extra_state)
        if self.ema is not None:
            extra_state["ema"] = self.ema.init(variables.params, variables.model_state)
        return State(
            step=jnp.zeros([], jnp.int32),
            params=variables.params,
            model_state=variables.model_state,
            opt_state=self.init_optimizers(variables.params),
            extra_state=extra_state,
            key=seed_key(self.seed),
        )

    def init_from_batch(self, state: State, batch: Batch) -> State:
        """``state``, which no update has changed, after the objective has seen the first batch.

        Traceable. See ``Objective.init_from_batch``.
        """
        if not self.objective.uses_first_batch:
            return state
        k_begin, k_ops = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(state.key), _FIRST_BATCH)
        )
        extra_state = {name: x for name, x in state.extra_state.items() if name != "ema"}
        variables = dataclasses.replace(state.variables, extra_state=extra_state)
        batch = self._prepare(batch, k_ops)
        return self.init_state(self.objective.init_from_batch(variables, batch, k_begin))

    def update(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """One step: an update of the parameters, or one for every phase. Traceable."""
        k_ops, k_loss = jax.random.split(step_key(state.key, state.step))
        batch = self._prepare(batch, k_ops)
        k_shape = jax.random.fold_in(k_ops, len(self.batch_ops))
        shape = self._chosen_shape(k_shape, state.step)
        updated, metrics = state, {}
        for number, phase in enumerate(self.phase_updates(state.params)):
            key = jax.random.fold_in(k_loss, number) if number else k_loss
            updated, of_phase = self._update_phase(updated, batch, shape, key, phase)
            metrics = _merge_metrics(metrics, of_phase, phase.phase)
        if self.ema is not None:
            average = self.ema.update(
                state.extra_state["ema"], updated.params, updated.model_state, state.step
            )
            extra_state = {**updated.extra_state, "ema": average}
            updated = dataclasses.replace(updated, extra_state=extra_state)
        skipped = dataclasses.replace(state, step=state.step + 1)
        updated = dataclasses.replace(updated, step=state.step + 1)
        if self.skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            updated = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, skipped)
            metrics["skipped"] = ~finite
        return updated, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    def _update_phase(
        self,
        state: State,
        batch: Batch,
        shape: jax.Array | None,
        key: jax.Array,
        phase: PhaseUpdate,
    ) -> tuple[State, Metrics]:
        """Loss, gradient, update and what follows from it, of one phase."""
        ctx = self._context(state.step, phase.phase, key)
        trained = phase.trained(state.params)
        gradient = functools.partial(
            loss_and_gradient,
            self.objective,
            trained,
            state.variables,
            ctx=ctx,
            accumulate=self.accumulate,
        )
        if shape is None:
            loss, aux, grads = gradient(batch)
        else:
            branches = [lambda x, reshape=reshape: gradient(reshape(x)) for reshape in self._shapes]
            loss, aux, grads = jax.lax.switch(shape, branches, batch)
        before = phase.get_state(state.opt_state)
        transform = phase.optimizer.build(trained, self.train_length, phase.towers)
        updates, after = transform.update(grads, before, trained)
        metrics = {
            "loss": loss,
            "learning_rate": phase.optimizer.rate(before["count"], self.train_length),
            "grad_norm": trained_norm(grads, phase.optimizer.rules),
            **aux.metrics,
        }
        variables = state.variables.merge(
            params=optax.apply_updates(trained, updates),  # pyright: ignore[reportArgumentType]
            model_state=aux.model_state,
        )
        extra_state = self.objective.after_update(variables, aux, ctx)
        state = dataclasses.replace(
            state,
            params=variables.params,
            model_state=variables.model_state,
            opt_state=phase.put_state(state.opt_state, after),
            extra_state={
                **{name: x for name, x in state.extra_state.items() if name == "ema"},
                **extra_state,
            },
        )
        return state, metrics

    def phase_updates(self, params: Mapping[str, Tree]) -> list[PhaseUpdate]:
        """The updates of a step, in order. See ``vision.train.phases``."""
        return phase_updates(self.objective, self.optimizer, params)

    def init_optimizers(self, params: Mapping[str, Tree]) -> Tree:
        """The optimizers' state before the first update. Traceable."""
        states: Tree = {}
        for phase in self.phase_updates(params):
            trained = phase.trained(params)
            start = phase.optimizer.build(trained, self.train_length, phase.towers).init(trained)
            states = phase.put_state(states, start)
        return states

    def flops(self, state: State, batch: Batch) -> int:
        """Model FLOPs of one update with a global batch; shapes suffice, nothing runs.

        Loss and gradient of the trained parameters for the whole batch, counted by
        ``vision.train.flops.count``; the mean where there are batch shapes. What remat or the
        second pass of accumulation compute again is not in it, nor are batch ops and the optimizer.
        A single CPU device counts the forms of convolution that it runs
        (``vision.models.convolution``), which multiply more.
        """
        batch = jax.eval_shape(self._prepare, dict(batch), jax.random.key(0))
        shares = (1.0,) if self.batch_shapes is None else self.batch_shapes.shares
        shaped = [jax.eval_shape(reshape, batch) for reshape in self._shapes]
        return round(
            sum(
                share * self._phase_flops(state, each, phase)
                for phase in self.phase_updates(state.params)
                for share, each in zip(shares, shaped, strict=True)
            )
        )

    def _phase_flops(self, state: State, batch: Batch, phase: PhaseUpdate) -> int:
        def loss(trained: Tree, variables: Variables, batch: Batch):
            ctx = self._context(jnp.zeros([], jnp.int32), phase.phase, jax.random.key(0))
            return self.objective.loss(variables.merge(params=trained), batch, ctx)[0]

        def gradient(*args: Tree) -> Tree:
            value, grads = jax.value_and_grad(without_recomputation(loss))(*args)
            rules = jax.tree.leaves(match_rules(grads, phase.optimizer.rules))
            pairs = zip(rules, jax.tree.leaves(grads), strict=True)
            return value, [grad for rule, grad in pairs if rule.learning_rate != 0]

        return count(gradient, phase.trained(state.params), state.variables, batch)

    def predict(
        self, variables: Variables, batch: Batch, tap: Tap | None = None
    ) -> dict[str, jax.Array]:
        """What evaluators read: the objective's predictions in evaluation mode. Traceable.

        ``tap`` reaches into the objective's ``model``.
        """
        objective: Any = self.objective
        if tap is not None:
            objective = dataclasses.replace(objective, model=Tapped(objective.model, tap))
        ctx = Context.evaluation(self.train_length.total_steps)
        return objective.predict(variables, batch, ctx)

    def _context(self, step: jax.Array, phase: str, key: jax.Array) -> Context:
        return Context(step, self.train_length.total_steps, train=True, key=key, phase=phase)

    def _chosen_shape(self, key: jax.Array, step: jax.Array) -> jax.Array | None:
        if self.batch_shapes is None:
            return None
        return self.batch_shapes.choose(key, step, self.train_length.total_steps)

    @property
    def _shapes(self) -> list[Callable[[Batch], Batch]]:
        if self.batch_shapes is None:
            return [lambda batch: batch]
        reshape, count = self.batch_shapes.reshape, len(self.batch_shapes.shares)
        return [functools.partial(reshape, shape=shape) for shape in range(count)]

    def _prepare(self, batch: Batch, key: jax.Array) -> Batch:
        prepared = dict(batch)
        for i, op in enumerate(self.batch_ops):
            prepared = op(prepared, jax.random.fold_in(key, i))
        return prepared


def _merge_metrics(before: Metrics, after: Metrics, phase: str) -> Metrics:
    """Metrics of a step of several updates: under the name of each phase; losses and squared
    gradient norms add up. A phase that stands several times reports its last update."""
    if not phase:
        return after
    total = {"loss": before.get("loss", 0.0) + after["loss"]}
    total["grad_norm"] = jnp.hypot(before.get("grad_norm", 0.0), after["grad_norm"])
    return {**before, **{f"{phase}_{key}": value for key, value in after.items()}, **total}
