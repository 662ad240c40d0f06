"""Batches of one record per cluster, k-means, NT-Xent and the autoencoder they rest on."""

from __future__ import annotations

import collections
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.g_simclr.method import OnePerCluster, deal, same_class_rate
from tests.tiny import drawn
from vision.data.pipeline import TrainData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.computed import Computed
from vision.data.sources.digits import Digits
from vision.models.autoencoder import ConvAutoencoder
from vision.models.plain_conv import PlainConv
from vision.objectives.reconstruct import Reconstruct
from vision.objectives.two_views import TwoViews, nt_xent
from vision.probes.kmeans import kmeans, lloyd, seeds
from vision.train.objective import Context, Variables
from vision.train.tower import forward, initialise


def source_of(clusters: np.ndarray) -> Arrays:
    return Arrays({"x": np.arange(len(clusters)), "cluster": clusters.astype(np.int32)})


def epoch(clusters: np.ndarray, k: int, number: int = 0, seed: int = 0) -> np.ndarray:
    sampler = OnePerCluster(k).bind(source_of(clusters))
    length = sampler.epoch_length(len(clusters))
    return sampler(seed, number, np.arange(length), len(clusters)).reshape(-1, k)


def test_no_group_repeats_a_cluster_while_all_of_them_last():
    clusters = np.repeat(np.arange(4), [6, 5, 7, 5])
    groups = epoch(clusters, 4)
    assert groups.shape == (5, 4)
    for group in groups:
        assert sorted(clusters[group]) == [0, 1, 2, 3]


def test_the_largest_cluster_steps_in_and_no_record_comes_twice():
    clusters = np.repeat(np.arange(3), [1, 2, 9])
    groups = epoch(clusters, 3)
    assert [sorted(clusters[group].tolist()) for group in groups] == [
        [0, 1, 2],
        [1, 2, 2],
        [2, 2, 2],
        [2, 2, 2],
    ]
    assert sorted(groups.ravel()) == list(range(12))
    cluster, number = deal(np.array([2, 5]), 3)
    assert cluster.tolist() == [0, 1, 1, 0, 1, 1]
    assert number.tolist() == [0, 0, 1, 1, 2, 3]


def test_with_a_cluster_for_every_record_an_epoch_is_a_permutation():
    orders = [tuple(epoch(np.arange(4), 4, number).ravel()) for number in range(240)]
    assert all(sorted(order) == list(range(4)) for order in orders)
    counts = collections.Counter(orders)
    assert len(counts) == 24
    assert max(counts.values()) < 30  # 10 each on average
    shuffled = [tuple(epoch(np.zeros(4, int), 4, number).ravel()) for number in range(240)]
    assert len(set(shuffled)) == 24


def test_the_order_is_a_function_of_seed_epoch_and_position():
    clusters = np.random.default_rng(0).integers(0, 5, 60)
    sampler = OnePerCluster(5).bind(source_of(clusters))
    order = sampler(3, 2, np.arange(60), 60)
    assert (sampler(3, 2, np.arange(20, 40), 60) == order[20:40]).all()
    assert (epoch(clusters, 5, 2, 3).ravel() == order).all()
    assert (epoch(clusters, 5, 1, 3).ravel() != order).any()
    with pytest.raises(DataError, match="5 clusters, but groups hold one of each of clusters=4"):
        OnePerCluster(4).bind(source_of(clusters))
    with pytest.raises(ValueError, match="group"):
        TrainData(source_of(clusters), batch_size=8, sampler=OnePerCluster(5))


def test_the_rate_of_pairs_counts_pairs():
    assert same_class_rate(np.array([0, 0, 1, 2, 3, 4]), 3) == pytest.approx((2 / 6 + 0) / 2)


def test_a_computed_column_is_read_and_checked(tmp_path: Path):
    source = source_of(np.zeros(3))
    np.save(tmp_path / "c.npy", np.array([5, 6, 7]))
    joined = Computed(source, str(tmp_path / "c.npy"), "score")
    assert joined[1] == {"x": 1, "cluster": 0, "score": 6}
    assert list(joined.column("score")) == [5, 6, 7]
    assert joined.fingerprint() != source.fingerprint()
    np.save(tmp_path / "d.npy", np.array([5, 6]))
    with pytest.raises(DataError, match="has 3 records"):
        _ = Computed(source, str(tmp_path / "d.npy"), "score")[0]
    with pytest.raises(DataError, match=r"e\.npy: cannot be read: No such file"):
        _ = Computed(source, str(tmp_path / "e.npy"), "score").info


def test_k_means_goes_where_scikit_learn_goes():
    """From the same centres; and its own seeds lead to as good a clustering."""
    cluster: Any = pytest.importorskip("sklearn.cluster")
    x = Digits(split="all").column("image")[:200].reshape(200, -1) / np.float32(16)
    start = np.asarray(seeds(jnp.asarray(x), 10, jax.random.key(0)))
    ours = lloyd(jnp.asarray(x), jnp.asarray(start))
    theirs = cluster.KMeans(10, init=start, n_init=1, algorithm="lloyd", tol=0, max_iter=100).fit(x)
    assert (np.asarray(ours.assignment) == theirs.labels_).all()
    np.testing.assert_allclose(ours.centres, theirs.cluster_centers_, rtol=1e-5, atol=1e-4)
    assert float(ours.inertia) == pytest.approx(theirs.inertia_, rel=1e-5)
    best = kmeans(jnp.asarray(x), 10, jax.random.key(1))
    many = cluster.KMeans(10, n_init=3, random_state=0).fit(x)
    assert float(best.inertia) < 1.05 * many.inertia_
    with pytest.raises(ValueError, match="clusters=201"):
        kmeans(jnp.asarray(x), 201, jax.random.key(0))


def test_k_means_of_few_points():
    x = jnp.array([[0.0], [0.0], [0.0]])
    clusters = kmeans(x, 3, jax.random.key(0))
    assert float(clusters.inertia) == 0
    assert np.isfinite(np.asarray(clusters.centres)).all()


def test_nt_xent_is_cross_entropy_over_the_other_views():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 4)).astype(np.float32)
    of = jax.jit(functools.partial(nt_xent, temperature=0.5))
    losses, right = of(x, np.ones(3, bool))
    z = x / np.linalg.norm(x, axis=-1, keepdims=True)
    flat = z.reshape(6, 4)  # i * 2 + v
    expected = np.zeros((3, 2))
    for i in range(3):
        for v in range(2):
            s = flat @ z[i, v] / 0.5
            others = np.delete(s, 2 * i + v)
            expected[i, v] = np.log(np.exp(others).sum()) - s[2 * i + 1 - v]
    np.testing.assert_allclose(losses, expected.mean(1), rtol=1e-5)
    assert ((np.asarray(right) >= 0) & (np.asarray(right) <= 1)).all()
    masked, _ = of(x, np.array([True, True, False]))
    two, _ = of(x[:2], np.ones(2, bool))
    np.testing.assert_allclose(np.asarray(masked)[:2], two, rtol=1e-5)


def test_views_of_a_batch_meet_in_the_objective():
    objective = TwoViews(PlainConv(width=4, depth=1), projection=(6, 3))
    image = np.random.default_rng(0).random((4, 2, 4, 4, 1)).astype(np.float32)
    batch = {"image": image, "_mask": np.ones(4, bool)}
    variables = drawn(objective.init, batch)

    @jax.jit
    def loss_of(batch: Any) -> Any:
        ctx = Context(jnp.int32(0), 1, train=True, key=jax.random.key(2))
        return objective.loss(variables, batch, ctx)

    loss, aux = loss_of(batch)
    same = {**batch, "image": image[:, :1].repeat(2, 1)}
    easier, easier_aux = loss_of(same)
    assert float(easier) < float(loss)
    assert float(easier_aux.metrics["top1"]) == 1
    assert set(aux.metrics) == {"top1"}
    ctx = Context.evaluation()
    single = {**batch, "image": image[:, 0]}
    predictions = jax.eval_shape(lambda batch: objective.predict(variables, batch, ctx), single)
    assert {name: x.shape for name, x in predictions.items()} == {
        "embedding": (4, 16),
        "projector/block00": (4, 6),
        "projector/embedding": (4, 3),
    }


def test_an_autoencoder_gives_the_image_back_at_its_size():
    tower = ConvAutoencoder(widths=(4, 6))
    image = np.random.default_rng(0).random((2, 8, 12, 3)).astype(np.float32)
    init = functools.partial(initialise, tower)
    params, state = drawn(init, image)
    with pytest.raises(ValueError, match="multiples of 4"):
        drawn(init, image[:, :6])
    objective = Reconstruct(tower, noise=0.5)

    @jax.jit
    def both(batch: Any) -> Any:
        variables = Variables({"model": params}, {"model": state}, {})
        loss, _ = objective.loss(variables, batch, Context.evaluation())
        return loss, *forward(tower, params, state, batch["image"], train=False)[:2]

    loss, embedding, out = jax.device_get(both({"image": image, "_mask": np.array([True, False])}))
    assert embedding.shape == (2, 2 * 3 * 6)
    assert out["reconstruction"].shape == image.shape
    expected = float(np.mean((out["reconstruction"][0] - image[0]) ** 2))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
