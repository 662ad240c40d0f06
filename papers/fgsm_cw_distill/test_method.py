"""Defensive distillation: what it is at temperature 1, its teacher, and where that comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.fgsm_cw_distill.method import DefensiveDistillation
from papers.fgsm_cw_distill.teacher import TeacherFrom
from tests.patch_tower import PatchTower
from tests.tiny import drawn
from vision.objectives.classify import Classify
from vision.train.objective import Context, Variables
from vision.weights.mapping import WeightsError
from vision.weights.reader import write_safetensors

TOWER = PatchTower(width=8, num_classes=4)
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.normal(size=(6, 4, 8, 1)).astype(np.float32),
    "label": np.asarray([0, 1, 2, 3, -1, 2], np.int32),
    "_mask": np.asarray([True] * 5 + [False]),
}


def value(objective: Any, of: Variables) -> tuple[float, Any]:
    ctx = Context(jnp.zeros([], jnp.int32), 1, train=True, key=jax.random.key(0))

    def loss(params: Any) -> Any:
        return objective.loss(of.merge(params=params), BATCH, ctx)[0]

    loss_value, slope = jax.device_get(jax.jit(jax.value_and_grad(loss))(of.params))
    return float(loss_value), slope


def begun(objective: Any, seed: int) -> Variables:
    """Random variables; those of a teacher as ``init`` leaves them."""
    variables = drawn(objective.init, BATCH, seed)
    if objective.distil:
        init = jax.jit(lambda: objective.init(jax.random.key(seed), BATCH).params["teacher"])
        variables = variables.merge(params={"teacher": init()})
    return variables


def test_at_temperature_one_labels_give_cross_entropy():
    cold = DefensiveDistillation(TOWER, temperature=1.0)
    start = begun(cold, 1)
    assert value(cold, start)[0] == pytest.approx(value(Classify(TOWER), start)[0], rel=1e-6)
    # A head with T times the weights is at temperature T what it was at 1.
    hot = DefensiveDistillation(TOWER, temperature=8.0)
    params = {**start.params["model"]}
    params["head"] = jax.tree.map(lambda x: 8 * x, params["head"])
    scaled = Variables({"model": params}, start.model_state, {})
    assert value(hot, scaled)[0] == pytest.approx(value(cold, start)[0], rel=1e-5)
    ctx = Context.evaluation()
    predictions = jax.jit(lambda batch: hot.predict(scaled, batch, ctx))(BATCH)
    assert np.allclose(predictions["tempered_logits"] * 8, predictions["logits"])


def test_the_teacher_is_read_and_does_not_learn(tmp_path: Path):
    # Another, wider tower, whose head takes its classes from the model.
    wider = PatchTower(width=16)
    distil = DefensiveDistillation(TOWER, temperature=5.0, distil=True, teacher=wider)
    start = begun(distil, 1)
    assert np.isnan(value(distil, start)[0])  # nobody has filled it
    teacher = DefensiveDistillation(wider.clone(num_classes=4), temperature=5.0)
    learned = begun(teacher, 2)
    leaves = jax.tree_util.tree_leaves_with_path(learned.params)
    named = {
        "params." + jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in leaves
    }
    write_safetensors(tmp_path / "teacher.safetensors", named, {})
    source = TeacherFrom(f"safetensors:{tmp_path}/teacher.safetensors", wider)
    fresh = {
        "params": start.params["model"],
        "model_state": {},
        "objective": {"teacher": start.params["teacher"]},
    }
    filled = source.load(TOWER, fresh)
    assert filled["params"] is fresh["params"]
    params = {"model": filled["params"], **filled["objective"]}
    for one, other in zip(
        jax.tree.leaves(params["teacher"]), jax.tree.leaves(learned.params), strict=True
    ):
        assert np.array_equal(one, other)
    loss, slope = value(distil, Variables(params, start.model_state, {}))
    assert not any(np.any(x) for x in jax.tree.leaves(slope["teacher"]))
    assert any(np.any(x) for x in jax.tree.leaves(slope["model"]))
    # A student that is its teacher has only the teacher's own doubt left, unlabelled rows included.
    same = DefensiveDistillation(wider.clone(num_classes=4), temperature=5.0, distil=True)
    copied = Variables(
        {"model": learned.params["model"], "teacher": params["teacher"]}, start.model_state, {}
    )
    least, still = value(same, copied)
    assert least < loss
    assert max(np.abs(x).max() for x in jax.tree.leaves(still["model"])) < 1e-6
    with pytest.raises(WeightsError, match="the objective has none"):
        source.load(TOWER, {**fresh, "objective": {}})


def test_bad_arguments():
    with pytest.raises(ValueError, match="temperature is 0"):
        DefensiveDistillation(TOWER, temperature=0)
    with pytest.raises(ValueError, match="set distil=True"):
        DefensiveDistillation(TOWER, teacher=TOWER)
    with pytest.raises(ValueError, match="starts with one of"):
        TeacherFrom("somewhere")
