"""What an answer costs, on a network whose parameters and FLOPs are counted by hand."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.evaluators.cost import Cost
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

WEIGHTS = np.ones((12, 4), np.float32)
VARIABLES = Variables({"model": {"kernel": WEIGHTS, "bias": np.zeros(4, np.float32)}}, {}, {})


def predict(variables: Variables, batch: Any) -> dict[str, Any]:
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    weights = variables.params["model"]
    return {"logits": pixels @ weights["kernel"] + weights["bias"], "gram": pixels @ pixels.T}


def data(count: int = 5) -> EvalData:
    image = np.zeros((count, 2, 2, 3), np.float32)
    return EvalData(Arrays({"image": image, "label": np.zeros(count, np.int32)}, "x"), 8, threads=0)


def cost(devices: int = 1, **fields: Any) -> dict[str, float]:
    mesh = Mesh().build(jax.devices()[:devices])
    evaluator = Cost(data(), seconds=0.0, min_runs=3, **fields)
    return evaluate(evaluator, predict, VARIABLES, 0, mesh)[0]


@pytest.mark.parametrize("devices", [1, 8])
def test_counts_are_exact_and_times_are_of_every_batch_size(devices: int):
    metrics = cost(devices, batch_sizes=(1, 16))
    assert metrics["parameters"] == 52
    assert metrics["parameter_bytes"] == 4 * 52
    assert metrics["flops"] == 2 * 12 * 4
    for size in (1, 16):
        p50, p90, p99 = (metrics[f"latency_ms_p{q}_b{size}"] for q in (50, 90, 99))
        assert 0 < p50 <= p90 <= p99
        assert metrics[f"images_per_s_b{size}"] == pytest.approx(1e3 * size / p50)
        assert metrics[f"timed_b{size}"] == 3


def test_what_is_asked_for_is_what_is_counted():
    both = cost(outputs=("logits", "gram"), batch_sizes=(2,))
    assert both["flops"] == 2 * 12 * 4 + 2 * 12
    with pytest.raises(ValueError, match="does not give 'map'; it gives gram, logits"):
        cost(outputs=("map",))


def test_bad_settings_and_no_records():
    with pytest.raises(ValueError, match="batch_sizes"):
        Cost(data(), batch_sizes=(0,))
    with pytest.raises(ValueError, match="min_runs"):
        Cost(data(), min_runs=0)
    bad = EvalData(Arrays({"image": np.zeros((0, 2, 2, 3), np.float32)}, "none"), 8, threads=0)
    with pytest.raises(DataError):
        evaluate(Cost(bad), predict, VARIABLES, 0, Mesh().build(jax.devices()[:1]))
