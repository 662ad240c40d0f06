"""Natural shifts: gaps, lines of reference models, parts of the classes, swapped backgrounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluators.linear_dual import data, run
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.scenes import Scenes
from vision.evaluate.figures import Curve
from vision.evaluators.robustness.shifts import NaturalShift, read_references
from vision.metrics.robustness import fit_robustness_line

CLASSES = 4
STANDARD = (0.5, 0.6, 0.7, 0.8)
SHIFTED = (0.3, 0.42, 0.5, 0.66)


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The first pixels are the logits."""
    return {"logits": batch["image"].reshape(len(batch["image"]), -1)[:, :CLASSES]}


def right(share: float, count: int = 20) -> EvalData:
    """Records of which this share is right; the others are said to be the next class."""
    label = np.arange(count, dtype=np.int32) % CLASSES
    predicted = np.where(np.arange(count) < round(share * count), label, (label + 1) % CLASSES)
    return data(image=saying(predicted), label=label)


def saying(predicted: np.ndarray) -> np.ndarray:
    image = np.zeros((len(predicted), 12))
    image[np.arange(len(predicted)), predicted] = 1
    return image


@pytest.mark.parametrize("devices", [1, 8])
def test_gap_and_effective_robustness(devices: int):
    shifted = {"v2": right(0.6), "sketch": right(0.1)}
    references = {"standard": STANDARD, "v2": SHIFTED}
    evaluator = NaturalShift(right(0.75), shifted, references, lines={"sketch": (1.0, 0.0)})
    got = run(evaluator, devices, predict)
    line = fit_robustness_line(np.asarray(STANDARD), np.asarray(SHIFTED))
    assert (got["standard"], got["v2"], got["sketch"]) == (0.75, 0.6, 0.1)
    assert got["v2_gap"] == pytest.approx(0.15)
    assert got["v2_low"] < 0.6 < got["v2_high"]
    assert got["v2_effective_robustness"] == pytest.approx(
        0.6 - line.expected(np.asarray([0.75]))[0]
    )
    assert got["v2_expected"] + got["v2_effective_robustness"] == pytest.approx(0.6)
    assert (got["v2_slope"], got["v2_r2"], got["v2_models"]) == (line.slope, line.r2, 4)
    # A line of slope 1 through 0 expects no change.
    assert got["sketch_effective_robustness"] == pytest.approx(-0.65)
    assert "sketch_r2" not in got
    assert (got["worst"], got["mean"]) == (0.1, 0.35)
    assert isinstance(got["shifts"], Curve)
    assert [each.name for each in got["shifts"].lines] == [
        "sketch: expected", "sketch", "v2: expected", "v2"
    ]  # fmt: skip


def test_reference_models_average_to_nothing_beyond_their_line():
    line = fit_robustness_line(np.asarray(STANDARD), np.asarray(SHIFTED))
    x, y = (np.log(np.asarray(v) / (1 - np.asarray(v))) for v in (STANDARD, SHIFTED))
    assert (y - line.slope * x - line.intercept).mean() == pytest.approx(0, abs=1e-12)
    perfect = NaturalShift(right(1), {"v2": right(0.5)}, lines={"v2": (1.0, 0.0)})
    got = run(perfect, 1, predict)
    assert np.isnan(got["v2_effective_robustness"])
    assert got["v2_gap"] == 0.5


def test_some_of_the_classes():
    standard = right(0.5)
    # Labels 0 and 1 are the model's 3 and 1; class 2 is out of the question, however loud.
    image = saying(np.asarray([3, 1, 2, 2]))
    image[2, 3] = image[3, 3] = 0.5
    renditions = data(image=image, label=np.asarray([0, 1, 0, 1], np.int32))
    got = run(NaturalShift(standard, {"r": renditions}, classes={"r": (3, 1)}), 1, predict)
    assert got["r"] == 0.75
    rows: Any = standard.source
    label = rows.arrays["label"]
    of = np.isin(label, (3, 1))
    logits = rows.arrays["image"].reshape(20, -1)[:, [3, 1]]
    assert of.sum() == 10
    assert got["r_standard"] == np.mean(np.asarray([3, 1])[logits.argmax(1)][of] == label[of])
    assert got["r_gap"] == pytest.approx(got["r_standard"] - 0.75)
    with pytest.raises(ValueError, match=r"columns 0\.\.3"):
        run(NaturalShift(standard, {"r": renditions}, classes={"r": (3, 4)}), 1, predict)


def test_swapped_backgrounds():
    """A classifier of backgrounds is right while they go with the classes, and wrong after."""
    grounds = ("paper", "night")

    def scenes(shift: int) -> EvalData:
        source = Scenes(
            num_examples=24, image_size=16, shapes=("circle", "star"), backgrounds=grounds,
            num_objects=(1, 1), spurious=1.0, spurious_shift=shift,
        )  # fmt: skip
        return EvalData(source, 8, threads=0)

    def by_ground(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        light = batch["image"][:, ::15, ::15].astype(np.float32).mean((1, 2, 3))  # corners
        return {"logits": np.asarray([1.0, -1.0]) * (light[:, None] - 128)}

    got = run(NaturalShift(scenes(0), {"swapped": scenes(1)}), 1, by_ground)
    assert (got["standard"], got["swapped"], got["swapped_gap"]) == (1, 0, 1)


def test_references_in_files(tmp_path: Path):
    table = tmp_path / "models.csv"
    table.write_text("model,standard,v2\na,0.5,0.3\nb,0.6,0.42\nc,0.7,\nd,0.8,0.66\n")
    rows = [
        {"model": name, "standard": x, "v2": y}
        for name, x, y in zip("abcd", STANDARD, (0.3, 0.42, None, 0.66), strict=True)
    ]
    listed = tmp_path / "models.json"
    listed.write_text(json.dumps(rows))
    assert str(read_references(str(table))) == str(read_references(str(listed)))
    slopes = []
    for path in (table, listed):
        got = run(NaturalShift(right(0.75), {"v2": right(0.6)}, str(path)), 1, predict)
        assert got["v2_models"] == 3
        slopes.append(got["v2_slope"])
    few = fit_robustness_line(np.asarray(STANDARD)[[0, 1, 3]], np.asarray(SHIFTED)[[0, 1, 3]])
    assert slopes == [few.slope] * 2
    for name, text, message in [
        ("none.json", None, "No such file"),
        ("a.txt", "standard", r"a \.csv with a header"),
        ("b.json", "{", "b.json"),
        ("c.json", "{}", "a row per model"),
        ("d.csv", "model,v2\na,0.5\n", "no column 'standard' among v2"),
    ]:
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        with pytest.raises(DataError, match=message):
            run(NaturalShift(right(0.75), {"v2": right(0.6)}, str(path)), 1, predict)


def test_arguments_of_shifts():
    with pytest.raises(ValueError, match=r"shifted is {}, .*not empty"):
        NaturalShift(right(1), {})
    with pytest.raises(ValueError, match="lines: 'v3' is not among shifted: v2"):
        NaturalShift(right(1), {"v2": right(1)}, lines={"v3": (1, 0)})
    with pytest.raises(ValueError, match=r"classes.v2 is \(1, 1\), .*no item twice"):
        NaturalShift(right(1), {"v2": right(1)}, classes={"v2": (1, 1)})
