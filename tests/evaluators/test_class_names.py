"""Evaluation data whose classes have another order, or are fewer, than those of the run."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vision.evaluators
from vision.data import ops
from vision.data.all_records import feature_of, names_of
from vision.data.columns import ClassLabel, PartialLabels
from vision.data.fingerprint import fingerprint
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.data.sources.folder import Folder
from vision.data.sources.manifest import Manifest
from vision.evaluate.class_names import ClassNamesError, class_numbers, match_classes
from vision.evaluate.evaluator import evaluate
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.accuracy.multilabel import MultiLabelClassification
from vision.evaluators.features.probe import LinearProbe
from vision.evaluators.robustness.shifts import NaturalShift
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

# As a table of numbers sorts them; folders sort them as text: 1, 10, 2.
TRAINED = ("1", "2", "10")
# The grey value that every image of a class has.
GREY = {"1": 10, "2": 100, "10": 200, "3": 250}


def predict(variables: Any, batch: Any) -> dict[str, Any]:
    """Logits of TRAINED, which are right for every image."""
    grey = batch["image"].astype(jnp.float32).mean((1, 2, 3))
    distance = jnp.abs(grey[:, None] - jnp.asarray([GREY[name] for name in TRAINED]))
    return {"logits": -distance, "log_probabilities": -distance}


def folder(root: Path, names: tuple[str, ...], each: int = 2) -> Folder:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("L", (4, 4), GREY[name]).save(root / name / f"{i}.png")
    return Folder(str(root))


def data_of(source: Any) -> EvalData:
    decode = (ops.Decode(mode="grey"),)
    return EvalData(source, batch_size=8, ops=decode, threads=0)


def measured(evaluator: Any) -> dict[str, Any]:
    numbers, figures = evaluate(evaluator, predict, Variables({}, {}, {}), 1, Mesh().build())
    return {**numbers, **figures}


def test_folders_are_scored_by_name_and_not_by_number(tmp_path, caplog):
    """Text sorts 10 before 2; all answers are right, and the confusion matrix is diagonal."""
    evaluator = Classification(data_of(folder(tmp_path, ("1", "2", "10"))))
    assert evaluator.data.source.info.class_names == ("1", "10", "2")
    assert measured(evaluator)["top1"] == pytest.approx(1 / 3)
    got = measured(match_classes(evaluator, TRAINED, "test"))
    assert got["top1"] == 1
    assert got["confusion"].class_names == TRAINED
    np.testing.assert_array_equal(got["confusion"].counts, 2 * np.eye(3))
    assert "evaluators.test.data: the classes of" in caplog.text
    assert "'10' is number 2 and not 1" in caplog.text


def test_fewer_classes_are_mapped(tmp_path):
    evaluator = match_classes(Classification(data_of(folder(tmp_path, ("10", "2")))), TRAINED)
    got = measured(evaluator)
    assert got["top1"] == 1
    np.testing.assert_array_equal(got["confusion"].counts, np.diag([0, 2, 2]))


def test_tables_too(tmp_path):
    folder(tmp_path, ("2", "10"))
    rows = "".join(f"{name}/0.png,{name}\n" for name in ("10", "2"))
    (tmp_path / "labels.csv").write_text("image,label\n" + rows)
    column = ClassLabel(names=("2", "10"))
    source = Manifest(str(tmp_path / "labels.csv"), {"label": column})
    assert measured(match_classes(Classification(data_of(source)), TRAINED))["top1"] == 1


def test_a_class_that_was_never_trained_is_refused_by_name(tmp_path):
    evaluator = Classification(data_of(folder(tmp_path, ("1", "3"))))
    with pytest.raises(ClassNamesError, match=r"class '3' is not among the 3 classes of the run"):
        match_classes(evaluator, TRAINED, "test")
    with pytest.raises(ClassNamesError, match="2 classes called 'a'"):
        class_numbers(("a", "b", "a"), ("b", "a"), "data")


def test_equal_names_and_data_without_names_are_left_alone(tmp_path):
    evaluator = Classification(data_of(folder(tmp_path, ("1", "2"))))
    assert match_classes(evaluator, ("1", "2")) is evaluator
    assert match_classes(evaluator, ()) is evaluator
    assert class_numbers((), TRAINED, "data") is None


def test_columns_names_and_fingerprints_follow(tmp_path):
    plain = folder(tmp_path, ("1", "2", "10"), each=1)
    source: Any = match_classes(Classification(data_of(plain)), TRAINED).data.source
    assert [int(x) for x in feature_of(source, "label")] == [0, 2, 1]
    assert source.info.class_names == TRAINED
    assert len(source) == 3
    assert names_of(source, "label") in ((), TRAINED)
    assert source.key(1) == plain.key(1)
    assert fingerprint(source) != fingerprint(plain)


def arrays(label: np.ndarray, names: tuple[str, ...], feature: str = "label") -> Arrays:
    image = np.zeros((len(label), 2, 2, 1), np.float32)
    return Arrays({"image": image, feature: label}, "arrays", names)


def test_unlabelled_and_invalid_labels_stay_what_they_are():
    source = arrays(np.asarray([-1, 0, 1, 7], np.int32), ("b", "a"))
    matched = match_classes(Classification(EvalData(source, 2, threads=0)), ("a", "b", "c"))
    labels = [int(matched.data.source[i]["label"]) for i in range(4)]
    assert labels[:3] == [-1, 1, 0]
    assert labels[3] >= 3
    rows: Any = matched.data.source
    np.testing.assert_array_equal(rows.__getitems__(np.arange(3))["label"], [-1, 1, 0])


def test_vectors_of_labels_are_permuted():
    label = np.asarray([[1, 0, -1], [0, 1, 0]], np.int32)
    source = arrays(label, ("c", "a", "b"), "labels")
    evaluator = MultiLabelClassification(EvalData(source, 2, threads=0))
    matched = match_classes(evaluator, ("a", "b", "c")).data.source
    np.testing.assert_array_equal(matched[0]["labels"], [0, -1, 1])
    np.testing.assert_array_equal(matched[1]["labels"], [1, 0, 0])
    with pytest.raises(ClassNamesError, match="give the source all classes"):
        _ = match_classes(evaluator, ("a", "b", "c", "d")).data.source[0]


def test_labels_known_in_part_and_columns_with_names_of_their_own(tmp_path):
    """Which classes are known is permuted with them, by the names of their own column."""
    folder(tmp_path, ("1", "2"), each=1)
    (tmp_path / "table.jsonl").write_text(
        '{"image": "1/0.png", "label": "x", "tags": {"2": 1, "10": 0}}\n'
        '{"image": "2/0.png", "label": "y", "tags": {"1": 1}}\n'
    )
    columns = {"label": ClassLabel(), "tags": PartialLabels(names=("10", "2", "1"))}
    source = Manifest(str(tmp_path / "table.jsonl"), columns)
    evaluator = MultiLabelClassification(data_of(source), labels="tags")
    matched: Any = match_classes(evaluator, TRAINED).data.source
    np.testing.assert_array_equal(matched[0]["tags"], [0, 1, 0])
    np.testing.assert_array_equal(matched[0]["tags_known"], [False, True, True])
    np.testing.assert_array_equal(matched[1]["tags"], [1, 0, 0])
    assert [int(matched[i]["label"]) for i in range(2)] == [0, 1]
    assert names_of(matched, "tags") == TRAINED


def test_shifts_with_classes_of_their_own_are_left_alone():
    data = EvalData(arrays(np.asarray([0, 1], np.int32), ("b", "a")), 2, threads=0)
    evaluator = NaturalShift(data, {"same": data, "own": data}, classes={"own": (1, 0)})
    matched = match_classes(evaluator, ("a", "b"))
    assert int(matched.standard.source[0]["label"]) == 1
    assert int(matched.shifted["same"].source[0]["label"]) == 1
    assert matched.shifted["own"] is data


def test_probes_have_their_own_classes(tmp_path):
    data = data_of(folder(tmp_path, ("3", "1")))
    probe = LinearProbe(data, data)
    assert match_classes(probe, TRAINED) is probe


def test_declared_fields_exist():
    """Every evaluator that compares labels with logits says so, with names that it has."""
    declared = set()
    for module in pkgutil.walk_packages(vision.evaluators.__path__, "vision.evaluators."):
        for name, value in vars(importlib.import_module(module.name)).items():
            classes = getattr(value, "trained_classes", None)
            if isinstance(value, type) and isinstance(classes, dict):
                fields = set(value.__dataclass_fields__)
                assert set(classes) <= fields, name
                assert {x for names in classes.values() for x in names} <= fields, name
                declared.add(name)
    assert {"Classification", "Calibration", "Adversarial", "Corruptions", "Ordinal"} <= declared
