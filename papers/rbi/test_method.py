"""RBI: with nothing projected it is the plain head; rows permute; what is masked is not seen."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.rbi.method import RelationshipBatch
from papers.rbi.relation import psnr_similarity
from tests.models.tower_cases import quick_jit
from tests.tiny import drawn
from vision.models.plain_conv import PlainConv
from vision.train.objective import Context

MODEL: Any = PlainConv(width=8, depth=1, num_classes=3, norm="none", pool="mean")
OBJECTIVE = RelationshipBatch(MODEL, heads=2, direct=0.5)
CTX = Context(jnp.zeros([], jnp.int32), 10, True, jax.random.key(1))


def batch(rows: int = 6) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    image = rng.random((rows, 4, 4, 1)).astype(np.float32)
    return {"image": image, "label": np.arange(rows) % 3, "_mask": np.arange(rows) != 4}


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(OBJECTIVE.init, batch())


@pytest.fixture(scope="module")
def predict() -> Any:
    @quick_jit
    def answers(variables: Any, batch: Any) -> Any:
        ctx = Context.evaluation()
        alone = dataclasses.replace(OBJECTIVE, alone=True)
        return OBJECTIVE.predict(variables, batch, ctx), alone.predict(variables, batch, ctx)

    return lambda variables, batch: jax.device_get(answers(variables, batch))


def test_without_what_is_projected_it_is_a_linear_head(variables: Any, predict: Any):
    relation = dict(variables.params["relation"])
    relation["proj"] = jax.tree.map(jnp.zeros_like, relation["proj"])
    out = predict(variables.merge(params={"relation": relation}), batch())[0]
    head = jax.device_get(relation["head"])
    np.testing.assert_allclose(
        out["logits"], out["embedding"] @ head["kernel"] + head["bias"], atol=1e-5
    )
    own = jax.device_get(variables.params["model"]["head"])
    np.testing.assert_allclose(
        out["logits/direct"], out["embedding"] @ own["kernel"] + own["bias"], atol=1e-5
    )


def test_rows_permute_and_masked_rows_are_seen_by_nobody(variables: Any, predict: Any):
    given, order = batch(), np.array([3, 0, 5, 1, 4, 2])
    out, _ = predict(variables, given)
    permuted, _ = predict(variables, {name: each[order] for name, each in given.items()})
    np.testing.assert_allclose(permuted["logits"], out["logits"][order], atol=2e-5)
    changed = {**given, "image": given["image"].copy()}
    changed["image"][4] = 7.0
    other, _ = predict(variables, changed)
    np.testing.assert_allclose(
        other["logits"][given["_mask"]], out["logits"][given["_mask"]], atol=1e-5
    )
    changed["image"][0] *= 3  # a row that counts is seen by the others
    assert np.abs(predict(variables, changed)[0]["logits"][1] - out["logits"][1]).max() > 1e-3


def test_alone_is_a_batch_of_one(variables: Any, predict: Any):
    given = batch()
    _, alone = predict(variables, given)
    one, _ = predict(variables, {name: each[2:3] for name, each in given.items()})
    np.testing.assert_allclose(one["logits"][0], alone["logits"][2], atol=1e-5)


def test_similarity_is_the_scaled_psnr():
    rng = np.random.default_rng(1)
    image = rng.random((5, 8, 8, 3)).astype(np.float32)
    valid = np.array([True, True, True, True, False])
    error = ((image[:, None] - image[None]) ** 2).mean((2, 3, 4))
    psnr = 10 * np.log10(1 / np.where(error > 0, error, np.nan))
    kept = psnr[:4, :4]
    expected = (kept - np.nanmin(kept)) / (np.nanmax(kept) - np.nanmin(kept))
    expected[np.eye(4, dtype=bool)] = 1
    similarity = jax.jit(psnr_similarity)
    np.testing.assert_allclose(similarity(image, valid)[:4, :4], expected, atol=1e-3)
    # Neither the unit of the images nor their zero matters.
    np.testing.assert_allclose(similarity(2 * image - 1, valid)[:4, :4], expected, atol=1e-3)
    copies = np.stack([image[0], image[0], image[1], image[2], image[3]])
    twins = np.asarray(similarity(copies, np.ones(5, bool)))
    assert twins[0, 1] == 1
    assert np.isfinite(twins).all()


def test_the_loss_is_of_both_heads_and_of_the_rows_that_count(variables: Any):
    given = batch()

    @quick_jit
    def both(variables: Any, batch: Any) -> Any:
        return OBJECTIVE.loss(variables, batch, CTX), OBJECTIVE.predict(variables, batch, CTX)

    (loss, aux), out = jax.device_get(both(variables, given))
    rows = np.flatnonzero(given["_mask"])

    def entropy(logits: np.ndarray) -> float:
        log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return float(-log[rows, given["label"][rows]].mean())

    np.testing.assert_allclose(
        loss, entropy(out["logits"]) + 0.5 * entropy(out["logits/direct"]), rtol=1e-5
    )
    assert set(aux.metrics) == {"top1", "direct_top1"}


def test_what_cannot_be_is_named():
    headless = RelationshipBatch(PlainConv(width=8, depth=1))
    with pytest.raises(ValueError, match="no head"):
        jax.eval_shape(lambda: headless.init(jax.random.key(0), batch()))
    with pytest.raises(ValueError, match="heads=3 does not divide the 8"):
        jax.eval_shape(lambda: RelationshipBatch(MODEL, heads=3).init(jax.random.key(0), batch()))
