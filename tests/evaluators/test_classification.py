"""The classification evaluator over real arrays and files, against plain NumPy."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image

from vision.data.source import DataError, SourceInfo
from vision.evaluate.evaluator import EvalContext
from vision.evaluate.figures import ConfusionMatrix, Gallery, Reliability
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.thumbnail import thumbnail
from vision.train.objective import Variables

CLASSES, BATCH = 7, 16
EIGHT = "--xla_force_host_platform_device_count=8"


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Grey images whose first pixels are the logits, so that the answer is known."""

    images: np.ndarray
    labels: np.ndarray
    classes: int = CLASSES

    @property
    def info(self) -> SourceInfo:
        names = tuple(f"class {i}" for i in range(self.classes))
        return SourceInfo("arrays", len(self), class_names=names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index]}

    def key(self, index: int) -> str:
        return f"arrays/{index}"


@dataclasses.dataclass(frozen=True, eq=False)
class InOrder:
    """``EvalData`` over ``Arrays``; rows that only fill up hold NaN and a label of nothing."""

    source: Arrays

    def loader(self, *, process_index: int, process_count: int) -> Any:
        return self._batches()

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(self.source), BATCH):
            index = np.arange(start, start + BATCH)
            mask = index < len(self.source)
            index = np.where(mask, index, 0).astype(np.int32)
            labels = self.source.labels[index]
            fill = mask.reshape(BATCH, *[1] * (labels.ndim - 1))
            yield {
                "image": np.where(mask[:, None, None, None], self.source.images[index], np.nan),
                "label": np.where(fill, labels, 99),
                "_mask": mask,
                "_index": index,
            }


def predict(variables: Variables, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    logits = batch["image"].reshape(BATCH, -1)[:, :CLASSES] * variables.params["scale"]
    return {"logits": logits, "log_probabilities": jax.nn.log_softmax(logits)}


def context(devices: int = 1, scale: float = 1.0) -> EvalContext:
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put({"scale": np.float32(scale)}, NamedSharding(mesh, PartitionSpec()))

    def batches(data: Any) -> Iterator[Mapping[str, jax.Array]]:
        for batch in data.loader(process_index=0, process_count=1):
            yield {name: jax.device_put(x, rows) for name, x in batch.items()}

    return EvalContext(Variables(params, {}, {}), step=3, batches=batches)


def make(n: int, seed: int = 0) -> InOrder:
    rng = np.random.default_rng([n, seed])
    images = rng.normal(0, 3, (n, 3, 3, 1)).astype(np.float32)
    labels = np.where(
        rng.random(n) < 0.6,
        images.reshape(n, -1)[:, :CLASSES].argmax(-1),
        rng.integers(0, CLASSES, n),
    )
    return InOrder(Arrays(images, labels.astype(np.int32)))


def evaluate(data: InOrder, ctx: EvalContext | None = None, **options: Any) -> dict[str, Any]:
    with jax.transfer_guard("disallow"):
        return dict(Classification(data, **options).run(predict, ctx or context()))


def reference(data: InOrder) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and predictions (N,)."""
    logits = data.source.images.reshape(len(data.source), -1)[:, :CLASSES].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return probabilities, probabilities.argmax(-1)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_equal_to_numpy(n: int) -> None:
    data = make(n)
    labels = data.source.labels
    got = evaluate(data)
    probabilities, predictions = reference(data)
    order = np.argsort(-probabilities, -1, kind="stable")
    assert got["examples"] == n
    assert got["top1"] == (predictions == labels).mean()
    assert got["top5"] == (order[:, :5] == labels[:, None]).any(-1).mean()
    nll = -np.log(probabilities[np.arange(n), labels]).mean()
    assert got["nll"] == pytest.approx(nll, rel=1e-6)
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (labels, predictions), 1)
    assert isinstance(got["confusion"], ConfusionMatrix)
    np.testing.assert_array_equal(got["confusion"].counts, confusion)
    assert got["confusion"].class_names[2] == "class 2"
    assert isinstance(got["reliability"], Reliability)
    assert got["reliability"].count.sum() == n
    assert list(got)[:5] == ["top1", "top5", "nll", "ece", "examples"]


@pytest.mark.parametrize(("n", "mistakes"), [(40, 5), (40, 100), (3, 24), (200, 24)])
def test_mistakes_are_the_most_confident_wrong_answers(n: int, mistakes: int) -> None:
    data = make(n, seed=1)
    probabilities, predictions = reference(data)
    wrong = np.flatnonzero(predictions != data.source.labels)
    expected = wrong[np.argsort(-probabilities.max(-1)[wrong], kind="stable")][:mistakes]
    gallery = evaluate(data, mistakes=mistakes)["mistakes"]
    assert isinstance(gallery, Gallery)
    assert [item.index for item in gallery.items] == expected.tolist()
    for item in gallery.items:
        assert item.key == f"arrays/{item.index}"
        assert item.label == f"class {data.source.labels[item.index]}"
        assert item.prediction == f"class {predictions[item.index]}" != item.label
        assert item.score == pytest.approx(probabilities[item.index].max(), rel=1e-6)
        assert Image.open(io.BytesIO(item.png)).size == (3, 3)


def test_equally_confident_mistakes_come_in_the_order_of_the_records() -> None:
    images = np.zeros((40, 3, 3, 1), np.float32)
    images[:, 0, 0] = 100  # probability 1.0 for class 0, everywhere
    data = InOrder(Arrays(images, np.full(40, 1, np.int32)))
    ctx = context()

    def backwards(data: Any) -> Iterator[Mapping[str, jax.Array]]:
        yield from reversed(list(ctx.batches(data)))

    for given in (ctx, dataclasses.replace(ctx, batches=backwards)):
        gallery = evaluate(data, given, mistakes=20)["mistakes"]
        assert [item.index for item in gallery.items] == list(range(20))
        assert gallery.items[0].score == 1


def test_no_mistakes_no_pictures() -> None:
    assert "mistakes" not in evaluate(make(20), mistakes=0)
    data = make(20)
    right = InOrder(Arrays(data.source.images, reference(data)[1].astype(np.int32)))
    got = evaluate(right)
    assert got["top1"] == 1
    assert got["mistakes"].items == ()


def test_few_classes_have_no_top5_and_many_no_confusion() -> None:
    data = make(20)
    assert "confusion" not in evaluate(data, confusion_max_classes=6)
    three = InOrder(Arrays(data.source.images, data.source.labels % 3, classes=3))

    def three_ways(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        return {k: x[:, :3] for k, x in predict(variables, batch).items()}

    got: dict[str, Any] = dict(Classification(three).run(three_ways, context()))
    assert "top5" not in got
    assert got["confusion"].counts.shape == (3, 3)


def test_other_variables_need_no_new_program() -> None:
    """The same evaluator at a later step: compiled once, and the new parameters count."""
    traces = 0

    def counting(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        nonlocal traces
        traces += 1
        return predict(variables, batch)

    data = make(40)
    first = dict(Classification(data).run(counting, context()))
    second = dict(Classification(data).run(counting, context(scale=0.1)))
    assert traces == 1
    assert first["top1"] == second["top1"]
    assert first["nll"] != second["nll"]


def test_soft_and_missing_labels() -> None:
    data = make(40)
    hard = data.source.labels.copy()
    hard[3] = -1
    weights = np.where((hard == -1)[:, None], 0, 0.1 + np.eye(CLASSES)[hard]).astype(np.float32)
    hard_labels = evaluate(InOrder(Arrays(data.source.images, hard)))
    soft_labels = evaluate(InOrder(Arrays(data.source.images, weights)))
    assert hard_labels["examples"] == soft_labels["examples"] == 39
    assert hard_labels["unlabelled"] == soft_labels["unlabelled"] == 1
    for name in ("top1", "top5", "nll", "ece"):
        assert hard_labels[name] == soft_labels[name]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whole_row", [False, True])
def test_scores_that_are_not_finite_are_wrong_and_counted(value: float, whole_row: bool) -> None:
    data = make(40)
    predictions = reference(data)[1].astype(np.int32)
    if whole_row:
        data.source.images[5] = value
        predictions[5] = 0  # where argmax of equal scores points
    else:
        data.source.images[5, 0, 1] = value
        predictions[5] = 1  # where argmax points at NaN and infinity
    if value == -np.inf and not whole_row:
        predictions[5] = reference(data)[1][5]  # a class of probability zero, and others
    got = evaluate(InOrder(Arrays(data.source.images, predictions)))
    if value == -np.inf and not whole_row:
        assert got["top1"] == 1
        assert "nan_examples" not in got
        return
    assert got["nan_examples"] == 1
    assert got["top1"] == 39 / 40
    assert np.isnan(got["nll"])
    assert np.isnan(got["ece"])
    assert got["confusion"].counts.sum() == 39
    assert got["mistakes"].items == ()  # it has no predicted class to show


@pytest.mark.parametrize("label", [CLASSES, -2])
def test_labels_that_are_no_class_name_their_record(label: int) -> None:
    data = make(40)
    data.source.labels[23] = label
    with pytest.raises(DataError, match=r"arrays: 1 label.*outside 0\.\.6.*'arrays/23'"):
        evaluate(data)


def test_other_bad_input_is_named() -> None:
    data = make(20)
    empty = InOrder(Arrays(data.source.images[:0], data.source.labels[:0]))
    with pytest.raises(DataError, match="arrays: no records"):
        evaluate(empty)
    with pytest.raises(DataError, match=r"names 9 classes but the logits have 7"):
        evaluate(InOrder(Arrays(data.source.images, data.source.labels, classes=9)))
    with pytest.raises(ValueError, match=r"needs 'species' in a batch of arrays.*image, label"):
        evaluate(data, label="species")
    only = lambda variables, batch: {"embedding": batch["_mask"]}  # noqa: E731
    with pytest.raises(ValueError, match=r"'logits'.*gives embedding"):
        dict(Classification(data).run(only, context()))
    with pytest.raises(ValueError, match="mistakes is -1"):
        Classification(data, mistakes=-1)
    with pytest.raises(ValueError, match="bins is 0"):
        Classification(data, bins=0)


def test_one_and_eight_devices_agree() -> None:
    if len(jax.devices()) < 8:
        flags = os.environ.get("XLA_FLAGS", "")
        assert EIGHT not in flags, "the flag did not give eight devices"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, f"{__file__}::test_one_and_eight_devices_agree"],
            env={**os.environ, "XLA_FLAGS": f"{flags} {EIGHT}", "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return
    data = make(100)
    on_one, on_eight = evaluate(data, context(1)), evaluate(data, context(8))
    for name in ("top1", "top5", "examples"):
        assert on_one[name] == on_eight[name]
    for name in ("nll", "ece"):
        assert on_one[name] == pytest.approx(on_eight[name], rel=1e-7)
    np.testing.assert_array_equal(on_one["confusion"].counts, on_eight["confusion"].counts)
    assert [p.index for p in on_one["mistakes"].items] == [
        p.index for p in on_eight["mistakes"].items
    ]


def encoded(pixels: np.ndarray, container: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, container)
    return file.getvalue()


def pixels_of(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_thumbnails_of_arrays_and_files() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (8, 6), dtype=np.uint8)
    colour = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels_of(thumbnail({"image": grey})), grey)
    np.testing.assert_array_equal(pixels_of(thumbnail({"image": grey[:, :, None]})), grey)
    np.testing.assert_array_equal(pixels_of(thumbnail({"image": colour})), colour)
    np.testing.assert_array_equal(
        pixels_of(thumbnail({"photo": encoded(colour, "PNG")}, "photo")), colour
    )
    wide = np.zeros((100, 400, 3), np.uint8)
    assert pixels_of(thumbnail({"image": encoded(wide, "JPEG")})).shape == (32, 128, 3)
    stretched = pixels_of(thumbnail({"image": np.asarray([[-1.0, 0.0, 1.0, np.nan]])}))
    np.testing.assert_array_equal(stretched, [[0, 128, 255, 0]])
    assert not pixels_of(thumbnail({"image": np.full((2, 2), 7.0)})).any()
    five = np.zeros((2, 2, 5), np.uint16)
    assert pixels_of(thumbnail({"image": five})).shape == (2, 2)


def test_a_picture_that_cannot_be_shown_says_why() -> None:
    for record in ({"label": 3}, {"image": b"no image"}, {"image": np.zeros(3)}):
        with pytest.raises(DataError):
            thumbnail(record)
    gallery = evaluate(make(40), image="photo")["mistakes"]
    assert gallery.items
    assert all(p.png == b"" and "no feature 'photo'" in p.note for p in gallery.items)
