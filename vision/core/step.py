"""The one training step and the one initial state, for every objective."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from vision.core.accumulate import loss_and_gradient
from vision.core.flops import count, without_recomputation
from vision.core.net import Tap, Tapped
from vision.core.objective import Aux, Batch, Context, Objective, Variables
from vision.core.optim import Ema, Optimizer, match_rules, trained_norm
from vision.core.players import Player, players
from vision.core.schedule import TrainLength
from vision.core.state import State, seed_key, step_key

Tree = Any
Metrics = dict[str, jax.Array]
_BEGIN = 2**32 - 1  # in the place of a step's number, which no run reaches


class BatchOp(Protocol):
    """A traced operation on a whole batch: mixup, augmentation on the device."""

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]: ...


class BatchForm(Protocol):
    """Forms of a batch, such as image sizes, of which every step takes one.

    They differ in shapes, so each is compiled, into one step: only the chosen one runs.
    """

    @property
    def shares(self) -> tuple[float, ...]:
        """How much of the run each form gets; they add up to one."""
        ...

    def choose(self, key: jax.Array, step: jax.Array, total_steps: int) -> jax.Array:
        """Number of the form of a step, a traced integer scalar; on every device the same."""
        ...

    def shape(self, batch: Batch, form: int) -> Batch:
        """The batch in that form, with all its rows. Traceable; ``form`` is a Python number."""
        ...


@dataclasses.dataclass(frozen=True)
class Step:
    """Everything compiled code needs to know about one training run.

    Attributes:
      objective: what is learned.
      optimizer: how parameters move; one per phase, by name, where the objective has phases.
      train_length: length of the run.
      batch_ops: applied to every training batch before the loss, on the device.
      batch_form: draws the form of a step's batch after ``batch_ops``; None for one form.
      ema: keep a parameter average in the slot ``ema``.
      seed: of all randomness in the step.
      accumulate: number of micro-batches that the gradient of a batch is computed in, to save
        memory: see ``vision.core.accumulate``. Batch ops run on the whole batch.
      skip_nonfinite: where the loss or the norm of its gradient is not finite, the state stays
        as it is, bit for bit, but for ``step``: the batch is passed over. The optimizer counts
        updates, so its schedule waits meanwhile. Reported as the metric ``skipped``, 0 or 1.
    """

    objective: Objective
    optimizer: Optimizer | Mapping[str, Optimizer]
    train_length: TrainLength
    batch_ops: tuple[BatchOp, ...] = ()
    batch_form: BatchForm | None = None
    ema: Ema | None = None
    seed: int = 0
    accumulate: int = 1
    skip_nonfinite: bool = False

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(f"accumulate={self.accumulate}, but it is at least 1")

    def init(self, batch: Batch) -> State:
        """The state before the first update. Traceable; ``batch`` only gives shapes."""
        key = seed_key(self.seed)
        k_params, k_ops = jax.random.split(jax.random.wrap_key_data(key))
        batch = self._prepare(batch, k_ops)
        variables = self.objective.init(k_params, batch)
        empty = State(jnp.zeros([], jnp.int32), {}, {}, {}, {}, key)
        return self.init_state(empty, variables)

    def init_state(self, state: State, variables: Variables) -> State:
        """The state before the first update, with these variables. Traceable."""
        slots = dict(variables.slots)
        if self.ema is not None:
            slots["ema"] = self.ema.init(variables.params, variables.model_state)
        return dataclasses.replace(
            state,
            params=variables.params,
            model_state=variables.model_state,
            opt_state=self.start_optimizers(variables.params),
            slots=slots,
        )

    def init_from_batch(self, state: State, batch: Batch) -> State:
        """``state`` after the objective has seen the first batch, if it wants to. Traceable."""
        if not hasattr(self.objective, "begin"):
            return state
        k_begin, k_ops = jax.random.split(
            jax.random.fold_in(jax.random.wrap_key_data(state.key), _BEGIN)
        )
        slots = {name: x for name, x in state.slots.items() if name != "ema"}
        variables = dataclasses.replace(state.variables, slots=slots)
        begun: Any = self.objective
        return self.init_state(state, begun.begin(variables, self._prepare(batch, k_ops), k_begin))

    def update(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        """One optimization step: a move of every player. Traceable."""
        k_ops, k_loss = jax.random.split(step_key(state.key, state.step))
        batch = self._prepare(batch, k_ops)
        k_form = jax.random.fold_in(k_ops, len(self.batch_ops))
        form = self._form(k_form, state.step)
        moved, metrics = state, {}
        for number, player in enumerate(self.players(state.params)):
            key = jax.random.fold_in(k_loss, number) if number else k_loss
            moved, found = self._move(moved, batch, form, key, player)
            metrics = _together(metrics, found, player.name)
        if self.ema is not None:
            average = self.ema.update(
                state.slots["ema"], moved.params, moved.model_state, state.step
            )
            moved = dataclasses.replace(moved, slots={**moved.slots, "ema": average})
        passed = dataclasses.replace(state, step=state.step + 1)
        moved = dataclasses.replace(moved, step=state.step + 1)
        if self.skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            moved = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, passed)
            metrics["skipped"] = ~finite
        return moved, {name: value.astype(jnp.float32) for name, value in metrics.items()}

    def _move(
        self, state: State, batch: Batch, form: jax.Array | None, key: jax.Array, player: Player
    ) -> tuple[State, Metrics]:
        """Loss, gradient, update and what follows from it, for one player."""
        ctx = self._context(state.model_state, state.step, player.name, key)
        mine = player.of(state.params)
        objective = player.seen_by(self.objective, state.params)

        def gradient(batch: Batch) -> tuple[jax.Array, Aux, Tree]:
            return loss_and_gradient(objective, mine, state.slots, batch, ctx, self.accumulate)

        if form is None:
            loss, aux, grads = gradient(batch)
        else:
            branches = [lambda x, shape=shape: gradient(shape(x)) for shape in self._forms()]
            loss, aux, grads = jax.lax.switch(form, branches, batch)
        before = player.of_state(state.opt_state)
        transform = player.optimizer.build(mine, self.train_length)
        updates, after = transform.update(grads, before, mine)
        params = {**state.params, **optax.apply_updates(mine, updates)}  # pyright: ignore
        metrics = {
            "loss": loss,
            "learning_rate": player.optimizer.rate(before["count"], self.train_length),
            "grad_norm": trained_norm(grads, player.optimizer.rules),
            **aux.metrics,
        }
        state = dataclasses.replace(
            state,
            params=params,
            model_state={**state.model_state, **aux.model_state},
            opt_state=player.put_state(state.opt_state, after),
            slots={
                **{name: x for name, x in state.slots.items() if name == "ema"},
                **self.objective.after_update(params, state.slots, aux, ctx),
            },
        )
        return state, metrics

    def players(self, params: Mapping[str, Tree]) -> list[Player]:
        """Who moves in a step, in order. See ``vision.core.players``."""
        return players(self.objective, self.optimizer, params)

    def start_optimizers(self, params: Mapping[str, Tree]) -> Tree:
        """The optimizers' state before the first update. Traceable."""
        states: Tree = {}
        for player in self.players(params):
            mine = player.of(params)
            start = player.optimizer.build(mine, self.train_length).init(mine)
            states = player.put_state(states, start)
        return states

    def flops(self, state: State, batch: Batch) -> int:
        """Model FLOPs of one update with a global batch; shapes suffice, nothing runs.

        Loss and gradient of the trained parameters for the whole batch, counted by
        ``vision.core.flops.count``; the mean where there are forms. What remat or the second pass
        of accumulation compute again is not in it, nor are batch ops and the optimizer. A single
        CPU device counts the forms of convolution that it runs (``vision.models.convolution``),
        which multiply more.
        """
        batch = jax.eval_shape(self._prepare, dict(batch), jax.random.key(0))

        shares = (1.0,) if self.batch_form is None else self.batch_form.shares
        formed = [jax.eval_shape(form, batch) for form in self._forms()]
        return round(
            sum(
                share * self._work(state, shaped, player)
                for player in self.players(state.params)
                for share, shaped in zip(shares, formed, strict=True)
            )
        )

    def _work(self, state: State, batch: Batch, player: Player) -> int:
        def loss(mine: Tree, others: Tree, slots: Tree, model_state: Tree, batch: Batch):
            step = jnp.zeros([], jnp.int32)
            ctx = self._context(model_state, step, player.name, jax.random.key(0))
            return self.objective.loss({**others, **mine}, slots, batch, ctx)[0]

        def gradient(*args: Tree) -> Tree:
            value, grads = jax.value_and_grad(without_recomputation(loss))(*args)
            rules = jax.tree.leaves(match_rules(grads, player.optimizer.rules))
            pairs = zip(rules, jax.tree.leaves(grads), strict=True)
            return value, [grad for rule, grad in pairs if rule.learning_rate != 0]

        mine = player.of(state.params)
        others = {name: tree for name, tree in state.params.items() if name not in mine}
        return count(gradient, mine, others, state.slots, state.model_state, batch)

    def predict(self, variables: Any, batch: Batch, tap: Tap | None = None) -> dict[str, jax.Array]:
        """What evaluators read: the objective's predictions in evaluation mode. Traceable.

        ``tap`` reaches into the objective's ``model``.
        """
        objective: Any = self.objective
        if tap is not None:
            objective = dataclasses.replace(objective, model=Tapped(objective.model, tap))
        ctx = Context(
            model_state=variables.model_state,
            step=jnp.zeros([], jnp.int32),
            total_steps=self.train_length.total_steps,
            train=False,
        )
        return objective.predict(variables.params, variables.slots, batch, ctx)

    def _context(self, model_state: Tree, step: jax.Array, phase: str, key: jax.Array) -> Context:
        return Context(
            model_state, step, self.train_length.total_steps, train=True, phase=phase, key=key
        )

    def _form(self, key: jax.Array, step: jax.Array) -> jax.Array | None:
        if self.batch_form is None:
            return None
        return self.batch_form.choose(key, step, self.train_length.total_steps)

    def _forms(self) -> list[Callable[[Batch], Batch]]:
        if self.batch_form is None:
            return [lambda batch: batch]
        shape, count = self.batch_form.shape, len(self.batch_form.shares)
        return [functools.partial(shape, form=form) for form in range(count)]

    def _prepare(self, batch: Batch, key: jax.Array) -> Batch:
        prepared = dict(batch)
        for i, op in enumerate(self.batch_ops):
            prepared = op(prepared, jax.random.fold_in(key, i))
        return prepared


def _together(before: Metrics, found: Metrics, name: str) -> Metrics:
    """Metrics of a step of several moves: under each player's name; losses and squared gradient
    norms add up. A player that moves again reports its last move."""
    if not name:
        return found
    total = {"loss": before.get("loss", 0.0) + found["loss"]}
    total["grad_norm"] = jnp.hypot(before.get("grad_norm", 0.0), found["grad_norm"])
    return {**before, **{f"{name}_{key}": value for key, value in found.items()}, **total}
