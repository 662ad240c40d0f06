"""Self-distillation: what is hidden is not seen, the losses by hand, micro-batches, the teacher."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.patch_tower import PatchTower
from vision.objectives.prototypes import cosines, koleo, sinkhorn
from vision.objectives.self_distill import SelfDistill
from vision.train.accumulate import loss_and_gradient
from vision.train.objective import Context, Variables
from vision.train.optim import Optimizer, ParameterRule, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import forward

MODEL = PatchTower()
GOLDEN = Path(__file__).parents[1] / "golden" / "self_distillation.npz"
ROWS = 6
SMALL = {"widths": (12, 8), "prototypes": 7, "momentum": 0.9}


def distill(**changes: Any) -> SelfDistill:
    return SelfDistill(MODEL, **{**SMALL, **changes})


@functools.cache
def batch() -> Any:
    rng = np.random.default_rng(0)
    mask = rng.random((ROWS, 2, 4, 4)) < 0.3
    mask[1, 0] = mask[2] = False
    return {
        "image/global": rng.normal(size=(ROWS, 2, 16, 16, 3)).astype(np.float32),
        "image/local": rng.normal(size=(ROWS, 3, 8, 8, 3)).astype(np.float32),
        "mask": mask,
        "_mask": np.arange(ROWS) != 4,
    }


@functools.cache
def variables() -> Variables:
    """Fresh ones, the teacher not quite the student and a token that hides."""
    made = jax.jit(distill().init)(jax.random.key(0), batch())
    teacher = jax.tree.map(lambda x: x + 0.1 * jnp.sin(x), made.extra_state["teacher"])
    params = {**made.params, "hidden": {"token": jnp.linspace(-1, 1, 16)}}
    return made.merge(params=params, extra_state={"teacher": teacher})


@functools.cache
def compiled(objective: SelfDistill, accumulate: int = 1) -> Any:
    given = variables()
    if not objective.patch_weight:
        params = {name: given.params[name] for name in ("model", "view_head")}
        given = dataclasses.replace(given, params=params)

    def run(batch: Any) -> Any:
        ctx = Context(jnp.int32(4), 10, True, jax.random.key(1))
        return loss_and_gradient(objective, given.params, given, batch, ctx, accumulate)

    return jax.jit(run)


def test_losses_equal_their_equations():
    """From the embedded rows, over the five valid rows one by one."""
    objective, given = distill(most_hidden=1.0), variables()
    ctx = Context(jnp.int32(4), 10, True, jax.random.key(1))

    @jax.jit
    def both() -> Any:
        rows, _ = objective.encode(given, batch(), ctx)
        return rows, objective.loss_from_embeddings(given, rows, batch(), ctx)[1].metrics

    rows, metrics = jax.device_get(both())
    valid, mask = batch()["_mask"], batch()["mask"].reshape(ROWS, 2, -1)
    params, teacher = given.params, given.extra_state["teacher"]

    @functools.partial(jax.jit, static_argnums=0)
    def scored(name: str) -> Any:
        kernel = teacher[f"{name}_head"]["prototypes"]["kernel"]
        scores = cosines(rows[f"teacher/{name}"], kernel)
        ours = cosines(rows[f"student/{name}"], params[f"{name}_head"]["prototypes"]["kernel"])
        return scores, jax.nn.log_softmax(ours / 0.1)

    def predicted(name: str) -> tuple[np.ndarray, np.ndarray]:
        return jax.device_get(scored(name))

    def targets(scores: np.ndarray) -> np.ndarray:
        # Step 4 of 10: the temperature has risen since step 3.
        return np.asarray(jax.jit(sinkhorn)(scores, np.ones(len(scores), bool), 0.07))

    scores, logs = predicted("view")
    target = targets(scores[valid].reshape(-1, 7)).reshape(5, 2, 7)
    pairs = [(t, s) for t in range(2) for s in range(5) if t != s]
    views = [-(target[:, t] * logs[valid][:, s]).sum(-1).mean() for t, s in pairs]
    np.testing.assert_allclose(metrics["view_loss"], np.mean(views), rtol=1e-5)

    scores, logs = predicted("patch")
    places = np.argsort(~mask, axis=-1, kind="stable")
    chosen = [(i, g, m) for i in np.flatnonzero(valid) for g in range(2) for m in range(16)]
    chosen = [(i, g, m) for i, g, m in chosen if mask[i, g, places[i, g, m]]]
    assert len(chosen) == mask[valid].sum() > 20
    where = tuple(np.array(chosen).T)
    target = targets(scores[where])
    each = -(target * logs[where]).sum(-1) / mask.sum(-1)[where[:2]]
    np.testing.assert_allclose(metrics["patch_loss"], each.sum() / 10, rtol=1e-5)

    spread = [jax.jit(koleo)(rows["embedding"][valid, g], np.ones(5, bool)) for g in range(2)]
    np.testing.assert_allclose(metrics["koleo"], np.sum(spread), rtol=1e-5)


def test_the_losses_are_those_of_lightly():
    """bench/goldens/self_distillation.py: prototypes are the axes, targets plain softmaxes."""
    golden = np.load(GOLDEN)
    objective = distill(most_hidden=1.0, iterations=0, patch_weight=1.0)
    mask, axes = golden["mask"], {"prototypes": {"kernel": jnp.eye(8)}}
    places = np.argsort(~mask.reshape(6, 2, -1), axis=-1, kind="stable")[..., None]
    embedded = {name: golden[name] for name in ("teacher/view", "student/view", "embedding")}
    for name in ("teacher/patch", "student/patch"):
        embedded[name] = np.take_along_axis(golden[name], places, 2)
    heads = {"view_head": axes, "patch_head": axes}

    @jax.jit
    def coupled(embedded: Any) -> Any:
        ctx = Context(jnp.int32(9), 10, True, jax.random.key(1))
        batch = {"mask": jnp.asarray(mask), "_mask": jnp.ones(6, bool)}
        given = Variables(heads, {}, {"teacher": heads})
        return objective.loss_from_embeddings(given, embedded, batch, ctx)[1].metrics

    actual = coupled(embedded)
    for name in ("view_loss", "patch_loss", "koleo"):
        np.testing.assert_allclose(actual[name], golden[name], rtol=1e-5)
    rows = golden["teacher/view"].reshape(-1, 8)
    balanced = jax.jit(sinkhorn)(rows, np.ones(len(rows), bool), 0.07)
    np.testing.assert_allclose(balanced, golden["sinkhorn"], atol=1e-6)


@pytest.mark.slow
def test_micro_batches_give_the_loss_of_the_whole():
    loss, aux, grads = compiled(distill())(batch())
    cut_loss, cut_aux, cut_grads = compiled(distill(), 2)(batch())
    np.testing.assert_allclose(cut_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(cut_aux.metrics["patch_loss"], aux.metrics["patch_loss"], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), cut_grads, grads
    )
    assert np.abs(grads["hidden"]["token"]).max() > 1e-5


def test_masked_rows_do_not_count():
    poisoned = {name: np.array(x) for name, x in batch().items()}
    poisoned["image/global"][4], poisoned["mask"][4] = 5.0, True
    poisoned["image/local"][4] = -3.0
    loss, _, grads = compiled(distill())(batch())
    again, _, others = compiled(distill())(poisoned)
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), others, grads)


def test_masked_patches_have_a_token_instead_of_pixels():
    objective, given = distill(), variables()
    params, ctx = given.params, Context(jnp.int32(0), 10, True, jax.random.key(1))

    @jax.jit
    def student(params: Any, batch: Any) -> Any:
        rows = objective.encode(given.merge(params=params), batch, ctx)[0]
        return {name: x for name, x in rows.items() if not name.startswith("teacher")}

    pixels = np.repeat(np.repeat(batch()["mask"], 4, 2), 4, 3)[..., None]
    noisy = {**batch(), "image/global": np.where(pixels, 9.0, batch()["image/global"])}
    actual = student(params, batch())
    jax.tree.map(np.testing.assert_array_equal, student(params, noisy), actual)
    bare = student({**params, "hidden": {"token": jnp.zeros(16)}}, batch())
    change = np.abs(bare["embedding"] - actual["embedding"]).max(-1)
    np.testing.assert_array_equal(change > 1e-4, batch()["mask"].any((2, 3)))


def test_without_a_patch_loss_nothing_is_masked():
    plain = {name: x for name, x in batch().items() if name != "mask"}
    loss, aux, grads = compiled(distill(patch_weight=0.0))(plain)
    made = jax.eval_shape(distill(patch_weight=0.0).init, jax.random.key(0), plain)
    assert sorted(made.params) == sorted(grads) == ["model", "view_head"]
    assert sorted(aux.metrics) == ["koleo", "view_loss"]
    expected = aux.metrics["view_loss"] + 0.1 * aux.metrics["koleo"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="needs batch"):
        compiled(distill())(plain)


def test_teacher_starts_as_the_student_and_its_momentum_increases():
    objective = distill()
    step = Step(
        objective, Optimizer(adamw(), 1e-2, rules=(ParameterRule(".*"),)), TrainLength(6, 6, 2)
    )
    state = jax.jit(lambda: step.init_from_batch(step.init(batch()), batch()))()
    jax.tree.map(
        np.testing.assert_array_equal,
        state.extra_state["teacher"],
        {name: x for name, x in state.params.items() if name != "hidden"},
    )
    update = jax.jit(step.update)
    for momentum in (0.9, 0.95):  # half a cosine from 0.9 to 1 at step 2
        after, metrics = update(state, batch())
        assert all(np.isfinite(x) for x in metrics.values())
        jax.tree.map(
            lambda old, new, now, m=momentum: np.testing.assert_allclose(
                now, m * old + (1 - m) * new, atol=1e-6
            ),
            state.extra_state["teacher"],
            {name: x for name, x in after.params.items() if name != "hidden"},
            after.extra_state["teacher"],
        )
        state = after
    image = batch()["image/global"][:, 0]
    answer = jax.jit(step.predict)(state.variables, {"image": image})
    embedding, out, _ = forward(
        MODEL, state.extra_state["teacher"]["model"], {}, image, train=False
    )
    np.testing.assert_allclose(answer["embedding"], embedding, atol=1e-5)
    np.testing.assert_allclose(answer["map"], out["map"], atol=1e-5)
