"""Representations whose rank, alignment and likeness are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluators.linear_dual import WIDTH, data, run
from vision.data.source import DataError
from vision.evaluators.features.representation import Representation
from vision.metrics.representation import alignment, linear_cka, uniformity

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(43, WIDTH)).astype(np.float32)
VIEW = IMAGE + 0.3 * RNG.normal(size=IMAGE.shape).astype(np.float32)
TURN = np.linalg.qr(RNG.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    x = batch["image"].reshape(len(batch["image"]), -1)
    three = x.at[:, 3:].set(0)
    return {"embedding": x, "turned": 4 * x @ TURN + 1, "three": three, "map": x.reshape(-1, 3, 4)}


def test_numbers_are_those_of_the_measures():
    outputs = ("embedding", "turned", "three", "map")
    got = run(Representation(data(image=IMAGE), data(image=VIEW), outputs), 8, predict)
    assert got["embedding_turned_cka"] == pytest.approx(1, abs=1e-6)
    assert got["embedding_turned_cka_debiased"] == pytest.approx(1, abs=1e-6)
    assert got["embedding_map_cka"] == pytest.approx(1, abs=1e-9)
    three = IMAGE * (np.arange(WIDTH) < 3)
    assert got["embedding_three_cka"] == pytest.approx(linear_cka(IMAGE, three), abs=1e-6)
    assert got["embedding_three_cka"] < 0.9
    assert 2 < got["three_effective_rank"] <= 3 < 9 < got["embedding_effective_rank"] <= WIDTH
    assert got["embedding_alignment"] == pytest.approx(alignment(IMAGE, VIEW), abs=1e-6)
    assert got["embedding_uniformity"] == pytest.approx(uniformity(IMAGE), abs=1e-6)
    assert got["examples"] == 43
    same = run(Representation(data(image=IMAGE), data(image=IMAGE)), 1, predict)
    assert same["embedding_alignment"] == pytest.approx(0, abs=1e-9)
    assert "three_effective_rank" not in same


def test_another_models_kept_features_are_paired_by_record(tmp_path: Path):
    order = RNG.permutation(43)[:40]
    np.save(tmp_path / "embedding.npy", VIEW[order])
    np.save(tmp_path / "_index.npy", order)
    got = run(Representation(data(image=IMAGE), others={"old": str(tmp_path)}), 1, predict)
    kept = np.sort(order)
    assert got["embedding_old_cka"] == pytest.approx(linear_cka(IMAGE[kept], VIEW[kept]), abs=1e-6)
    debiased = linear_cka(IMAGE[kept], VIEW[kept], debiased=True)
    assert got["embedding_old_cka_debiased"] == pytest.approx(debiased, abs=1e-6)
    assert (got["examples"], got["unpaired"]) == (40, 3)
    few = Representation(data(image=IMAGE), others={"old": str(tmp_path)}, most=10)
    assert run(few, 1, predict)["examples"] == 10
    (tmp_path / "embedding.npy").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"embedding\.npy is missing or cannot be read"):
        run(Representation(data(image=IMAGE), others={"old": str(tmp_path)}), 1, predict)


def test_records_without_features_are_left_out_of_all_and_counted():
    image, view = IMAGE.copy(), VIEW.copy()
    image[3], view[[3, 5]] = np.nan, 0
    got = run(Representation(data(image=image), data(image=view)), 1, predict)
    kept = np.setdiff1d(np.arange(43), [3, 5])
    assert got["embedding_alignment"] == pytest.approx(alignment(IMAGE[kept], VIEW[kept]), abs=1e-6)
    assert (got["nonfinite"], got["examples"]) == (2, 41)
    image[3:] = np.inf
    with pytest.raises(DataError, match="3 of 43 records have finite features"):
        run(Representation(data(image=image)), 1, predict)


def test_bad_arguments():
    some = data(image=IMAGE)
    wrong: Any = (
        {"outputs": ()},
        {"outputs": ("a", "a")},
        {"most": 3},
        {"others": {"embedding": "x"}},
    )
    for arguments in wrong:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Representation(some, **arguments)
    with pytest.raises(ValueError, match="'layer' from the objective's predict; it gives"):
        run(Representation(some, outputs=("layer",)), 1, predict)
