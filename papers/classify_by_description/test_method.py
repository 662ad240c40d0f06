"""Descriptors: the name alone is zero-shot classification; what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from papers.classify_by_description.descriptors import class_vectors, sentence
from papers.classify_by_description.method import DescribedZeroShot
from tests.evaluators.linear_dual import TOKENIZER, data, run, texts_of
from vision.data.descriptors import read_descriptors
from vision.data.source import DataError
from vision.evaluators.image_text.zero_shot import ZeroShot

NAMES = ("owl", "cat", "newt")
KNOWN = {"owl": ["round eyes", "has wings"], "cat": ["fur"], "newt": ["a tail", "wet", "used"]}
RNG = np.random.default_rng(0)


def described(folder: Path, known: Any, **more: Any) -> DescribedZeroShot:
    path = folder / "descriptors.json"
    path.write_text(json.dumps(known))
    texts = [sentence(name, d) for name in NAMES for d in KNOWN[name]]
    bank = class_vectors(texts_of(texts), [2, 1, 3])
    label = RNG.integers(0, 3, 60).astype(np.int32)
    x = bank[label] + 0.2 * RNG.normal(size=(60, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = {"data": data(image=x, label=label, class_names=NAMES), "tokenizer": TOKENIZER}
    return DescribedZeroShot(**{**given, "descriptors": str(path), **more})


def test_sentences_are_the_authors():
    wanted = {
        "long tail": "newt, which has long tail",
        "has wings": "newt, which has wings",
        "often wet": "newt, which often wet",
        "a small animal": "newt, which is a small animal",
        "used in labs": "newt, which is used in labs",
        "antlers": "newt, which has antlers",  # there: which is antlers
    }
    assert {d: sentence("newt", d) for d in wanted} == wanted


def test_the_name_as_its_only_descriptor_is_zero_shot(tmp_path: Path):
    evaluator = described(tmp_path, {name: [name] for name in NAMES}, sentences=False)
    got = run(evaluator)
    plain = ZeroShot(evaluator.data, TOKENIZER, templates=("{}",), mistakes=0)
    assert got["top1"] == got["name_top1"] == run(plain)["top1"]
    assert "explanations" not in got


def test_scores_are_means_of_similarities_and_the_explanation_adds_up(tmp_path: Path):
    evaluator = described(tmp_path, KNOWN, explained=3)
    got = run(evaluator, 8)
    images = np.stack([r["image"] for r in (evaluator.data.source[i] for i in range(60))])
    x, label = (
        images.reshape(60, -1),
        np.array([evaluator.data.source[i]["label"] for i in range(60)]),
    )
    scores = np.stack(
        [
            np.mean([x @ texts_of([sentence(name, d)])[0] for d in KNOWN[name]], axis=0)
            for name in NAMES
        ],
        1,
    )
    assert got["top1"] == np.mean(scores.argmax(1) == label)
    assert got["top1"] > got["name_top1"]
    assert (got["examples"], got["descriptors"]) == (60, 6)
    table = got["explanations"]
    rows = [row for row in table.rows if row[0] == "0" and row[1] == "descriptors"]
    named = rows[0][2]
    assert {row[3] for row in rows} == set(KNOWN[named])
    by_name = (x @ texts_of(NAMES).T).argmax(1)
    first = np.flatnonzero((scores.argmax(1) == label) & (by_name != label))[0]
    assert np.mean([float(row[4]) for row in rows]) == pytest.approx(scores[first].max(), abs=2e-3)


def test_what_is_missing_is_named(tmp_path: Path):
    path = tmp_path / "d.json"
    for text, words in (
        ("[]", "no JSON object"),
        ("{", "d.json"),
        ('{"owl": ["x"]}', "no descriptors of 'cat', and of 1 other"),
        ('{"owl": [], "cat": ["x"], "newt": ["x"]}', "'owl' has no descriptor"),
        ('{"owl": ["x", "x"], "cat": ["x"], "newt": ["x"]}', "'owl' has no descriptor, or one"),
        ('{"owl": ["x", " "], "cat": ["x"], "newt": ["x"]}', "'owl' has no list"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            read_descriptors(path, NAMES)
    assert read_descriptors({"b": ("x",), "a": ["y", "z"]}, ("a", "b"))["a"] == ("y", "z")
    with pytest.raises(DataError, match="descriptors has no descriptors of 'c'"):
        read_descriptors({"b": ("x",)}, ("c",))
    with pytest.raises(DataError, match="nowhere"):
        read_descriptors("nowhere.json", NAMES)
