"""Votes: the likelihood's identities, the objective, tallies, and the two searches."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import dirichlet_multinomial as peer
from scipy.stats import multinomial as plain

from papers.zoobot.method import Votes, dirichlet_multinomial, multinomial
from papers.zoobot.search import most_similar, rank_by_interest
from papers.zoobot.votes import Tally, VoteLikelihood
from tests.evaluators.linear_dual import data, run
from tests.patch_tower import PatchTower
from tests.tiny import drawn
from vision.train.objective import Context

RNG = np.random.default_rng(0)
COUNTS = np.asarray([[3, 0, 7], [0, 0, 0], [1, 1, 1], [40, 0, 0]], np.float32)


def test_likelihoods_are_those_of_scipy_and_nobody_costs_nothing():
    a = RNG.uniform(1, 50, (4, 3)).astype(np.float32)
    p = np.asarray([0.2, 0.3, 0.5], np.float32)

    @jax.jit
    def all_of(a: jax.Array) -> tuple[jax.Array, ...]:
        counts = jnp.asarray(COUNTS)
        slope = jax.grad(lambda a: dirichlet_multinomial(counts, a).sum())(a)
        return dirichlet_multinomial(counts, a), multinomial(counts, jnp.log(p)), slope

    likelihoods, simple, slope = map(np.asarray, all_of(a))
    for i in (0, 2, 3):
        exact = -peer.logpmf(COUNTS[i].astype(int), a[i].astype(float), int(COUNTS[i].sum()))
        assert likelihoods[i] == pytest.approx(exact, abs=1e-3)
        exact = -plain.logpmf(COUNTS[i].astype(int), int(COUNTS[i].sum()), [0.2, 0.3, 0.5])
        assert simple[i] == pytest.approx(exact, abs=1e-4)
    assert likelihoods[1] == simple[1] == 0
    assert (slope[1] == 0).all()
    assert np.isfinite(slope).all()


def test_large_concentrations_are_the_multinomial():
    p = np.asarray([0.2, 0.3, 0.5])
    with jax.enable_x64(True):
        counts = jnp.asarray(COUNTS, float)

        @jax.jit
        def gap(s: Any) -> jax.Array:
            return jnp.abs(dirichlet_multinomial(counts, s * p) - multinomial(counts, jnp.log(p)))

        apart = [np.asarray(gap(s)) for s in (1e3, 1e5, 1e7)]
    some = [0, 2, 3]
    assert apart[0][some].min() > 1e-3
    assert apart[2].max() < 1e-3
    # The distance goes with the inverse of the concentrations.
    np.testing.assert_allclose(100 * apart[1][some], apart[0][some], rtol=0.1)
    np.testing.assert_allclose(100 * apart[2][some], apart[1][some], rtol=0.1)


def predicted(objective: Votes, variables: Any, batch: Any) -> Any:
    """Shapes of predictions."""
    ctx = Context.evaluation()
    return jax.eval_shape(lambda batch: objective.predict(variables, batch, ctx), batch)


def test_the_objective_sums_over_questions_and_leaves_masked_rows_out():
    tower = PatchTower(width=8, num_classes=5)
    votes = RNG.integers(0, 9, (3, 5)).astype(np.int32)
    votes[2, :3] = 0
    batch = {
        "image": RNG.normal(size=(3, 8, 8, 1)).astype(np.float32),
        "votes": votes,
        "_mask": np.asarray([True, False, True]),
    }
    for kind in ("dirichlet", "multinomial"):
        objective = Votes(tower, (3, 2), kind)
        variables = drawn(objective.init, batch)
        # A head of zeros: all answers have equal probability.
        params = variables.params["model"]
        params["head"] = jax.tree.map(np.zeros_like, params["head"])

        @jax.jit
        def both(batch: Any, objective: Votes = objective, variables: Any = variables) -> Any:
            ctx = Context(jnp.zeros([], int), 1, True, key=jax.random.key(1))
            return objective.loss(variables, batch, ctx), objective.predict(variables, batch, ctx)

        (loss, aux), predictions = both(batch)
        np.testing.assert_allclose(np.asarray(predictions["shares"][:, :3].sum(1)), 1, atol=1e-5)
        if kind == "dirichlet":
            alpha = np.full(3, 51.0)
            first = peer.logpmf(votes[0, :3], alpha, votes[0, :3].sum())
            twos = [peer.logpmf(votes[i, 3:], alpha[:2], votes[i, 3:].sum()) for i in (0, 2)]
            assert loss == pytest.approx(-(first + sum(twos)) / 2, abs=1e-3)
            nll = np.asarray(predictions["vote_nll"])
            assert nll[2] == pytest.approx(-twos[1], abs=1e-3)
        else:
            asked = [votes[i, part].any() for i in (0, 2) for part in (slice(3), slice(3, 5))]
            sizes = [np.log(3), np.log(2)] * 2
            assert loss == pytest.approx(np.dot(asked, sizes) / 2, abs=1e-4)
        assert aux.weight == 2
        without = {name: x for name, x in batch.items() if name != "votes"}
        assert "vote_nll" not in predicted(objective, variables, without)
    with pytest.raises(ValueError, match=r"config\.model\.num_classes=6"):
        predicted(Votes(tower, (3, 3)), variables, batch)
    bad: Any = {"questions": (1,)}, {"likelihood": "poisson"}, {"ceiling": 0.0}
    for arguments in bad:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Votes(tower, **{"questions": (3, 2), **arguments})


def test_a_tally_counts_some_raters_or_takes_columns():
    rng, tally = np.random.default_rng(0), Tally(answers=4, fewest=2, most=6)
    numbers = set()
    for _ in range(40):
        answers = RNG.integers(0, 4, 8)
        votes = tally({"votes": answers}, rng)["votes"]
        n = int(votes.sum())
        assert (votes == np.bincount(answers[:n], minlength=4)).all()
        assert (tally({"votes": answers}, rng)["votes"] == votes).all()
        numbers.add(n)
    assert numbers == {2, 3, 4, 5, 6}
    columns = Tally(columns=("b", "a"))({"a": np.float32(3), "b": np.float32(1), "image": 0}, rng)
    assert columns["votes"].tolist() == [1, 3]
    assert set(columns) == {"votes", "image"}
    with pytest.raises(ValueError, match="not both"):
        Tally(answers=3, columns=("a",))


def test_the_evaluator_counts_what_was_asked():
    votes = np.asarray([[4, 0, 1, 1], [0, 0, 0, 3], [1, 3, 0, 0]], np.int32)
    shares = np.asarray([0.5, 0.5, 0.25, 0.75], np.float32)

    def predict(_: Any, batch: Any) -> dict[str, Any]:
        rows = len(batch["image"])
        return {
            "vote_nll": batch["image"].reshape(rows, -1)[:, 0],
            "shares": jnp.tile(shares, (rows, 1)),
        }

    image = np.arange(3)[:, None] * np.ones(12)
    got = run(VoteLikelihood(data(image=image, votes=votes), (2, 2)), 1, predict)
    assert got["nll"] == 1
    # The first question was put to records 0 and 2, the second to 0 and 1.
    assert got["share_error"] == pytest.approx((4 * 0.25 * 0 + 2 * 0.5 + 2 * 0.25 + 4 * 0.25) / 8)
    assert got["majority"] == 0.5
    image[1] = np.nan
    got = run(VoteLikelihood(data(image=image, votes=votes), (2, 2)), 1, predict)
    assert (got["nonfinite"], got["examples"]) == (1, 2)


def test_searches_find_what_is_planted():
    x = RNG.normal(size=(400, 12))
    x[:12] += 20 * np.eye(12)[0]
    nearest = most_similar(x, 3, 11, 6)
    assert set(nearest.tolist()) == set(range(12)) - {3}
    asked: list[int] = []

    def rate(rows: np.ndarray) -> np.ndarray:
        asked.extend(rows.tolist())
        return (rows < 12).astype(float)

    order = rank_by_interest(x, rate, dimension=6, rounds=8)
    assert sorted(order.tolist()) == list(range(400))
    assert len(asked) == len(set(asked)) == 90
    assert np.mean(order[:12] < 12) > 0.7
