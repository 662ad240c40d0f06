"""NASNet's search: choices are genotypes, children are the tower, a rate of 0 is random search."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.nasnet.child import pooled
from papers.nasnet.controller import Controller, choices
from papers.nasnet.method import search, to_choices, to_genotype
from tests.models.tower_cases import quick_jit
from vision.models.nasnet import NASNET_A, OPERATIONS, Genotype, NasNet

SMALL = Controller(steps=2, units=6, rate=0.05, epochs=3, decay=0.8)


def test_choices_are_genotypes():
    sizes = choices(5)
    assert sizes.tolist()[:8] == [2, 2, 6, 6, 3, 3, 6, 6]
    assert len(sizes) == 40
    chosen = to_choices(NASNET_A)
    assert np.all(chosen < sizes)
    again = to_genotype(chosen)
    assert again.normal.steps == NASNET_A.normal.steps
    assert again.reduction.steps == NASNET_A.reduction.steps
    every = [to_genotype(sizes - 1), to_genotype(0 * sizes)]
    assert [to_choices(each).tolist() for each in every] == [(sizes - 1).tolist(), [0] * 40]


def test_proposals_are_in_reach_and_have_the_probability_that_is_told():
    w = SMALL.init(0)
    chosen, drawn = SMALL.propose(w, jax.random.key(1), 50)
    assert np.all(np.asarray(chosen) >= 0)
    assert np.all(np.asarray(chosen) < choices(2))
    logp, entropy = SMALL.log_probability(w, chosen)
    np.testing.assert_allclose(logp, drawn, rtol=1e-5)
    even = float(-np.log(choices(2)).sum())
    np.testing.assert_allclose(logp, even, atol=0.5)  # small weights: nearly all alike
    assert entropy == pytest.approx(np.log(choices(2)).mean(), abs=0.01)
    # All pairs of the first two choices, which are of two things each.
    first = np.zeros((4, 16), int)
    first[:, :2] = [[0, 0], [0, 1], [1, 0], [1, 1]]
    unit = {name: 5 * x for name, x in w.items()}
    ratio = np.asarray(SMALL.log_probability(unit, jnp.asarray(first))[0])
    assert np.ptp(ratio) > 1e-3


def share(genotype: Genotype) -> float:
    return float(np.mean([OPERATIONS[i] == "sep3" for row in _kinds(genotype) for i in row]))


def _kinds(genotype: Genotype) -> Any:
    return to_choices(genotype).reshape(-1, 4)[:, 2:]


@pytest.mark.slow
def test_the_controller_learns_and_at_a_rate_of_0_it_is_random_search():
    learned = np.array([reward for _, reward in search(SMALL, share, 48, 8, seed=0)])
    chance = Controller(**{**vars(SMALL), "rate": 0.0})
    found = search(chance, share, 48, 8, seed=0)
    rewards = np.array([reward for _, reward in found])
    assert learned[-16:].mean() > 0.4
    assert abs(rewards.mean() - 1 / 6) < 0.07
    np.testing.assert_array_equal(learned[:8], rewards[:8])
    w = chance.init(0)
    drawn = chance.propose(w, jax.random.fold_in(jax.random.key(0), 40), 8)[0]
    assert [to_choices(each).tolist() for each, _ in found[40:]] == np.asarray(drawn).tolist()


def test_children_are_the_tower():
    genotype = to_genotype(np.array([1, 0, 1, 4, 2, 0, 5, 0, 0, 1, 1, 5, 1, 0, 0, 4]))
    tower = NasNet(genotype, depth=1, stages=2, filters=2)
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 1)).astype(np.float32)
    init = quick_jit(lambda x: tower.init_with_output(jax.random.key(0), x, train=True))
    (expected, _), variables = init(x)
    params, used = variables["params"], []

    def kernel(name: str, shape: tuple[int, ...]) -> np.ndarray:
        node = params
        for part in name.split("/"):
            node = node[part]
        used.append(name)
        assert node["kernel"].shape == shape, name
        return np.asarray(node["kernel"])

    np.testing.assert_allclose(pooled(genotype, x, 2, kernel), expected, atol=2e-5)
    kernels = sum("kernel" in str(path[-1]) for path, _ in jax.tree.leaves_with_path(params))
    assert len(used) == len(set(used)) == kernels
