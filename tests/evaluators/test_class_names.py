"""Evaluation data whose classes have another order, or are fewer, than those of the run."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any, ClassVar

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


# Evaluators that read data and compare no label with the run's logits, and why: their classes, if
# any, are those of the data they are fitted on, or of texts.
OWN_CLASSES = {
    "fitted on labels of their own data": {
        *("LinearProbe", "RidgeProbe", "SgdProbe", "NearestNeighbours", "FewShot"),
        *("FindingsProbe", "PatchProbe", "OffTheShelf", "ResizeNormalize"),
        *("UnrolledEM", "ConceptProbe", "NearestMeanStream", "FewShotSessions"),
        "RepeatedShares",
    },
    "labels are instances, and no classes of a head": {
        *("InstanceRetrieval", "ImageRetrieval", "ComposedRetrieval", "LabelPropagation"),
    },
    "classes are texts": {
        *("ZeroShot", "MultilingualZeroShot", "WeightedZeroShot", "DescribedZeroShot"),
        *("PatchSegmentation", "Ranks", "VocabularyFree", "OptimizedZeroShot"),
    },
    "images and texts, without labels": {
        *("ImageTextRetrieval", "CrossedPairs", "CaptionChoice", "LateRetrieval"),
    },
    "no labels": {"Representation", "Cost", "NoiseSensitivity", "Fooling", "FilterStatistics"},
    "labels are of two kinds": {"MutualScoring", "Tileability"},
    "answers are texts, votes or numbers, or tasks with names of their own": {
        *("AnswerRewards", "VoteLikelihood", "Regression", "MultiTaskAccuracy"),
        "GeometricAnswers",
    },
}


def evaluators() -> dict[str, type]:
    """Every dataclass of ours that is an evaluator of data, by name."""
    papers = Path(__file__).parents[2] / "papers"
    modules = [
        *(x.name for x in pkgutil.walk_packages(vision.evaluators.__path__, "vision.evaluators.")),
        *(
            f"papers.{file.parent.name}.{file.stem}"
            for file in sorted(papers.glob("*/*.py"))
            if "def run(self, predict" in file.read_text(encoding="utf-8")
        ),
    ]
    found = {}
    for module in modules:
        for name, value in vars(importlib.import_module(module)).items():
            if not (isinstance(value, type) and dataclasses.is_dataclass(value)):
                continue
            run = inspect.signature(getattr(value, "run", lambda: None)).parameters
            types = " ".join(str(field.type) for field in dataclasses.fields(value))
            reads = "EvaluationData" in types or "EvalData" in types
            if {"predict", "ctx"} <= set(run) and reads and value.__module__ == module:
                found[name] = value
    return found


@dataclasses.dataclass(frozen=True)
class OfLabel:
    """An evaluator that has no field for the name of its label."""

    data: EvalData
    trained_classes: ClassVar = {"data": ("label",)}


def test_an_evaluator_without_a_field_for_the_label_is_matched_too():
    """It raised AttributeError as soon as the run had classes."""
    data = EvalData(arrays(np.asarray([0, 1], np.int32), ("b", "a")), 2, threads=0)
    matched = match_classes(OfLabel(data), ("a", "b"))
    assert [int(matched.data.source[i]["label"]) for i in range(2)] == [1, 0]


def test_every_evaluator_says_whose_classes_its_labels_are():
    """One that forgets ``trained_classes`` compares numbers of one order with those of another."""
    found = evaluators()
    declared = {name for name, each in found.items() if hasattr(each, "trained_classes")}
    own = set().union(*OWN_CLASSES.values())
    assert sum(map(len, OWN_CLASSES.values())) == len(own), "a name is there twice"
    assert not declared & own, "declares trained_classes, and is said to have its own classes"
    assert set(found) - declared - own == set(), "declare trained_classes, or say why not here"
    assert own - set(found) == set(), "no such evaluator"
    assert {"Classification", "Adversarial", "NaturalShift", "TrainedOnSynthetic"} <= declared


def test_declared_fields_exist():
    for name, each in evaluators().items():
        classes = getattr(each, "trained_classes", None)
        if isinstance(classes, dict):  # a property, where it depends on the fields
            fields = set(each.__dataclass_fields__)
            assert set(classes) <= fields, name
            named = {x for names in classes.values() for x in names}
            assert named <= fields | {"label", "label_map"}, name  # a field, or the feature itself
