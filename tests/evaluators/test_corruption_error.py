"""Corrupted data: what is asked of it, where the op goes, and the errors that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest

from tests.evaluators.linear_dual import run
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import context
from vision.evaluate.figures import Curve
from vision.evaluators.features.store import FeatureStore
from vision.evaluators.robustness.corruptions import Corruptions
from vision.evaluators.robustness.perturbed import answers, last_uint8
from vision.metrics.robustness import ALEXNET_CLEAN_ERROR, ALEXNET_ERRORS
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
GREY = np.asarray([40, 120, 200])


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest of three greys to the mean of a picture in -1..1."""
    mean = batch["image"].mean((1, 2, 3)) * 127.5 + 127.5
    return {"logits": -abs(mean[:, None] - GREY)}


def greys(count: int = 24, unlabelled: int = 0) -> EvalData:
    label = (np.arange(count) % 3).astype(np.int32)
    noise = RNG.normal(0, 20, (count, 16, 16, 3))
    image = np.clip(GREY[label][:, None, None, None] + noise, 0, 255).astype(np.uint8)
    label[:unlabelled] = -1
    crop = (ops.CenterCrop(12), ops.ValueRange(-1, 1))
    return EvalData(Arrays({"image": image, "label": label}), 8, ops=crop, threads=0)


def by_hand(data: EvalData, name: str, severity: int) -> float:
    """The same by the ops alone: record i draws from the generator of position i."""
    right = []
    for i in range(len(data.source)):
        rng = np.random.Generator(np.random.Philox(key=[0, i]))
        example = data.ops[0](data.source[i], rng)
        image = ops.Corruption(name, severity)(example, rng)["image"]
        right.append(abs(image.mean() - GREY).argmin() == example["label"])
    return float(np.mean(right))


@pytest.mark.parametrize("devices", [1, 8])
def test_errors_of_corruptions(devices: int):
    data, baseline = greys(), {"clean": 0.1, "brightness": 0.5, "contrast": 0.4, "fog": 0.9}
    got = run(
        Corruptions(data, ("brightness", "contrast"), (5, 1), baseline=baseline), devices, predict
    )
    error = {}
    for name in ("brightness", "contrast"):
        each = [got[f"top1_{name}_{severity}"] for severity in (1, 5)]
        assert each == pytest.approx([by_hand(data, name, severity) for severity in (1, 5)])
        assert got[f"top1_{name}"] == pytest.approx(np.mean(each))
        error[name] = 1 - np.mean(each)
    assert got["clean"] == 1 > got["top1_brightness_5"]
    assert got["top1"] == pytest.approx(1 - np.mean(list(error.values())))
    ce = [error[name] / baseline[name] for name in error]
    assert got["ce_brightness"] == pytest.approx(ce[0])
    assert got["mce"] == pytest.approx(np.mean(ce))
    relative = [error[name] / (baseline[name] - 0.1) for name in error]
    assert got["relative_mce"] == pytest.approx(np.mean(relative))
    assert (got["missing"], got["examples"]) == (1, 24)
    assert isinstance(got["severity"], Curve)
    assert [line.name for line in got["severity"].lines] == ["brightness", "contrast", "mean"]
    assert got["severity"].lines[0].x.tolist() == [0, 1, 5]
    assert "unlabelled" not in got
    assert "nonfinite" not in got


def test_alexnets_errors_and_a_model_that_says_nothing():
    def one(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        logits = 0 * batch["image"][:, 0, 0] + np.asarray([1, 0, 0])
        return {"logits": logits.at[0].set(np.nan)}

    data = greys(unlabelled=6)
    data = EvalData(data.source, 24, data.ops, threads=0)
    got = run(Corruptions(data, ("digital",)), 1, one)
    # Every prediction is class 0: 6 of 18, and the first record, of NaN, has no label.
    assert got["clean"] == got["top1_pixelate"] == 6 / 18
    measured = {
        name: ALEXNET_ERRORS[name] for name in ("contrast", "elastic_transform", "pixelate")
    }
    assert {name: got[f"ce_{name}"] for name in measured} == pytest.approx(
        {name: (12 / 18) / error for name, error in measured.items()}
    )
    assert (got["examples"], got["unlabelled"], got["nonfinite"], got["missing"]) == (18, 6, 21, 11)
    assert got["relative_mce"] == pytest.approx(0)
    assert ALEXNET_ERRORS["contrast"] > ALEXNET_CLEAN_ERROR


def test_the_place_of_the_op():
    data = greys()
    assert last_uint8(data) == 1
    image = np.zeros((2, 8, 8, 3), np.float32)
    floats = EvalData(Arrays({"image": image}), 2, (ops.CenterCrop(4),), threads=0)
    with pytest.raises(ValueError, match=r"float32\[8, 8, 3\] as read; 1: .* after CenterCrop"):
        last_uint8(floats)
    broken = np.asarray([b"no picture"] * 2, object)
    with pytest.raises(DataError, match="no record can be read"):
        last_uint8(EvalData(Arrays({"image": broken}), 2, (ops.Decode(),), threads=0))


def test_what_is_kept_is_of_one_corruption(tmp_path):
    calls = []

    def counted(variables: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(1)  # once for every program that is traced
        return predict(variables, batch)

    mesh = Mesh().build(jax.devices()[:1])
    store = FeatureStore(tmp_path, counted, "weights")
    evaluator = Corruptions(greys(), ("noise",), (1, 5), baseline=None)
    with jax.set_mesh(mesh):
        ctx = context(Variables({}, {}, {}), 1, mesh, store=store)
        first = {k: v for k, v in evaluator.run(counted, ctx) if isinstance(v, float)}
        assert len(list(tmp_path.iterdir())) == 1 + 3 * 2
        calls.clear()
        again = {k: v for k, v in evaluator.run(counted, ctx) if isinstance(v, float)}
        assert again == first
        assert not calls
        kept = answers(counted, ctx, evaluator.data, "logits", "label")
    assert kept.accuracy == first["clean"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ("rain",)}, r"names\[0\] is 'rain', expected one of 'noise', 'blur'"),
        ({"names": ()}, r"names is \(\), .*not empty"),
        ({"severities": (0, 1)}, r"severities\[0\] is 0, expected a whole number in 1..5"),
        ({"severities": (1, 2)}, "AlexNet's errors are means of severities 1 to 5"),
        ({"baseline": "resnet"}, "baseline is 'resnet', expected one of 'alexnet' or Mapping"),
        ({"baseline": {"clean": 0.1}}, "baseline lacks an error for 'gaussian_noise'"),
    ],
)
def test_arguments(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Corruptions(greys(), **given)
