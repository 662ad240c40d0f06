"""Unrolled EM: its special cases are soft k-means and nearest means, and its constants learn."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, log_softmax

from papers.unem import dirichlet
from papers.unem.evaluator import UnrolledEM, accuracies, tasks
from papers.unem.method import bounded_loss, constants, learn
from papers.unem.method import log_assignments as assigned
from tests.evaluators.linear_dual import data, run
from vision.probes.episodes import centroids, draw_episodes

RNG = np.random.default_rng(0)
CENTRES = 2.0 * RNG.normal(size=(5, 12))
LABEL = np.repeat(np.arange(5, dtype=np.int32), 20)
X = (CENTRES[LABEL] + 1.5 * RNG.normal(size=(100, 12))).astype(np.float32)
DRAWN = draw_episodes(LABEL, ways=5, shots=2, queries=9, count=6, seed=0)
TASKS: Any = tasks(X, DRAWN, present=2, form="gaussian")
SUPPORT, QUERY, RIGHT = TASKS


def log_assignments(*args: Any) -> np.ndarray:
    return np.asarray(jax.jit(assigned, static_argnums=3)(*args))


def test_tasks_ask_for_the_classes_that_are_present():
    assert SUPPORT.shape == (6, 5, 2, 12)
    assert QUERY.shape == (6, 18, 12)
    asked = DRAWN.query[:, :2].reshape(6, -1)
    classes = np.take_along_axis(DRAWN.classes, np.broadcast_to(RIGHT, (6, 18)), 1)
    np.testing.assert_array_equal(LABEL[asked], classes)
    logits = RNG.normal(size=(100, 5)).astype(np.float32)
    drawn = draw_episodes(LABEL, ways=3, shots=2, queries=9, count=4, seed=0)
    support, query, _ = tasks(logits, drawn, present=2, form="dirichlet")
    assert (support.shape, query.shape) == ((4, 3, 2, 3), (4, 18, 3))
    np.testing.assert_array_equal(
        support[1, 0, 0], logits[drawn.support[1, 0, 0]][drawn.classes[1]]
    )


def test_one_layer_is_the_nearest_mean_of_the_support():
    log_u = log_assignments(constants(1, balance=7.0), SUPPORT, QUERY, "gaussian")
    expected = centroids(SUPPORT.astype(np.float64), QUERY).argmax(2)
    np.testing.assert_array_equal(log_u.argmax(-1), expected)
    np.testing.assert_allclose(np.exp(log_u).sum(-1), 1, rtol=1e-5)


def test_without_balance_and_temperature_it_is_soft_k_means():
    log_u = log_assignments(constants(4, balance=0.0), SUPPORT[0], QUERY[0], "gaussian")
    support, query = SUPPORT[0].astype(np.float64), QUERY[0].astype(np.float64)
    means = support.mean(1)
    for _ in range(4):
        gaps = -0.5 * np.square(query[:, None] - means).sum(-1)
        u = np.exp(gaps - gaps.max(1, keepdims=True))
        u /= u.sum(1, keepdims=True)
        means = (u.T @ query + support.sum(1)) / (u.sum(0)[:, None] + 2)
    np.testing.assert_allclose(np.exp(log_u), u, atol=1e-4)


def test_balance_lets_classes_without_queries_die_out():
    def alive(balance: float) -> float:
        log_u = log_assignments(constants(8, balance, scale=0.5), SUPPORT, QUERY, "gaussian")
        return float((np.exp(log_u).mean(-2) > 0.01).sum(-1).mean())

    assert alive(50.0) < alive(1e-3)
    # A colder softmax is nearer to uniform.
    warm, cold = (
        log_assignments(constants(1, 0.0, 0.2, t), SUPPORT, QUERY, "gaussian") for t in (1.0, 5.0)
    )
    np.testing.assert_allclose(cold, log_softmax(warm / 5, -1), atol=1e-5)


def test_the_loss_takes_assignments_for_logits_and_is_bounded():
    log_u = log_softmax(4 * np.random.default_rng(5).normal(size=(3, 7, 4)), -1).astype(np.float32)
    label = np.arange(7) % 4
    expected = -log_softmax(np.exp(log_u), -1)[:, np.arange(7), label].mean()
    assert float(bounded_loss(jnp.asarray(log_u), jnp.asarray(label))) == pytest.approx(
        expected, rel=1e-5
    )
    surely_wrong = np.log(np.asarray([[[1.0, 0.0, 0.0, 0.0]]], np.float32) + 1e-30)
    assert float(bounded_loss(jnp.asarray(surely_wrong), jnp.asarray([1]))) < 1 + np.log(4)


def test_constants_learn_through_the_layers():
    drawn = draw_episodes(LABEL, ways=5, shots=2, queries=9, count=20, seed=1)
    task: Any = tasks(X, drawn, present=2, form="gaussian")
    # Arrays of NumPy have no weak types, which would be another program.
    start = jax.device_get(constants(4, balance=0.01, scale=0.3, temperature=3.0))
    learned, losses = jax.device_get(learn(start, *task, "gaussian", 30, 0.2, 5))
    floor = np.log(np.e + 4) - 1  # of five classes, where every assignment is sure and right
    assert losses[-4:].mean() - floor < 0.7 * (losses[:4].mean() - floor)
    before, after = (
        np.mean(np.asarray(accuracies(c, *task, "gaussian"))) for c in (start, learned)
    )
    assert after >= before
    assert all(np.any(np.asarray(learned[name]) != start[name]) for name in start)


def test_a_dirichlet_is_fitted_and_its_gradient_is_that_of_the_maximum():
    true = np.array([2.0, 5.0, 0.7])
    points = np.random.default_rng(1).dirichlet(true, 4000)
    mean_log = np.log(points).mean(0).astype(np.float32)
    fit, slope_of = jax.jit(dirichlet.fit), jax.jit(jax.jacrev(dirichlet.fit))
    alpha = np.asarray(fit(mean_log))
    np.testing.assert_allclose(alpha, true, rtol=0.08)
    np.testing.assert_allclose(digamma(alpha) - digamma(float(alpha.sum())), mean_log, atol=2e-5)
    density = jax.jit(dirichlet.log_density)(np.log(points[0]), true)
    np.testing.assert_allclose(density, stats.dirichlet.logpdf(points[0], true), rtol=1e-4)
    slope = np.asarray(slope_of(mean_log))
    for i in range(3):
        step = 1e-2 * np.eye(3, dtype=np.float32)[i]
        above, below = (np.asarray(fit(mean_log + sign * step)) for sign in (1, -1))
        moved = (above - below) / 2e-2
        np.testing.assert_allclose(slope[:, i], moved, rtol=0.02, atol=0.05)
    # Points that are all alike have no such alpha: it is held.
    alike = np.log(np.array([0.2, 0.3, 0.5], np.float32))
    np.testing.assert_allclose(fit(alike), 200 * np.exp(alike) / 0.5, rtol=0.02)
    assert (np.asarray(slope_of(alike)) == 0).all()


def predict(_: Any, batch: Any) -> dict[str, Any]:
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    return {"embedding": pixels}


def test_queries_help_each_other():
    noisy = X + 2.5 * np.random.default_rng(3).normal(size=X.shape)
    rows = LABEL < 4
    image = data(image=noisy[rows], label=LABEL[rows])
    evaluator = UnrolledEM(
        fit=image,
        data=image,
        ways=4,
        present=2,
        shots=3,
        queries=9,
        fit_tasks=48,
        tasks=48,
        layers=4,
        steps=2,
        scale=0.5,
        balance=5.0,
        batch_size=5,
        grid=(5.0, 500.0),
        scales=(0.5,),
    )
    got = run(evaluator, 1, predict)
    assert got["fixed_5"] > got["inductive"] + 0.01
    assert got["fixed"] == max(got["fixed_5"], got["fixed_500"])
    assert got["learned"] > got["inductive"] + 0.01
    assert got["learned_ci95"] > 0
    line: Any = got["constants"].lines[0]
    assert line.y.shape == (4,)
    assert (got["classes"], got["examples"]) == (4, 80)


def test_zero_shot_answers_are_mended_by_what_queries_have_in_common():
    """Classes whose probabilities often prefer the class after the right one."""
    draw = np.random.default_rng(3)
    alphas = 0.5 + 3 * np.eye(4) + 3 * np.roll(np.eye(4), 1, 1)
    label = LABEL[LABEL < 4]
    logits = 7 + np.log(np.stack([draw.dirichlet(alphas[c]) for c in label]))
    drawn = draw_episodes(label, ways=4, shots=3, queries=9, count=48, seed=0)
    support, query, right = tasks(logits, drawn, present=2, form="dirichlet")
    args: Any = (support, query, right, "dirichlet")
    alone, both = (np.mean(np.asarray(accuracies(constants(n, 5.0), *args))) for n in (0, 4))
    assert alone == pytest.approx(np.mean(query.argmax(-1) == right))
    assert both > alone + 0.1


def test_what_does_not_fit_is_named():
    image = data(image=X, label=LABEL)
    with pytest.raises(ValueError, match="present=4 of ways=3"):
        UnrolledEM(image, image, ways=3, present=4)
    with pytest.raises(ValueError, match="layers is 0"):
        UnrolledEM(image, image, layers=0)
    with pytest.raises(ValueError, match="grid"):
        UnrolledEM(image, image, grid=(0.0,))
