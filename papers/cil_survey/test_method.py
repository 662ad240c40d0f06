"""Streams of tasks: the stage's loss, alignment, herding, the protocol's numbers and memory."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from papers.cil_survey.config import LEARNERS, SMALL_FLOATS, Name, small
from papers.cil_survey.head import aligned
from papers.cil_survey.method import Incremental
from tests.tiny import drawn
from vision.config.specs import build
from vision.data.sources.digits import Digits
from vision.data.sources.splits import OfClasses
from vision.metrics.arrays import MetricError
from vision.metrics.continual import continual, memory_in_examples
from vision.models.plain_conv import PlainConv
from vision.objectives.classify import Classify
from vision.probes.herding import herd
from vision.scenario import stages
from vision.train.objective import Context, Objective, Variables
from vision.train.tower import count_params

TASKS = ((3, 1), (0, 2))
TOWER = PlainConv(width=4, depth=1, num_classes=5)
IMAGE = np.random.default_rng(0).random((4, 4, 4, 1)).astype(np.float32)
LABEL = np.array([3, 1, 2, 0], np.int32)
BATCH: Any = {"image": IMAGE, "label": LABEL, "_mask": np.ones(4, bool)}


def loss(objective: Objective, variables: Variables, *batches: Any) -> Any:
    """Of the batch; of several, a list."""

    @jax.jit
    def of(variables: Variables, batch: Any) -> Any:
        ctx = Context(jnp.int32(0), 1, train=True, key=jax.random.key(2))
        return objective.loss(variables, batch, ctx)

    results = [jax.device_get(of(variables, batch)) for batch in batches or (BATCH,)]
    return results if batches else results[0]


def predict(objective: Objective, variables: Variables) -> Any:
    ctx = Context.evaluation()
    return jax.device_get(jax.jit(lambda v: objective.predict(v, BATCH, ctx))(variables))


def first_batch(objective: Incremental, variables: Variables) -> Variables:
    return jax.jit(objective.init_from_batch)(variables, BATCH, jax.random.key(3))


def begun(**options: Any) -> tuple[Incremental, Any]:
    objective = Incremental(TOWER, TASKS, **options)
    return objective, first_batch(objective, drawn(objective.init, BATCH))


def test_one_task_of_all_classes_is_classification():
    all_at_once = Incremental(TOWER, ((0, 1, 2, 3, 4),))
    variables = drawn(all_at_once.init, BATCH)
    ours, aux = loss(all_at_once, variables)
    plain, expected = loss(Classify(TOWER), variables)
    assert float(ours) == pytest.approx(float(plain), rel=1e-6)
    assert aux.metrics == expected.metrics


def test_an_image_without_a_label_counts_in_no_term():
    """In the batch of four the loss is that of the two labelled images, whatever the others are."""
    partly = {**BATCH, "label": np.array([3, -1, 2, -1], np.int32)}
    labelled = {**BATCH, "_mask": np.array([True, False, True, False])}
    for distil in ("none", "added", "shared"):
        objective, variables = begun(stage=1, distil=distil)
        (value, aux), (expected, expected_aux) = loss(objective, variables, partly, labelled)
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
        assert aux.metrics["top1"] == expected_aux.metrics["top1"]
        assert aux.weight == 2


def test_classes_to_come_have_no_share():
    objective, variables = begun(stage=0)
    predictions = predict(objective, variables)
    probabilities = np.exp(predictions["log_probabilities"])
    np.testing.assert_allclose(probabilities[:, [1, 3]].sum(1), 1, rtol=1e-6)
    assert (probabilities[:, [0, 2, 4]] == 0).all()


def test_a_student_that_is_its_teacher_has_the_teachers_entropy_to_pay():
    """And no gradient from it; ``shared`` weights both by the share of the classes."""
    plain, variables = begun(stage=1)
    assert not variables.extra_state
    alone, _ = loss(plain, variables)
    logits = predict(Classify(TOWER), variables)["logits"][:, (3, 1)]
    softened = softmax(logits / 2, -1)
    entropy = float(-np.mean(np.sum(softened * np.log(softened), -1)))
    for distil, weight, teacher_weight in (("added", 1.0, 1.0), ("shared", 0.5, 0.5)):
        objective, with_teacher = begun(stage=1, distil=distil)
        value, _ = loss(objective, with_teacher)
        assert float(value) == pytest.approx(
            weight * float(alone) + teacher_weight * entropy, rel=1e-5
        )
        teacher = with_teacher.extra_state["teacher"]["params"]
        jax.tree.map(np.testing.assert_array_equal, teacher, with_teacher.params["model"])
    _, variables = begun(stage=0, distil="added")
    assert not variables.extra_state


def test_aligned_rows_are_as_long_as_the_old_ones():
    kernel = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    params = {"head": {"kernel": kernel, "bias": np.ones(5, np.float32)}}
    align = jax.jit(aligned, static_argnums=(1, 2))
    after = jax.device_get(align(params, (0, 1), (2, 4))["head"])
    lengths = np.linalg.norm(after["kernel"], axis=0)
    assert lengths[[2, 4]].mean() == pytest.approx(lengths[[0, 1]].mean(), rel=1e-6)
    assert (after["kernel"][:, [0, 1, 3]] == params["head"]["kernel"][:, [0, 1, 3]]).all()
    assert (after["bias"] == 1).all()
    again = align({"head": after}, (0, 1), (2, 4))["head"]["kernel"]
    np.testing.assert_allclose(again, after["kernel"], rtol=1e-6)
    assert aligned(params, (), (2, 4)) is params


def test_the_next_stage_begins_with_what_the_last_one_answered_with():
    """The aligned head of stage 1 is the teacher of stage 2."""
    tasks = ((3,), (1,), (0,))
    make = {"align": True, "distil": "added"}
    second, third = (Incremental(TOWER, tasks, stage=n, **make) for n in (1, 2))
    variables = drawn(second.init, BATCH)
    after = first_batch(third, drawn(third.init, BATCH).merge(params=variables.params))
    answered = jax.jit(aligned, static_argnums=(1, 2))(variables.params["model"], (3,), (1,))
    for place in (after.params["model"], after.extra_state["teacher"]["params"]):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), place, answered)


def test_a_stage_refuses_tasks_that_share_a_class():
    with pytest.raises(ValueError, match="a class occurs twice"):
        Incremental(TOWER, ((1,), (1, 2)))
    with pytest.raises(ValueError, match="stage=2 of 2"):
        Incremental(TOWER, TASKS, stage=2)


def test_herding_follows_the_mean_as_no_other_choice_does():
    x = np.random.default_rng(0).normal(size=(30, 4))
    chosen = herd(x, 8)
    assert len(set(chosen.tolist())) == 8
    assert (herd(x, 3) == chosen[:3]).all()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    mean = unit.mean(0)
    for k in range(1, 9):  # brute force of every greedy choice
        gaps = [
            float(np.linalg.norm(mean - unit[[*chosen[: k - 1], i]].mean(0)))
            if i not in chosen[: k - 1]
            else math.inf
            for i in range(30)
        ]
        assert chosen[k - 1] == int(np.argmin(gaps))
    with pytest.raises(ValueError, match="count=31"):
        herd(x, 31)


def test_numbers_of_the_protocol():
    right = np.array([[10, 9, 9], [6, 8, 9], [4, 6, 5]])
    metrics = continual(right, np.array([10, 10, 5]))
    assert metrics["last"] == 15 / 25
    assert metrics["average"] == pytest.approx((1 + 14 / 20 + 15 / 25) / 3)
    assert metrics["forgetting"] == pytest.approx(((1 - 0.4) + (0.8 - 0.6)) / 2)
    assert continual(np.array([[3]]), np.array([4])) == {
        "last": 0.75,
        "average": 0.75,
        "forgetting": 0.0,
    }
    with pytest.raises(MetricError):
        continual(right, np.array([1, 2]))


def test_memory_is_counted_as_the_survey_does():
    assert memory_in_examples(463_504, 32 * 32 * 3) == 603
    config: Any = small("joint")
    tower = build(config.stages[0].do.model)
    tower = dataclasses.replace(tower, num_classes=10)
    params = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    assert count_params(params) == SMALL_FLOATS


def test_records_of_some_classes():
    some = OfClasses(Digits(split="test"), classes=(7, 2))
    labels = np.asarray(some.column("label"))
    assert set(labels.tolist()) == {2, 7}
    assert len(some) == 71 == some.info.num_examples
    assert some.info.class_names == tuple("0123456789")
    assert some[0]["label"] == labels[0]


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_a_scenario(name: Name):
    config: Any = small(name)
    stages.check(config)
    names = [stage.name for stage in config.stages]
    assert names[-1] == "protocol"
    assert ("memory0" in names) == LEARNERS[name].replays
