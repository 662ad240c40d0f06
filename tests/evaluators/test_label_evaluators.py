"""Hierarchies, orders, numbers, tasks and label sets on a model whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, f1_score

from tests.evaluators.linear_dual import data, run
from vision.data.source import DataError
from vision.data.sources.scenes.paths import class_paths
from vision.evaluate.figures import Curve, Table
from vision.evaluators.accuracy.hierarchy import Hierarchical
from vision.evaluators.accuracy.label_sets import LabelSets
from vision.evaluators.accuracy.mistakes import Mistakes
from vision.evaluators.accuracy.multitask import MultiTaskAccuracy
from vision.evaluators.accuracy.ordinal import Ordinal, Regression

NAMES = ("dog", "cat", "car", "bus")
PATHS = {"dog": ("animal",), "cat": ("animal",), "car": ("vehicle",), "bus": ("vehicle",)}


def predict(_: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    tasks = {"logits/colour": pixels[:, 4:7], "logits/size": pixels[:, 7:9]}
    return {"logits": pixels[:, :4], "one": pixels[:, 9:10], "two": pixels[:, :2], **tasks}


def made(count: int = 60, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, 12)).astype(np.float32)
    label = (image[:, :4] + rng.normal(size=(count, 4))).argmax(1).astype(np.int32)
    labels = rng.random((count, 4)) < 0.3
    labels[np.arange(count), label] = True
    return {"image": image, "label": label, "labels": labels.astype(np.int32)}


@pytest.mark.parametrize("devices", [1, 8])
def test_hierarchy(devices: int, tmp_path):
    arrays = made()
    arrays["label"][:2] = -1
    arrays["image"][2, 0] = np.nan
    label, best = arrays["label"][3:], arrays["image"][3:, :4].argmax(1)
    got = run(
        Hierarchical(data(class_names=NAMES, **arrays), PATHS, at=(1, 4, 9)), devices, predict
    )
    assert got["top1"] == got["level_2"] == pytest.approx((label == best).sum() / 58)
    assert got["level_1"] == pytest.approx((label // 2 == best // 2).sum() / 58)
    distance = np.where(label == best, 0, np.where(label // 2 == best // 2, 1, 2))
    assert got["severity"] == pytest.approx(distance[distance > 0].mean())
    assert got["distance"] == got["distance_at_1"] == pytest.approx(distance.mean())
    assert got["distance_at_4"] == pytest.approx((0 + 1 + 2 + 2) / 4)
    assert "distance_at_9" not in got
    counts = [got[key] for key in ("examples", "mistakes", "unlabelled", "nan_examples")]
    assert counts == [58, (distance > 0).sum(), 2, 1]
    assert isinstance(got["levels"], Curve)
    if devices == 1:
        file = tmp_path / "paths.json"
        file.write_text(json.dumps(PATHS))
        again = run(Hierarchical(data(class_names=NAMES, **arrays), str(file)), 1, predict)
        assert again["severity"] == got["severity"]
        file.write_text('{"dog": "animal"}')
        with pytest.raises(DataError, match="'dog' needs a list"):
            run(Hierarchical(data(class_names=NAMES, **arrays), str(file)), 1, predict)


def test_hierarchy_of_scenes_and_bad_ones():
    assert class_paths("shape")["star"] == ("starry",)
    assert class_paths("leaf")["outlined star"] == ("starry", "star")
    some = {name: PATHS[name] for name in NAMES[:3]}
    with pytest.raises(DataError, match="no 'bus'"):
        run(Hierarchical(data(class_names=NAMES, **made()), some), 1, predict)
    with pytest.raises(DataError, match="no class names"):
        run(Hierarchical(data(**made()), PATHS), 1, predict)
    paths = {**PATHS, "cat": ("animal", "dog"), "dog": ("animal",)}
    with pytest.raises(DataError, match="on the way to another"):
        run(Hierarchical(data(class_names=NAMES, **made()), paths), 1, predict)
    bad = made()
    bad["label"][4] = 4
    with pytest.raises(DataError, match="label 4 is no class: there are 4"):
        run(Hierarchical(data(class_names=NAMES, **bad), PATHS), 1, predict)


def test_ordinal():
    arrays = made()
    arrays["label"][0] = -1
    arrays["image"][1, 2] = np.nan
    got = run(Ordinal(data(**arrays)), 8, predict)
    label, best = arrays["label"][2:], arrays["image"][2:, :4].argmax(1)
    assert got["top1"] == pytest.approx((label == best).sum() / 59)
    assert got["mae"] == pytest.approx(np.abs(label - best).mean())
    assert got["within_1"] == pytest.approx((np.abs(label - best) <= 1).mean())
    assert got["kappa"] == pytest.approx(cohen_kappa_score(label, best, weights="quadratic"))
    assert (got["examples"], got["unlabelled"], got["nan_examples"]) == (59, 1, 1)
    arrays["label"][:] = -1
    with pytest.raises(DataError, match="no record has"):
        run(Ordinal(data(**arrays)), 1, predict)


def test_regression_of_a_monotone_map_keeps_ranks():
    arrays = made()
    arrays["target"] = np.exp(2 * arrays["image"][:, 9]).astype(np.float32)
    arrays["target"][:3] = np.nan
    arrays["image"][3, 9] = np.inf
    got = run(Regression(data(**arrays), "one", mapping="logistic"), 8, predict)
    assert got["srcc"] == got["krcc"] == 1 > got["mapped_plcc"] > got["plcc"]
    assert got["mapped_rmse"] < got["rmse"]
    error = arrays["image"][4:, 9] - arrays["target"][4:]
    assert got["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert (got["examples"], got["unlabelled"], got["nonfinite"]) == (56, 3, 1)
    with pytest.raises(ValueError, match="one number per image"):
        run(Regression(data(**arrays), "two"), 1, predict)
    with pytest.raises(ValueError, match="mapping is 'cubic'"):
        Regression(data(**arrays), mapping="cubic")  # pyright: ignore[reportArgumentType]


def test_several_tasks_with_missing_labels():
    arrays, rng = made(), np.random.default_rng(5)
    arrays["colour"] = rng.integers(-1, 3, 60).astype(np.int32)
    arrays["size"] = np.full(60, -1, np.int32)
    got = run(MultiTaskAccuracy(data(**arrays), ("colour", "size")), 8, predict)
    keep, best = arrays["colour"] >= 0, arrays["image"][:, 4:7].argmax(1)
    expected = f1_score(arrays["colour"][keep], best[keep], average="weighted")
    assert got["colour_f1"] == got["mean_f1"] == pytest.approx(expected)
    assert (got["colour_examples"], got["colour_missing"]) == (keep.sum(), (~keep).sum())
    assert (got["tasks"], got["tasks_without_labels"]) == (1, 1)
    assert "size_accuracy" not in got
    assert isinstance(got["by_task"], Table)
    with pytest.raises(ValueError, match="logits/label"):
        run(MultiTaskAccuracy(data(**arrays), ("label",)), 1, predict)
    arrays["size"][3] = 2
    with pytest.raises(DataError, match="size: labels: 1 of 60 are out of range"):
        run(MultiTaskAccuracy(data(**arrays), ("colour", "size")), 1, predict)


def test_label_sets_and_what_a_drop_is_made_of():
    first, second = made(), made(80, 1)
    first["labels"][0] = 0
    got = run(LabelSets(data(**first), data(**second), largest=3), 8, predict)
    assert got["drop_mix"] + got["drop_rate"] == pytest.approx(got["drop_variable_k"], abs=1e-12)
    assert got["real"] >= got["top1"] * 59 / 60 - 1 / 60
    sizes = [k for k in range(1, 5) if f"accuracy_{k}" in got]
    assert got["asma"] == pytest.approx(np.mean([got[f"accuracy_{k}"] for k in sizes]))
    mean = sum(got[f"share_{k}"] * got[f"accuracy_{k}"] for k in sizes)
    assert got["variable_k"] == pytest.approx(mean)
    assert got["empty"] == 1
    assert got["examples"] + got.get("larger", 0) == 59
    assert got["against_examples"] + got.get("against_larger", 0) == 80
    first["labels"][1, 1] = 2
    with pytest.raises(DataError, match="must be 0 and 1"):
        run(LabelSets(data(**first)), 1, predict)
    first["labels"][:] = 0
    with pytest.raises(DataError, match="no image has 1 to 4"):
        run(LabelSets(data(**first)), 1, predict)


def test_single_labels_make_all_accuracies_equal():
    arrays = made()
    arrays["labels"] = np.eye(4, dtype=np.int32)[arrays["label"]]
    got = run(LabelSets(data(**arrays)), 1, predict)
    assert got["top1"] == got["real"] == pytest.approx(got["variable_k"])
    assert got["asma"] == got["accuracy_1"] == got["variable_k"]
    review = run(Mistakes(data(**arrays)), 1, predict)
    classes = [(arrays["image"][arrays["label"] == k, :4].argmax(1) == k).mean() for k in range(4)]
    assert review["mla"] == pytest.approx(np.mean(classes))
    assert review["accuracy"] == review["top1"] == got["top1"]


def test_reviewed_mistakes(tmp_path):
    arrays = made()
    best = arrays["image"][:, :4].argmax(1)
    arrays["problematic"] = np.arange(60) < 5
    arrays["must_pass"] = np.arange(60) % 4 == 0
    arrays["unclear"] = np.zeros((60, 4), np.int32)
    right = arrays["labels"][np.arange(60), best] == 1
    saved = int(np.flatnonzero(~right)[-1])
    arrays["unclear"][saved, best[saved]] = 1
    right[saved] = True
    wrong = [i for i in range(5, 60) if not right[i]]
    entry = {"category": "spurious", "severity": "major"}
    lines = [
        {"image": f"made/{wrong[0]}", "prediction": NAMES[best[wrong[0]]], **entry},
        {"image": f"made/{wrong[1]}", "prediction": int(best[wrong[1]]), **entry},
        {"image": f"made/{wrong[2]}", "prediction": int(best[wrong[2]] + 1) % 4, **entry},
    ]
    file = tmp_path / "review.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)))
    evaluator = Mistakes(data(class_names=NAMES, **arrays), str(file))
    got = run(evaluator, 8, predict)
    assert (got["examples"], got["problematic"], got["mistakes"]) == (55, 5, len(wrong))
    assert got["accuracy"] == pytest.approx(right[5:].mean())
    assert got["must_pass_right"] == right[5:][arrays["must_pass"][5:]].sum()
    assert got["mistakes_spurious"] == got["mistakes_major"] == 2
    assert got["unreviewed"] == len(wrong) - 2
    assert isinstance(got["categories"], Table)
    for text, message in (
        ("{", "line 2: "),
        ("[]", "line 2: an object with image"),
        (json.dumps({**lines[0], "severity": "dire"}), "line 2: severity is 'dire'"),
        (json.dumps({**lines[0], "category": []}), "line 2: category"),
        (json.dumps({**lines[0], "prediction": "cow"}), "line 2: prediction is 'cow'"),
        (json.dumps({**lines[0], "prediction": True}), "line 2: prediction is True"),
        (json.dumps(lines[0]), "line 2: 'made/.* is there twice"),
    ):
        file.write_text(f"{json.dumps(lines[0])}\n{text}\n")
        with pytest.raises(DataError, match=message):
            run(evaluator, 1, predict)
