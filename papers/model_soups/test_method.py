"""Model soups: what is known of them without training, and the random search."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.model_soups.method import ensemble, greedy, recipe, uniform
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3)).astype(np.float32)


def member(weight: np.ndarray, mean: float = 0.0) -> Variables:
    params = {"model": {"kernel": jnp.asarray(weight, jnp.float32)}}
    return Variables(params, {"model": {"batch_stats": {"mean": jnp.float32(mean)}}}, {})


def logits(of: Variables) -> np.ndarray:
    return X @ np.asarray(of.params["model"]["kernel"])


FIELDS = ("learning_rate", "weight_decay")
MEMBERS = [member(RNG.normal(size=(3, 4)), mean) for mean in (1.0, 2.0, 6.0)]


def test_a_soup_of_copies_is_the_model_and_a_linear_soup_the_ensemble():
    same = uniform([MEMBERS[0]] * 3)
    jax.tree.map(np.testing.assert_array_equal, same, MEMBERS[0])
    soup = uniform(MEMBERS)
    np.testing.assert_allclose(logits(soup), ensemble([*map(logits, MEMBERS)]), atol=1e-6)
    assert soup.model_state["model"]["batch_stats"]["mean"] == 3


def test_greedy_takes_in_what_does_no_harm_and_is_never_below_the_best():
    goal = np.ones((3, 4))
    offsets = (np.eye(3, 4), -np.eye(3, 4), 5 * goal)
    members = [member(goal + offset) for offset in offsets]

    def score(of: Variables) -> float:
        return -float(np.abs(of.params["model"]["kernel"] - goal).max())

    soup = greedy(members[::-1], score)
    # The far one is out; the other two, of equal scores, cancel each other's errors.
    assert soup.taken == (1, 2)
    assert soup.scores == (-5, -1, -1)
    assert soup.score == score(soup.variables) == 0
    # A tie is taken in.
    assert greedy([members[0]] * 2, score).taken == (0, 1)
    # Where every mean is worse, the best run stays alone.
    spiky = greedy(members[:2], lambda of: -score(of) if of is not members[2] else 0.0)
    assert spiky.taken == (0,)
    assert spiky.score == max(spiky.scores) == 1
    for soup_of in (uniform, lambda none: greedy(none, score)):
        with pytest.raises(ValueError, match="at least one model"):
            soup_of([])


def test_the_random_search():
    runs = [recipe(i) for i in range(200)]
    assert recipe(7) == runs[7] != recipe(7, seed=1)
    rates, decays = (np.array([getattr(run, x) for run in runs]) for x in FIELDS)
    assert rates.min() > 9.9e-7
    assert rates.max() < 1.01e-4
    # Even in the logarithm: half of the runs are below the middle.
    assert 0.4 < np.mean(rates < 1e-5) < 0.6
    assert 0.4 < np.mean(decays < 1e-2) < 0.6
    assert {run.epochs for run in runs} == set(range(4, 17))
    assert {run.augmentations for run in runs} == {0, 1, 2}
    for field, most in (("label_smoothing", 0.25), ("mixup", 0.9)):
        values = np.array([getattr(run, field) for run in runs])
        assert 0.4 < np.mean(values == 0) < 0.6
        assert 0.9 * most < values.max() <= most
    with pytest.raises(ValueError, match="run=-1"):
        recipe(-1)
