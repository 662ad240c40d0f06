"""Maps against boxes and masks: what is read of them, and deletion by its definition."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluators.linear_dual import run
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluators.attribution import Attribution, Gradient

COUNT, SIDE = 10, 8
RNG = np.random.default_rng(0)
IMAGES: np.ndarray = RNG.random((COUNT, SIDE, SIDE, 1)).astype(np.float32)
# A class looks at one quarter of the image.
QUARTERS = [(slice(4 * a, 4 * a + 4), slice(4 * b, 4 * b + 4)) for a in (0, 1) for b in (0, 1)]
LABEL = np.arange(COUNT, dtype=np.int32) % 4
LABEL[9] = -1


def predict(_: Any, batch: Mapping[str, Any], tap: Any = None) -> dict[str, Any]:
    each = [batch["image"][:, y, x].mean((1, 2, 3)) for y, x in QUARTERS]
    return {"logits": 20 * jnp.stack(each, 1)}


def data(wrong: int = 0) -> EvalData:
    """Boxes and masks of the quarter that the label names, ``wrong`` of them of another."""
    masks, boxes = np.zeros((COUNT, 2, SIDE, SIDE), bool), np.zeros((COUNT, 2, 4), np.int32)
    for i, label in enumerate(LABEL):
        y, x = QUARTERS[(label + 1) % 4 if i < wrong else label]
        masks[i, 0][y, x], boxes[i, 0] = True, (y.start, x.start, y.stop, x.stop)
        masks[i, 1], boxes[i, 1] = True, (0, 0, SIDE, SIDE)  # of another object
    arrays = {"image": IMAGES, "label": LABEL, "masks": masks, "boxes": boxes}
    return EvalData(Arrays(arrays), batch_size=4, threads=0)


@dataclasses.dataclass(frozen=True)
class Same:
    """No map at all, or not a number."""

    value: float

    def __call__(self, asked: Any, images: jax.Array) -> jax.Array:
        return jnp.full(images.shape[:3], self.value)


def evaluator(wrong: int = 0, **more: Any) -> Attribution:
    return Attribution(data(wrong), {"slope": Gradient()}, tolerance_px=0, masks="masks", **more)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_gradient_is_on_the_object(devices: int):
    got = run(evaluator(wrong=3), devices, predict)
    assert (got["examples"], got["unlabelled"]) == (9, 1)
    means = np.stack([IMAGES[:, y, x].mean((1, 2, 3)) for y, x in QUARTERS], 1)
    assert got["top1"] == (means.argmax(1) == LABEL)[:9].mean()
    # Its slope is one number inside the quarter: the middle of it is pointed at.
    assert got["slope_pointing"] == got["slope_iou"] == pytest.approx(6 / 9)
    assert got["slope_error"] == pytest.approx(3 / 9)
    assert got["slope_energy"] == pytest.approx(6 / 9)
    assert got["slope_auroc"] == pytest.approx((6 * 1.0 + 3 * (0.5 * 32 / 48)) / 9)
    assert got["slope_parts"] == 1
    assert got["centre_pointing"] == 0
    assert not any("deletion" in name or "flat" in name for name in got)


def test_predicted_classes_count_wrong_answers_as_errors():
    got = run(evaluator(target="predicted"), 1, predict)
    assert got["slope_error"] == pytest.approx(1 - got["top1"])
    assert got["slope_pointing"] == pytest.approx(got["top1"])


def test_deletion_and_insertion_by_their_definition():
    got = run(evaluator(steps=4, target="label"), 1, predict)
    curves = {line.name: line for line in got["deletion_and_insertion"].lines}
    assert curves["slope deletion"].x.tolist() == [0, 0.25, 0.5, 0.75, 1]
    expected: dict[str, list[Any]] = {"deletion": [], "insertion": []}
    for i in range(9):
        y, x = QUARTERS[LABEL[i]]
        order = np.zeros((SIDE, SIDE), int)
        order[y, x] = -1
        place = order.ravel().argsort(kind="stable").argsort(kind="stable").reshape(SIDE, SIDE)
        mean = IMAGES[i].mean()
        for way, rows in expected.items():
            rows.append([])
            for share in curves["slope deletion"].x:
                first = (place < share * SIDE**2)[..., None]
                gone = first if way == "deletion" else ~first
                logits = predict(None, {"image": np.where(gone, mean, IMAGES[i])[None]})["logits"]
                rows[-1].append(float(jax.nn.softmax(logits)[0, LABEL[i]]))
    for way, rows in expected.items():
        np.testing.assert_allclose(curves[f"slope {way}"].y, np.mean(rows, 0), rtol=1e-4)
        area = np.trapezoid(rows, dx=0.25, axis=1).mean()
        assert got[f"slope_{way}"] == pytest.approx(area, rel=1e-4)


def test_what_cannot_be_read():
    bad = dataclasses.replace(evaluator(), maps={"none": Same(1.0), "nan": Same(np.nan)})
    got = run(bad, 1, predict)
    assert (got["none_flat"], got["nan_nonfinite"]) == (9, 9)
    assert (got["none_pointing"], got["nan_pointing"], got["nan_error"]) == (0, 0, 1)
    with pytest.raises(ValueError, match="has no 'corners'"):
        run(evaluator(boxes="corners"), 1, predict)
    with pytest.raises(ValueError, match="needs 'scores'"):
        run(evaluator(logits="scores"), 1, predict)
    nothing = EvalData(
        Arrays({"image": IMAGES[:2], "label": LABEL[9:].repeat(2), "boxes": np.zeros((2, 4), int)}),
        batch_size=2,
        threads=0,
    )
    with pytest.raises(DataError, match="no labelled records"):
        run(Attribution(nothing, {"slope": Gradient()}), 1, predict)
    with pytest.raises(ValueError, match=r"maps is {}, .*not empty"):
        Attribution(nothing, {})
