"""Exact search, against sorting all products in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vision.blocks import nearest as module
from vision.blocks.nearest import NearestError, nearest


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def reference(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.einsum("qd,nd->qn", queries.astype(np.float64), gallery.astype(np.float64))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def split(gallery: np.ndarray, *axes: str | None) -> jax.Array:
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 4), ("data", "fsdp"))
    return jax.device_put(gallery, NamedSharding(mesh, PartitionSpec(axes or None)))


@pytest.mark.parametrize(
    ("queries", "gallery", "k"), [(1, 1, 1), (1, 64, 3), (7, 1000, 10), (40, 5000, 300)]
)
def test_host_and_device_equal_a_full_sort(queries: int, gallery: int, k: int) -> None:
    rng = np.random.default_rng(gallery)
    q, g = unit(rng, queries, 24), unit(rng, gallery, 24)
    scores, indices = reference(q, g, k)
    for given in (g, jax.numpy.asarray(g)):
        got = nearest(q, given, k)
        np.testing.assert_array_equal(got[1], indices)
        np.testing.assert_allclose(got[0], scores, rtol=1e-7, atol=1e-7)
        assert got[0].dtype == np.float32
        assert got[1].dtype == np.int64


@pytest.mark.parametrize("axes", [("data", "fsdp"), ("fsdp",), ()])
@pytest.mark.parametrize("k", [5, 40])
def test_split_over_devices(axes: tuple[str, ...], k: int, monkeypatch) -> None:
    """Also where a device has fewer items than are asked for, and several blocks."""
    monkeypatch.setattr(module, "_DEVICE_BLOCK", 24)
    rng = np.random.default_rng(k)
    q, g = unit(rng, 6, 8), unit(rng, 240, 8)
    g[100:200] = g[:100]
    module._searcher.cache_clear()
    scores, indices = nearest(q, split(g, *axes), k)
    on_one_device = nearest(q, g, k)
    np.testing.assert_array_equal(indices, on_one_device[1])
    np.testing.assert_array_equal(scores, on_one_device[0])
    module._searcher.cache_clear()


def test_blocks_and_chunks_change_nothing(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    q, g = unit(rng, 50, 16), unit(rng, 9000, 16)
    full = nearest(q, g, 20)
    monkeypatch.setattr(module, "_QUERIES", 7)
    monkeypatch.setattr(module, "_SCORES", 1)
    monkeypatch.setattr(module, "_RESCORED", 1)
    for a, b in zip(full, nearest(q, g, 20), strict=True):
        np.testing.assert_array_equal(a, b)


def test_equal_items_are_ordered_by_index() -> None:
    rng = np.random.default_rng(2)
    q, few = unit(rng, 5, 12), unit(rng, 3, 12)
    g = np.tile(few, (1000, 1))
    for given in (g, jax.numpy.asarray(g), split(g, "data", "fsdp")):
        scores, indices = nearest(q, given, 6)
        first = np.argmax(q @ few.T, 1)
        np.testing.assert_array_equal(indices, first[:, None] + 3 * np.arange(6))
        assert (scores == scores[:, :1]).all()


def test_many_equal_items_tie_wherever_they_stand(monkeypatch) -> None:
    rng = np.random.default_rng(5)
    q, item = unit(rng, 6, 33), unit(rng, 1, 33)
    q = (q + 3 * item).astype(np.float32)
    g = unit(rng, 5000, 33)
    g[rng.random(5000) < 0.4] = item
    equal = np.flatnonzero((g == item).all(1))
    for budget in (module._SCORES, 1):
        monkeypatch.setattr(module, "_SCORES", budget)
        for given in (g, jax.numpy.asarray(g), split(g, "data", "fsdp")):
            for k in (1, 7):
                scores, indices = nearest(q, given, k)
                np.testing.assert_array_equal(indices, np.tile(equal[:k], (6, 1)))
                assert (scores == scores[:, :1]).all()


def test_ascending_scores_the_worst_case() -> None:
    g = np.linspace(0, 1, 20_000, dtype=np.float32)[:, None]
    scores, indices = nearest(np.ones((2, 1), np.float32), g, 4)
    np.testing.assert_array_equal(indices, [[19_999, 19_998, 19_997, 19_996]] * 2)
    np.testing.assert_array_equal(scores, g[indices, 0])


def float16_compiles() -> bool:
    try:
        jax.jit(lambda x: x.astype(np.float32))(np.ones(3, np.float16))
    except jax.errors.JaxRuntimeError:
        return False
    return True


def test_other_dtypes_and_files(tmp_path) -> None:
    if not float16_compiles():
        pytest.skip("XLA knows no float16 for processors without F16C, such as those before AVX")
    rng = np.random.default_rng(3)
    q, g = unit(rng, 4, 8), unit(rng, 500, 8).astype(np.float16)
    np.save(tmp_path / "gallery.npy", g)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    _, indices = reference(q, g, 9)
    for given in (g, mapped, jax.numpy.asarray(g)):
        np.testing.assert_array_equal(nearest(q, given, 9)[1], indices)


def test_errors() -> None:
    q, g = np.ones((2, 3), np.float32), np.ones((5, 3), np.float32)
    with pytest.raises(NearestError, match=r"\(2, 3\) and gallery \(5, 4\)"):
        nearest(q, np.ones((5, 4), np.float32), 1)
    for k in (0, 6):
        with pytest.raises(NearestError, match=rf"k={k}: must lie in 1\.\.5"):
            nearest(q, g, k)
    bad = g.copy()
    bad[3, 1] = np.nan
    for given in (bad, jax.numpy.asarray(bad)):
        with pytest.raises(NearestError, match="gallery holds NaN"):
            nearest(q, given, 2)
    with pytest.raises(NearestError, match="queries hold NaN"):
        nearest(bad, g, 2)
