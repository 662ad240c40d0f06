"""SMMix: regions by brute force, exact shares, and what is left when nothing is pasted."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.smmix.method import SMMix
from papers.smmix.regions import paste, regions
from tests.patch_tower import PatchTower
from tests.tiny import drawn
from vision.objectives.classify import Classify, cross_entropy
from vision.train.accumulate import loss_and_gradient
from vision.train.objective import Context

MODEL = PatchTower(num_classes=5)
SMOOTH = 0.1


def batch(rows: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(rows, 16, 16, 3)).astype(np.float32),
        "label": (np.arange(rows) % 5).astype(np.int32),
        "_mask": np.ones(rows, bool),
    }


def context(step: Any = 0) -> Context:
    key = jax.random.fold_in(jax.random.key(1), step)
    return Context(jnp.asarray(step, jnp.int32), 10, True, key)


def smmix(**changes: Any) -> SMMix:
    return SMMix(MODEL, **{"probability": 1.0, **changes})


def answer(params: Any, image: Any) -> Any:
    return MODEL.apply({"params": params}, image)


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(smmix().init, batch())


@jax.jit
def learned(variables: Any, batch: Any, step: jax.Array) -> Any:
    """Loss, whether it pasted, and whether its gradient moves the second head, half the time."""
    objective = smmix(probability=0.5)
    given = (variables.params, variables, batch, context(step))
    loss, aux, grads = loss_and_gradient(objective, *given)
    return loss, aux.metrics["pasting"], jnp.any(grads["token_head"]["bias"] != 0)


def test_regions_are_those_of_brute_force():
    attention = np.random.default_rng(1).random((6, 5, 7)).astype(np.float32)
    for side in (1, 2, 4, 5):
        least, most = jax.jit(regions)(attention, side)
        for i, x in enumerate(attention):
            sums = {
                (r, c): x[r : r + side, c : c + side].sum()
                for r in range(5 - side + 1)
                for c in range(7 - side + 1)
            }
            assert tuple(least[i].tolist()) == min(sums, key=lambda at: sums[at])
            assert tuple(most[i].tolist()) == max(sums, key=lambda at: sums[at])


def test_pasted_patches_are_the_partners_and_their_share_is_exact():
    image = batch()["image"]
    other = np.roll(image, 4, axis=0)
    rng = np.random.default_rng(2)
    for side in (0, 1, 3, 4):
        into, out_of = (rng.integers(0, 4 - side + 1, (8, 2)) for _ in range(2))
        mixed, pasted = jax.jit(paste, static_argnums=5)(image, other, into, out_of, side, (4, 4))
        expected = image.copy()
        for i in range(8):
            (r, c), (s, t) = 4 * into[i], 4 * out_of[i]
            k = 4 * side
            expected[i, r : r + k, c : c + k] = other[i, s : s + k, t : t + k]
        np.testing.assert_array_equal(mixed, expected)
        np.testing.assert_array_equal(pasted.mean((1, 2)), side**2 / 16)


def test_a_square_of_nothing_leaves_a_classifier_with_two_heads(variables: Any):
    objective = smmix(sides=(0.0, 0.0))
    ctx = context()
    classifier = Classify(MODEL, label_smoothing=SMOOTH)

    @jax.jit
    def both(variables: Any) -> Any:
        _, out = answer(variables.params["model"], batch()["image"])
        head = variables.params["token_head"]
        tokens = out["map"].mean((1, 2)) @ head["kernel"] + head["bias"]
        targets = jax.nn.one_hot(batch()["label"], 5)
        token_loss = cross_entropy(tokens, targets, "softmax", SMOOTH).mean()
        pair = (each.loss(variables, batch(), ctx) for each in (objective, classifier))
        return *pair, token_loss

    (loss, aux), (plain, plain_aux), token_loss = both(variables)
    np.testing.assert_allclose(loss, plain + 0.5 * token_loss, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["top1"], plain_aux.metrics["top1"])


def test_the_look_is_that_of_the_last_block_and_has_no_gradient(variables: Any):
    objective, image = smmix(), batch()["image"]

    def look(objective: SMMix, variables: Any) -> Any:
        return objective.attend(variables, image, context())

    named = dataclasses.replace(objective, attention="block00/attention")

    @jax.jit
    def looks(params: Any) -> Any:
        def total(params: Any) -> jax.Array:
            return look(objective, variables.merge(params=params))[0].sum()

        given = variables.merge(params=params)
        plain = answer(params["model"], image)[1]
        return look(objective, given), plain, jax.grad(total)(params), look(named, given)[1]

    (logits, attention), out, gradient, attention_again = looks(variables.params)
    np.testing.assert_allclose(logits, out["logits"], atol=1e-5)
    assert attention.shape == (8, 4, 4)
    assert float(attention.std()) > 0
    assert 0.5 < float(attention.sum((1, 2)).max()) < 1  # the rest looks at the prefix
    assert not any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(attention_again, attention, atol=1e-6)
    with pytest.raises(ValueError, match="matches none of"):
        look(dataclasses.replace(objective, attention="block09/attention"), variables)


def test_masked_rows_say_nothing_and_are_not_pasted(variables: Any):
    step = next(step for step in range(24) if learned(variables, batch(), step)[1])
    masked = {**batch(), "_mask": np.arange(8) != 2}
    poisoned = {**masked, "image": masked["image"].copy()}
    poisoned["image"][2] = 1e3
    masked_loss, poisoned_loss, full_loss = (
        learned(variables, b, step)[0] for b in (masked, poisoned, batch())
    )
    np.testing.assert_allclose(poisoned_loss, masked_loss, rtol=1e-6)
    assert abs(float(masked_loss) - float(full_loss)) > 1e-4
    with pytest.raises(ValueError, match="even batch_size"):
        jax.eval_shape(lambda b: smmix().loss(variables, b, context()), batch(7))


def test_a_coin_chooses_and_the_side_is_drawn(variables: Any):
    results = (learned(variables, batch(), step) for step in range(24))
    losses, pasting, moved = map(np.array, zip(*results, strict=True))
    assert 5 < pasting.sum() < 19
    assert len(np.unique(losses[pasting == 1])) == 3  # sides of 1, 2 and 3 patches
    assert len(np.unique(losses[pasting == 0])) == np.sum(pasting == 0)
    np.testing.assert_array_equal(moved, pasting == 1)
