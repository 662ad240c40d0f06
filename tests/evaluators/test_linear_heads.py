"""Linear heads on features whose answers are known."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.evaluators.features.linear_heads import FindingsProbe, PatchProbe
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables


def predict(variables: Any, batch: Any) -> dict[str, jax.Array]:
    return {"embedding": 7 * batch["x"], "map": batch["x"]}


def data(**arrays: np.ndarray) -> EvalData:
    return EvalData(Arrays(arrays), batch_size=40, threads=0)


def run(evaluator: Any) -> dict[str, float]:
    mesh = Mesh().build(jax.devices()[:1])
    return evaluate(evaluator, predict, Variables({}, {}, {}), 0, mesh)[0]


def findings(count: int, seed: int, noise: float = 0.3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    there = (rng.random((count, 3)) < (0.2, 0.5, 0.0)).astype(np.int32)
    x = there + noise * rng.normal(size=there.shape)
    return {"x": x.astype(np.float32), "findings": there}


def test_findings_are_learned_one_by_one():
    train, test = findings(300, 0), findings(200, 1)
    got = run(FindingsProbe(data(**train), data(**test)))
    assert (got["undefined"], got["examples"]) == (1, 200)
    for k in (0, 1):
        # One feature tells each, and a monotone score has its average precision.
        alone = average_precision_score(test["findings"][:, k], test["x"][:, k])
        assert got[f"auprc_{k}"] == pytest.approx(alone, abs=0.03)
    assert got["auprc"] == pytest.approx((got["auprc_0"] + got["auprc_1"]) / 2)
    assert got["prevalence"] == pytest.approx(test["findings"][:, :2].mean())
    train["findings"] = np.random.default_rng(2).permutation(train["findings"])
    assert run(FindingsProbe(data(**train), data(**test)))["auprc"] < got["auprc"] - 0.2
    test["findings"][:] = 0
    with pytest.raises(DataError, match="no finding"):
        run(FindingsProbe(data(**train), data(**test)))


def pictures(count: int, seed: int) -> dict[str, np.ndarray]:
    """Patches of 2 x 3 pixels all of one class, but for a pixel in every patch."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 3, (count, 4, 5))
    pixels = np.repeat(np.repeat(patches, 2, 1), 3, 2).astype(np.uint8)
    pixels[:, ::2, ::3] = 0
    x = np.eye(3)[patches] + 0.05 * rng.normal(size=(count, 4, 5, 3))
    return {"x": x.astype(np.float32), "segmentation": pixels}


def test_patches_are_taught_the_majority_and_measured_in_pixels():
    train, test = pictures(50, 0), pictures(45, 1)
    got = run(PatchProbe(data(**train), data(**test), classes=3))
    assert got["examples"] == 45
    # Five of six pixels of a patch are right: 2 x 5 / (6 + 5).
    for k in (1, 2):
        assert got[f"dice_{k}"] == pytest.approx(10 / 11, abs=1e-6)
    assert got["dice"] == pytest.approx(10 / 11, abs=1e-6)
    assert run(PatchProbe(data(**train), data(**test), classes=4))["undefined"] == 1
    with pytest.raises(ValueError, match="no multiples"):
        run(PatchProbe(data(**train), data(**test), classes=2))
    cut = {**test, "segmentation": test["segmentation"][:, :7]}
    with pytest.raises(ValueError, match="no multiples"):
        run(PatchProbe(data(**train), data(**cut), classes=3))
    with pytest.raises(ValueError, match="classes is 1"):
        dataclasses.replace(PatchProbe(data(**train), data(**test), classes=3), classes=1)
