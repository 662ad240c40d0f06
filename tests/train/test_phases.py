"""Phases: each is the ordinary step of some networks, with everything else held still."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vision.config.schema import ConfigError
from vision.train.objective import Aux, Batch, Context, Objective, Phase, Variables
from vision.train.optim import Ema, Optimizer, ParameterRule, adamw, sgd
from vision.train.schedule import Constant, TrainLength
from vision.train.step import Step

PLAIN = (ParameterRule(".*"),)


@dataclasses.dataclass(frozen=True)
class Duel(Objective):
    """The attacker raises what the defender lowers; it may be updated more than once."""

    model: Any = None
    order: tuple[Phase, ...] = (Phase("attack", ("noise",)), Phase("defend", ("model",)))

    @property
    def phases(self) -> tuple[Phase, ...]:
        return self.order

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params = {
            "model": {"w": jax.random.normal(key, (3,))},
            "noise": {"d": jnp.full((3,), 0.1)},
        }
        extra_state = {"updates": jnp.zeros([], jnp.int32), "seen": jnp.zeros(3)}
        return Variables(params, {}, extra_state)

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        params = variables.params
        x = batch["x"] + params["noise"]["d"]
        error = jnp.mean((x @ params["model"]["w"] - batch["y"]) ** 2)
        sign = -1.0 if ctx.phase == "attack" else 1.0
        assert ctx.phase in ("attack", "defend")
        return sign * error, Aux({"error": error})

    def after_update(self, variables: Variables, aux: Aux, ctx: Context) -> dict[str, Any]:
        updates = variables.extra_state["updates"]
        return {"updates": updates + 1, "seen": variables.params["noise"]["d"]}

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, Any]:
        return {"y": batch["x"] @ variables.params["model"]["w"]}


def batch(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(8, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.ones(3, np.float32), "_mask": np.ones(8, bool)}


def make(objective: Duel | None = None, **changes: Any) -> Step:
    optimizers = {
        "attack": Optimizer(sgd(momentum=0.0), 0.05, Constant(), rules=PLAIN),
        "defend": Optimizer(adamw(), 0.1, Constant(), rules=PLAIN),
    }
    step = Step(objective or Duel(), optimizers, TrainLength(80, 8, total_steps=10))
    return dataclasses.replace(step, **changes)


def test_each_phase_updates_its_networks_alone():
    step, data = make(), batch()
    state = step.init(data)
    after, metrics = jax.jit(step.update)(state, data)

    def error(w: Any, d: Any) -> Any:
        return jnp.mean(((data["x"] + d) @ w - data["y"]) ** 2)

    w, d = state.params["model"]["w"], state.params["noise"]["d"]
    raised = d + 0.05 * jax.grad(error, 1)(w, d)
    np.testing.assert_allclose(after.params["noise"]["d"], raised, rtol=1e-5)
    adam = optax.adam(0.1)
    move, _ = adam.update(jax.grad(error)(w, raised), adam.init(w))
    np.testing.assert_allclose(after.params["model"]["w"], w + move, rtol=1e-5)
    assert after.extra_state["updates"] == 2
    np.testing.assert_array_equal(after.extra_state["seen"], after.params["noise"]["d"])
    assert after.step == 1
    assert metrics["attack_error"] < metrics["defend_error"]
    np.testing.assert_allclose(
        metrics["loss"], metrics["attack_loss"] + metrics["defend_loss"], rtol=1e-5
    )
    norms = metrics["attack_grad_norm"], metrics["defend_grad_norm"]
    np.testing.assert_allclose(metrics["grad_norm"], np.hypot(*norms), rtol=1e-5)


def test_a_phase_that_stands_twice_keeps_one_optimizer():
    attack, defend = Duel().phases
    step = make(Duel(order=(attack, attack, defend)))
    state = step.init(batch())
    after, _ = step.update(state, batch())
    assert sorted(state.opt_state) == ["attack", "defend"]
    assert after.opt_state["attack"]["count"] == 2
    assert after.opt_state["defend"]["count"] == 1
    assert after.extra_state["updates"] == 3


def test_a_phase_costs_what_its_gradient_costs():
    both = make().flops(make().init(batch()), batch())
    attack, defend = Duel().phases
    more = make(Duel(order=(attack, attack, defend)))
    thrice = more.flops(more.init(batch()), batch())
    assert both == 2 * (2 * 8 * 3) * 2
    assert thrice == 3 * (2 * 8 * 3) * 2


def test_a_step_that_is_not_finite_takes_back_every_phase():
    step, bad = make(skip_nonfinite=True), batch()
    bad["y"] = np.full(8, np.nan, np.float32)
    state = step.init(batch())
    after, metrics = step.update(state, bad)
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, state.opt_state)
    assert after.extra_state["updates"] == 0


def test_optimizers_and_phases_go_together():
    one = Optimizer(sgd(), 0.1, rules=PLAIN)
    with pytest.raises(ConfigError, match=r"needs an optimizer for each, \{'attack'"):
        make(optimizer=one).init(batch())
    with pytest.raises(ConfigError, match="'defend'"):
        make(optimizer={"attack": one}).init(batch())
    with pytest.raises(ConfigError, match="has no phases: give one optimizer"):
        make(Duel(order=())).init(batch())
    with pytest.raises(ConfigError, match="trains 'nosie', which is none of model, noise"):
        make(Duel(order=(Phase("attack", ("nosie",)), Phase("defend", ("model",))))).init(batch())


@dataclasses.dataclass(frozen=True)
class Copying(Duel):
    """Its teacher and its noise come from the weights and the batch that a run begins with."""

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        params = {**variables.params, "noise": {"d": jnp.asarray(batch["x"][0])}}
        teacher = jax.tree.map(jnp.copy, variables.params["model"])
        return variables.merge(params=params, extra_state={"teacher": teacher})


def test_an_objective_begins_from_the_first_batch():
    step, data = make(Copying(), ema=Ema(0.9)), batch(3)
    fresh = step.init(batch())
    begun = jax.jit(step.init_from_batch)(fresh, data)
    np.testing.assert_array_equal(begun.params["noise"]["d"], data["x"][0])
    np.testing.assert_array_equal(begun.extra_state["teacher"]["w"], fresh.params["model"]["w"])
    np.testing.assert_array_equal(begun.extra_state["ema"]["params"]["noise"]["d"], data["x"][0])
    assert make().init_from_batch(fresh, data) is fresh
