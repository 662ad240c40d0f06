"""Optimizers and schedules against their definitions and against optax and hand-written rules."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vision.config.schema import ConfigError
from vision.train import schedule as s
from vision.train.optim import (
    DECAY_KERNELS,
    Ema,
    Optimizer,
    ParameterRule,
    adafactor,
    adamw,
    lion,
    match_rules,
    muon,
    sgd,
    trained_norm,
)

TRAIN_LENGTH = s.TrainLength(num_examples=1000, batch_size=10, total_steps=100)


def params() -> Any:
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "model": {
            "blocks": {"fc": {"kernel": jax.random.normal(keys[0], (3, 4, 6))}},
            "norm": {"scale": jax.random.normal(keys[1], (6,))},
            "head": {"kernel": jax.random.normal(keys[2], (6, 5)), "bias": jnp.ones(5)},
        }
    }


def run(optimizer: Optimizer, steps: int = 3) -> Any:
    tree = params()
    transform = optimizer.build(tree, TRAIN_LENGTH)
    state = transform.init(tree)
    for i in range(steps):
        grads = jax.tree.map(lambda x, i=i: jnp.sin(x * (i + 1)), tree)
        updates, state = transform.update(grads, state, tree)
        tree = optax.apply_updates(tree, updates)
    return tree


def reference(transform: optax.GradientTransformation, steps: int = 3) -> Any:
    tree = params()
    state = transform.init(tree)
    for i in range(steps):
        grads = jax.tree.map(lambda x, i=i: jnp.sin(x * (i + 1)), tree)
        updates, state = transform.update(grads, state, tree)
        tree = optax.apply_updates(tree, updates)
    return tree


def assert_equal(a, b, **kwargs):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **kwargs), a, b)


def kernels(tree):
    return jax.tree_util.tree_map_with_path(lambda p, _: p[-1].key == "kernel", tree)


def test_adamw_equals_optax():
    ours = run(Optimizer(adamw(), 1e-2, weight_decay=0.1, clip_norm=1.0))
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1, mask=kernels)
    )
    assert_equal(ours, reference(theirs), rtol=1e-6)


def test_lion_equals_optax():
    ours = run(Optimizer(lion(), 1e-2, weight_decay=0.1))
    theirs = optax.lion(1e-2, weight_decay=0.1, mask=kernels)
    assert_equal(ours, reference(theirs), rtol=1e-6)


def test_sgd_with_coupled_decay_equals_the_torch_rule():
    ours = run(Optimizer(sgd(0.9), 0.1, weight_decay=0.01, decay="coupled"))
    tree = params()
    velocity = jax.tree.map(jnp.zeros_like, tree)
    for i in range(3):
        grads = jax.tree.map(
            lambda x, k, i=i: jnp.sin(x * (i + 1)) + 0.01 * k * x, tree, kernels(tree)
        )
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
        tree = jax.tree.map(lambda x, v: x - 0.1 * v, tree, velocity)
    assert_equal(ours, tree, rtol=1e-6)


def test_muon_orthogonalises_each_layer_and_leaves_the_head_to_adam():
    tree = params()
    method = muon(momentum=0.0, nesterov=False, rms=0.2)
    grads = jax.tree.map(jnp.sin, tree)
    updates: Any
    updates, _ = method.update(grads, method.init(tree), tree)
    stacked = updates["model"]["blocks"]["fc"]["kernel"]
    for layer in stacked:
        singular = np.linalg.svd(np.asarray(layer), compute_uv=False)
        # Five Newton-Schulz steps bring singular values near 1, not onto it.
        np.testing.assert_allclose(singular / (0.2 * np.sqrt(6)), 1.0, atol=0.35)
    adam = optax.scale_by_adam(b1=0.9, b2=0.95)
    expected: Any
    expected, _ = adam.update(grads, adam.init(tree), tree)
    assert_equal(updates["model"]["head"], expected["model"]["head"], rtol=1e-6)


@pytest.mark.parametrize("method", [adafactor(), adafactor(momentum=None), muon(), sgd(0.0)])
def test_methods_descend(method: optax.GradientTransformation):
    tree = params()
    transform = Optimizer(method, 3e-2, clip_norm=1.0).build(tree, TRAIN_LENGTH)
    state = transform.init(tree)
    loss = lambda t: sum(jnp.sum(x**2) for x in jax.tree.leaves(t))  # noqa: E731
    before = loss(tree)

    @jax.jit
    def step(tree, state):
        updates, state = transform.update(jax.grad(loss)(tree), state, tree)
        return optax.apply_updates(tree, updates), state

    for _ in range(30):
        tree, state = step(tree, state)
    assert loss(tree) < 0.9 * before


def test_frozen_parameters_do_not_move_and_have_no_state():
    rules = (ParameterRule("head", learning_rate=0), *DECAY_KERNELS)
    optimizer = Optimizer(adamw(), 0.1, weight_decay=1.0, rules=rules)
    after = run(optimizer)
    assert_equal(after["model"]["head"], params()["model"]["head"], rtol=0)
    assert not np.allclose(after["model"]["norm"]["scale"], params()["model"]["norm"]["scale"])
    state = optimizer.build(params(), TRAIN_LENGTH).init(params())
    sizes = [x.shape for x in jax.tree.leaves(state)]
    assert (6, 5) not in sizes
    assert (3, 4, 6) in sizes


def test_rule_multipliers_scale_the_update():
    plain = run(Optimizer(adamw(), 0.1, rules=(ParameterRule(".*"),)), steps=1)
    halved = run(
        Optimizer(
            adamw(), 0.1, rules=(ParameterRule("head", learning_rate=0.5), ParameterRule(".*"))
        ),
        steps=1,
    )
    start = params()
    move = lambda t: jax.tree.map(jnp.subtract, t, start)["model"]  # noqa: E731
    assert_equal(
        move(halved)["head"], jax.tree.map(lambda x: x / 2, move(plain)["head"]), rtol=1e-4
    )
    assert_equal(move(halved)["norm"], move(plain)["norm"], rtol=0)


def test_rules_must_cover_and_be_used():
    with pytest.raises(ConfigError, match=r"match no rule, first 'model/head/bias'"):
        match_rules(params(), (ParameterRule("kernel"), ParameterRule("norm")))
    with pytest.raises(ConfigError, match=r"'hed' decides for no parameter"):
        match_rules(params(), (ParameterRule("hed"), ParameterRule(".*")))


def test_trained_norm_leaves_out_what_is_frozen():
    tree = params()
    norm = trained_norm(tree, (ParameterRule("blocks", learning_rate=0), ParameterRule(".*")))
    rest = {"n": tree["model"]["norm"], "h": tree["model"]["head"]}
    np.testing.assert_allclose(norm, optax.tree.norm(rest), rtol=1e-6)


def values(schedule: s.Schedule) -> np.ndarray:
    return np.asarray([schedule(jnp.asarray(i), TRAIN_LENGTH) for i in range(100)])


def test_schedules():
    cosine = values(s.Cosine(warmup="10 steps", final=0.1))
    assert cosine[0] == pytest.approx(0.1)
    assert cosine[9] == pytest.approx(1.0)
    assert cosine[55] == pytest.approx(0.55)
    assert np.all(np.diff(cosine[10:]) < 0)
    linear = values(s.LinearDecay(warmup="0.1 epochs"))
    assert linear[55] == pytest.approx(0.5)
    rsqrt = values(s.Rsqrt(warmup="100 examples", timescale="10 steps", cooldown="20 steps"))
    assert rsqrt[40] == pytest.approx(0.5)
    assert rsqrt[99] == pytest.approx(1 / np.sqrt(1 + 8.9) * 0.05)
    steps = values(s.Milestones(milestones=("30 steps", "800 examples"), factor=0.5))
    np.testing.assert_allclose(steps[[0, 29, 30, 79, 80]], [1, 1, 0.5, 0.5, 0.25], rtol=1e-6)
    wsd = values(s.WarmupStableDecay(warmup="10 steps", cooldown="20 steps"))
    assert np.all(wsd[9:81] == 1)
    assert wsd[90] == pytest.approx(0.5)
    assert values(s.Constant())[0] == 1


@pytest.mark.parametrize(
    ("text", "steps"),
    [("7 steps", 7), ("2 epochs", 200), ("1e3 examples", 100), ("0.001 epochs", 1), ("0 steps", 0)],
)
def test_lengths(text: str, steps: int):
    assert TRAIN_LENGTH.steps(text) == steps


@pytest.mark.parametrize("text", ["7", "seven steps", "7 weeks", "-1 steps", ""])
def test_bad_lengths_name_the_key(text: str):
    with pytest.raises(ConfigError, match=r"config.total is .*'500 steps'"):
        TRAIN_LENGTH.steps(text, "total")


@pytest.mark.parametrize(
    "length", ["7 steps", "0.333 epochs", "1 steps", "0.001 epochs", "2.5 steps"]
)
def test_intervals_are_due_at_the_rounded_multiples(length: str):
    interval = TRAIN_LENGTH.interval(length)
    due = [step for step in range(1, 200) if interval.due(step)]
    multiples = {int(np.floor(k * interval.period + 0.5)) for k in range(1, 300)}
    assert due == sorted(m for m in multiples if m < 200)


def test_ema_follows_its_definition():
    ema = Ema(decay=0.9, warmup=False)
    average = ema.init({"w": jnp.zeros(2)}, {})
    average = ema.update(average, {"w": jnp.ones(2)}, {}, jnp.asarray(5))
    np.testing.assert_allclose(average["params"]["w"], 0.1, rtol=1e-6)
    warm = Ema(decay=0.9).update(average, {"w": jnp.ones(2)}, {}, jnp.asarray(0))
    np.testing.assert_allclose(warm["params"]["w"], 0.1 * 0.1 + 0.9, rtol=1e-6)
