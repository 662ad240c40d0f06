"""Ward's hierarchy: equal to SciPy's, cut without loss, and near it by way of small clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.cluster.hierarchy
import sklearn.datasets
import sklearn.metrics

from papers.dendromap.method import ORDERS, Order
from papers.dendromap.subgroups import worst_subgroup
from papers.dendromap.ward import ward
from vision.config.errors import UserError

DIGITS: Any = sklearn.datasets.load_digits()
TREE = ward(DIGITS.data[:600])


def test_it_is_scipys_ward() -> None:
    theirs = scipy.cluster.hierarchy.linkage(DIGITS.data[:600], "ward")
    np.testing.assert_allclose(TREE.distance, theirs[:, 2], rtol=1e-9)
    for k in (2, 10, 37):
        cut = scipy.cluster.hierarchy.fcluster(theirs, k, "maxclust")
        assert sklearn.metrics.adjusted_rand_score(cut, TREE.labels(k)) == pytest.approx(1)


@pytest.mark.parametrize("by", ORDERS)
@pytest.mark.parametrize("k", [1, 7, 600, 10_000])
def test_a_cut_holds_every_point_once(by: Order, k: int) -> None:
    nodes = TREE.cut(k, by=by)
    points, start = TREE.order()
    assert len(nodes) == min(k, 600)
    held = [points[start[n] : start[n] + TREE.count[n]] for n in nodes]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(600))


def test_orders_differ_as_they_say() -> None:
    nodes = {by: TREE.cut(12, by=by) for by in ORDERS}

    def largest(by: str) -> int:
        return max(TREE.count[n] for n in nodes[by])

    def loosest(by: str) -> float:
        return max(TREE.distance[n - TREE.leaves] for n in nodes[by] if n >= TREE.leaves)

    assert largest("max_node_count") <= min(map(largest, nodes))
    assert loosest("min_merging_distance") <= min(map(loosest, nodes))


def test_small_clusters_first_stay_near_wards() -> None:
    tree = ward(DIGITS.data, max_leaves=600)
    assert tree.leaves == 300
    assert tree.count[tree.root] == len(DIGITS.data)
    assert tree.count[: tree.leaves].sum() == len(DIGITS.data)
    agreement = sklearn.metrics.normalized_mutual_info_score(DIGITS.target, tree.labels(10))
    assert agreement > 0.75


def test_equal_points_and_one_point() -> None:
    tree = ward(np.ones((50, 3)), max_leaves=10)
    assert (tree.leaves, tree.count[tree.root]) == (1, 50)
    assert (ward(np.ones((9, 2))).distance == 0).all()
    assert ward(np.ones((1, 2))).cut(5) == [0]


def test_the_worst_subgroup_is_the_planted_one() -> None:
    centres = np.repeat(np.eye(8) * 10, 30, axis=0)
    points = centres + np.random.default_rng(0).normal(size=centres.shape)
    right = np.arange(240) // 30 != 5
    node, share = worst_subgroup(ward(points), right)
    assert share == 0
    tree = ward(points)
    points_of, start = tree.order()
    held = points_of[start[node] : start[node] + tree.count[node]]
    assert sorted(held.tolist()) == list(range(150, 180))


def test_points_without_a_class_are_no_mistakes() -> None:
    """A cluster without labels is not the worst; a share is over those that have one."""
    centres = np.repeat(np.eye(8) * 10, 30, axis=0)
    points = centres + np.random.default_rng(0).normal(size=centres.shape)
    cluster = np.arange(240) // 30
    right, labelled = (cluster != 5) & (cluster != 2), cluster != 5
    node, share = worst_subgroup(ward(points), right, 20, labelled)
    tree = ward(points)
    order, start = tree.order()
    assert set(cluster[order[start[node] : start[node] + tree.count[node]]].tolist()) == {2}
    assert share == 0
    with pytest.raises(UserError, match="19 of them labelled"):
        worst_subgroup(tree, right, 20, np.arange(240) < 19)


def test_wrong_input_is_named() -> None:
    with pytest.raises(UserError, match="row 1 are not finite"):
        ward(np.asarray([[1.0], [np.nan]]))
    with pytest.raises(UserError, match=r"shape \(3,\)"):
        ward(np.ones(3))
    with pytest.raises(UserError, match="k=0"):
        TREE.cut(0)
    with pytest.raises(UserError, match="600 points"):
        worst_subgroup(TREE, np.ones(3, bool))
