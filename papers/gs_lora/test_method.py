"""The loss by hand and its identities, groups of blocks, the objective and the evaluator."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.gs_lora.evaluator import Forgetting
from papers.gs_lora.method import Forget
from papers.gs_lora.terms import Weights, changed, group_norms, harmonic, request_loss
from tests.block_tower import BlockTower
from tests.tiny import drawn
from vision.blocks.adapters import Lora
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.models.adapted import AdaptedTower
from vision.models.vit import ViT
from vision.parallel.mesh import Mesh
from vision.train.objective import Context, Variables
from vision.train.tower import forward

RNG = np.random.default_rng(0)
LOGITS, PLACES = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 3))
CENTRES, KNOWN = RNG.normal(size=(4, 3)), np.asarray([True, True, True, False])
LABEL = np.asarray([0, 1, 2, 3, 0, 1])
FORGETS, VALID = np.isin(LABEL, [0]), np.asarray([True, True, True, True, True, False])


@jax.jit
def value(weights: Any, logits: Any, forgets: Any = FORGETS) -> Any:
    """The loss, its parts and its slope, of weights (6,) in the order of the fields."""

    def loss(logits: jax.Array) -> Any:
        terms = object.__new__(Weights)  # traced numbers have no range to check
        for name, x in zip(Weights.__dataclass_fields__, weights, strict=True):
            object.__setattr__(terms, name, x)
        given: Any = (PLACES, CENTRES, KNOWN, LABEL, forgets, VALID)
        return request_loss(terms, logits, *given)

    return jax.value_and_grad(loss, has_aux=True)(logits)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_the_loss_is_the_one_written_out():
    (loss, parts), _ = jax.device_get(value([0.5, 3.0, 0.0, 0.2, 0.7, 2.0], LOGITS))
    losses = -log_softmax(LOGITS)[np.arange(6), LABEL]
    p = log_softmax(CENTRES)[LABEL]
    apart = (np.exp(p) * (p - log_softmax(PLACES))).sum(1)
    expected = {
        "ce_forget": losses[[0, 4]].mean(),
        "ce_remain": losses[[1, 2, 3]].mean(),
        "kl_forget": apart[[0, 4]].mean(),
        "kl_remain": apart[[1, 2]].mean(),  # class 3 has no prototype
    }
    for name, number in expected.items():
        assert parts[name] == pytest.approx(number, rel=1e-5)
    total = expected["ce_remain"] + 0.5 * max(3 - expected["ce_forget"], 0)
    total += 0.2 * max(2 - expected["kl_forget"], 0) + 0.7 * expected["kl_remain"]
    assert loss == pytest.approx(total, rel=1e-5)


def test_without_weights_it_is_cross_entropy_and_beyond_a_bound_nothing_is_raised():
    (loss, parts), slope = jax.device_get(value([0.0, 3.0, 0.0, 0.0, 0.0, 2.0], LOGITS))
    assert loss == pytest.approx(parts["ce_remain"])
    assert (slope[FORGETS] == 0).all()
    assert np.abs(slope[1:4]).min() > 0
    (_, parts), slope = jax.device_get(value([0.5, 0.01, 0.0, 0.0, 0.0, 2.0], LOGITS))
    assert parts["ce_forget"] > 0.01
    assert (slope[FORGETS] == 0).all()
    _, slope = jax.device_get(value([0.5, 100.0, 0.0, 0.0, 0.0, 2.0], LOGITS))
    assert (slope[np.arange(6), LABEL][[0, 4]] > 0).all()  # descent lowers the forgotten logit
    (loss, parts), _ = jax.device_get(value([0.5, 100.0, 0, 0, 0, 2.0], LOGITS, np.zeros(6, bool)))
    assert loss == pytest.approx(parts["ce_remain"])


def test_a_group_is_a_block_in_a_stack_or_not():
    parts = [{"fc1": RNG.normal(size=(3, 2)), "fc2": RNG.normal(size=(2, 2))} for _ in range(3)]
    expected = [np.sqrt(sum((x**2).sum() for x in part.values())) for part in parts]

    def layers(part: Any) -> Any:
        return {"mlp": {name: {"lora_a": x, "lora_b": 0 * x} for name, x in part.items()}}

    apart = {f"block{i:02d}": layers(part) for i, part in enumerate(parts)}
    stack = {"blocks": layers({name: np.stack([p[name] for p in parts]) for name in parts[0]})}
    of = jax.jit(group_norms)
    np.testing.assert_allclose(of(apart), expected, rtol=1e-5)
    np.testing.assert_allclose(of(stack), expected, rtol=1e-5)
    slope = jax.jit(jax.grad(lambda tree: group_norms(tree).sum()))(
        jax.tree.map(np.zeros_like, apart)
    )
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
    assert changed(np.asarray([1.0, 0.5, 0.001])) == pytest.approx(2 / 3)
    assert changed(np.zeros(3)) == 0
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert harmonic(0.9, -0.1) == 0


@pytest.mark.parametrize("scan", [True, False])
def test_groups_of_a_vit_are_its_blocks(scan: bool):
    vit = ViT(width=8, depth=3, heads=1, patch=4, num_classes=2, scan=scan)
    tower = AdaptedTower(vit, (Lora(pattern=r"mlp/(fc1|fc2)/kernel$", rank=2),))
    shapes = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    added = shapes["params"]["adapters"]
    assert jax.eval_shape(group_norms, added).shape == (3,)
    assert len(jax.tree.leaves(added)) == (4 if scan else 12)


TOWER = AdaptedTower(BlockTower(num_classes=3), (Lora(pattern=r"_mlp/kernel$", rank=2),))
IMAGES = RNG.normal(size=(6, 4, 4, 3)).astype(np.float32)
BATCH = {"image": IMAGES, "label": np.asarray([0, 1, 2, 0, 1, -1]), "_mask": np.ones(6, bool)}
OBJECTIVE = Forget(TOWER, forget=(0,), weights=Weights(group=0.5), sparse_after=0.5)


def variables(b: float) -> Variables:
    """Random, with B of the adapters times ``b`` and no image seen."""
    of = drawn(OBJECTIVE.init, BATCH)
    model = dict(of.params["model"])
    model["adapters"] = {
        name: {**layer, "lora_b": b * layer["lora_b"]} for name, layer in model["adapters"].items()
    }
    seen = jax.tree.map(np.zeros_like, of.extra_state)
    return of.merge(params={"model": model}, extra_state=seen)


@jax.jit
def both(of: Variables, batch: Any, step: Any) -> Any:
    ctx = Context(step, 10, train=True, key=jax.random.key(0))
    loss, aux = OBJECTIVE.loss(of, batch, ctx)
    plain = forward(TOWER.tower, of.params["model"]["tower"], {}, batch["image"], train=False)
    said = OBJECTIVE.predict(of, batch, ctx)
    norms = group_norms(of.params["model"]["adapters"])
    return loss, OBJECTIVE.after_update(of, aux, ctx), said, plain[1]["logits"], plain[0], norms


def test_with_b_zero_nothing_changes_and_prototypes_are_means_of_what_was():
    of = variables(0.0)
    loss, extra, said, plain, embedding, _ = jax.device_get(both(of, BATCH, 0))
    np.testing.assert_array_equal(said["logits"], said["before/logits"])
    np.testing.assert_allclose(said["before/logits"], plain, atol=1e-6)
    seen = extra["prototypes"]
    np.testing.assert_array_equal(seen["count"], [2, 2, 1])
    np.testing.assert_allclose(seen["sum"][0], embedding[[0, 3]].sum(0), rtol=1e-5)
    again = jax.device_get(both(of.merge(extra_state=extra), BATCH, 0))[1]["prototypes"]
    np.testing.assert_allclose(again["sum"], 2 * seen["sum"], rtol=1e-5)
    assert np.isfinite(loss)


def test_groups_count_after_their_share_and_updates_change_what_is_said():
    of = variables(1.0)
    early, late = (jax.device_get(both(of, BATCH, step)) for step in (4, 5))
    assert late[0] - early[0] == pytest.approx(0.5 * late[-1].sum(), rel=1e-4)
    assert np.abs(late[2]["logits"] - late[2]["before/logits"]).max() > 0.1
    np.testing.assert_allclose(late[2]["before/logits"], late[3], atol=1e-6)


def test_faults_of_the_objective():
    for forget, says in (
        ((3,), r"forget=\(3,\), but classes are 0\.\.2"),
        ((0, 1, 2), "none remains"),
    ):
        with pytest.raises(ValueError, match=says):
            drawn(Forget(TOWER, forget=forget).init, BATCH)
    with pytest.raises(ValueError, match="must be an AdaptedTower"):
        drawn(Forget(BlockTower(num_classes=3), forget=(0,)).init, BATCH)
    with pytest.raises(ValueError, match="set num_classes"):
        drawn(Forget(AdaptedTower(BlockTower(), TOWER.adapters), forget=(0,)).init, BATCH)
    with pytest.raises(ValueError, match="forget"):
        Forget(TOWER, forget=())
    with pytest.raises(ValueError, match="beta is -1"):
        Weights(beta=-1)


def asked(label: Any, adapters: Any = None, forget: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """The evaluator on images of one number: the class that is said, and the one that was."""
    now, before = np.asarray([1, 2, 0, 1, 1, 2]), np.asarray([0, 0, 0, 1, 1, 1])
    image = np.stack([now, before], 1).astype(np.float32).reshape(6, 1, 2, 1)
    source = Arrays({"image": image, "label": np.asarray(label)}, "made")

    def predict(of: Variables, batch: Any) -> dict[str, jax.Array]:
        kinds = jax.nn.one_hot(batch["image"][:, 0, :, 0].astype(jnp.int32), 3)
        return {"logits": kinds[:, 0], "before/logits": kinds[:, 1]}

    model = {} if adapters is None else {"adapters": adapters}
    mesh = Mesh().build(jax.devices()[:1])
    data = EvalData(source, batch_size=4, threads=0)
    of = Variables({"model": model}, {}, {})
    numbers, figures = evaluate(Forgetting(data, forget), predict, of, 0, mesh)
    return {**numbers, **figures}


def test_the_evaluator_counts_what_was_and_is_right():
    adapters = {f"block{i:02d}": {"lora_a": np.full((2, 2), x)} for i, x in enumerate((1.0, 1e-4))}
    got = asked([0, 0, 0, 1, 1, 2], adapters)
    assert got["forget_before"] == 1
    assert got["forget"] == pytest.approx(1 / 3)
    assert got["drop"] == pytest.approx(2 / 3)
    assert got["remain"] == 1
    assert got["remain_before"] == pytest.approx(2 / 3)
    assert got["h"] == pytest.approx(0.8)
    assert got["blocks"] == 0.5
    np.testing.assert_allclose(got["norm_by_block"].lines[0].y, [2, 2e-4], rtol=1e-5)
    with pytest.raises(DataError, match=r"made: no image of class 7 of forget=\(7,\)"):
        asked([0, 0, 0, 1, 1, 2], adapters, (7,))
    with pytest.raises(DataError, match="made: no image of a class that remains"):
        asked([0] * 6, adapters)
    with pytest.raises(ValueError, match="the run has none"):
        asked([0, 0, 0, 1, 1, 2])
