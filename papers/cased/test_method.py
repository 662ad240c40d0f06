"""CaSED: with one vocabulary and alpha = 1 it is zero-shot; what is missing is named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from papers.cased.evaluator import VocabularyFree
from papers.cased.method import Candidates, choose, cluster_accuracy, retrieve, word_overlap
from papers.cased.words import NOTHING, candidates, singular, words
from tests.evaluators.linear_dual import TOKENIZER, data, run, texts_of
from vision.blocks.nearest import NearestError
from vision.data.source import DataError
from vision.evaluators.image_text.zero_shot import ZeroShot, classify

NAMES = ("owl", "cat", "newt", "emu")
COLOURS = ("red", "blue", "green")
CAPTIONS = tuple(f"{colour} {name}" for name in NAMES for colour in COLOURS)
RNG = np.random.default_rng(0)


def unit(*shape: int) -> np.ndarray:
    x = RNG.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def free(**more: Any) -> VocabularyFree:
    label = RNG.integers(0, 4, 80).astype(np.int32)
    x = texts_of(NAMES)[label] + 0.15 * RNG.normal(size=(80, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    given = data(image=x, label=label, class_names=NAMES)
    small = {"retrieved": 5, "captions": () if "captions_file" in more else CAPTIONS}
    return VocabularyFree(given, TOKENIZER, **{**small, **more})


def test_words_are_cleaned():
    text = "Photos of three Foxes on https://a.b/c.jpg <PERSON> berries, glasses A_20.PNG the bus"
    assert words(text) == ("three", "fox", "berry", "glass", "bus")
    plurals = ("cats", "dishes", "churches", "grass", "iris", "pies", "houses")
    assert [singular(word) for word in plurals] == [
        *("cat", "dish", "church", "grass", "iris", "pie", "house"),
    ]


def test_candidates_are_held_twice_or_are_the_most_frequent():
    assert candidates([("cat", "red"), ("dog", "cat")]) == ("cat",)
    assert candidates([("cat",), ("dog",)]) == ("cat", "dog")  # none twice: all of those once
    assert candidates([("cat", "cat"), ("dog",) * 3], least=3) == ("dog",)
    assert candidates([(), ()]) == (NOTHING,)


def test_alpha_one_with_one_vocabulary_is_zero_shot():
    images, texts, bank = unit(50, 6), unit(20, 6), unit(4, 6)
    of = retrieve(images, texts, [NAMES] * 20, 3)
    assert of.vocabulary == NAMES
    best, sure = choose(images, of, bank, alpha=1.0)
    np.testing.assert_array_equal(best, classify(images, np.full(50, -1), bank)[0])
    logits = images @ bank.T / 0.07
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(sure, p.max(1), rtol=1e-5)


def test_the_centroid_decides_where_alpha_is_zero():
    texts, bank = unit(20, 6), unit(4, 6)
    of = retrieve(unit(9, 6), texts, [NAMES] * 20, 4)
    np.testing.assert_allclose(np.linalg.norm(of.centroids, axis=1), 1, rtol=1e-6)
    mean = np.stack([texts[row].mean(0) for row in of.nearest])
    one, other = (choose(unit(9, 6), of, bank, alpha=0.0)[0] for _ in range(2))
    np.testing.assert_array_equal(one, (mean @ bank.T).argmax(1))
    np.testing.assert_array_equal(one, other)  # whatever the images are


def test_candidates_of_one_word_give_that_word():
    of = retrieve(unit(5, 6), unit(8, 6), [("emu",), ()] * 4, 8)
    best, sure = choose(unit(5, 6), of, unit(1, 6))
    assert [of.vocabulary[i] for i in best] == ["emu"] * 5
    np.testing.assert_allclose(sure, 1)


def test_only_an_images_own_candidates_count():
    x = unit(1, 6).repeat(2, 0)
    both = Candidates(x, np.zeros((2, 1), np.int64), NAMES, (np.array([0, 1]), np.array([2, 3])))
    bank = unit(4, 6)
    best, _ = choose(x, both, bank)
    scores = x[0] @ bank.T
    assert best.tolist() == [scores[:2].argmax(), 2 + scores[2:].argmax()]


def test_cluster_accuracy_is_the_best_of_all_matchings():
    labels, names = RNG.integers(0, 3, 40), RNG.integers(5, 9, 40)
    matchings = itertools.permutations(range(5, 9), 3)
    best = max(np.mean(np.take(matching, labels) == names) for matching in matchings)
    assert cluster_accuracy(labels, names) == pytest.approx(best)
    assert cluster_accuracy(labels, 7 - labels) == 1


def test_semantic_iou_is_that_of_words():
    assert word_overlap(["cat"], ["cat"]) == 1
    assert word_overlap(["cat"], ["big", "cat"]) == 0.5
    assert word_overlap(["cat"], ["dog"]) == word_overlap([], []) == 0


def test_the_evaluator_names_images_by_captions():
    evaluator = free()
    got = run(evaluator, 8)
    plain = ZeroShot(evaluator.data, TOKENIZER, templates=("{}",), mistakes=0)
    assert got["closed_top1"] == run(plain)["top1"]
    source = evaluator.data.source
    x = np.stack([source[i]["image"] for i in range(80)]).reshape(80, -1)
    label = np.array([source[i]["label"] for i in range(80)])
    of = retrieve(x, texts_of(CAPTIONS), [words(caption) for caption in CAPTIONS], 5)
    best, _ = choose(x, of, texts_of(of.vocabulary))
    named = [of.vocabulary[i] for i in best]
    right = np.mean([given == NAMES[k] for given, k in zip(named, label, strict=True)])
    assert got["semantic_iou"] == pytest.approx(right)
    assert got["cluster_accuracy"] == pytest.approx(cluster_accuracy(label, best))
    assert 0 < right <= got["reachable"] <= 1
    assert (got["captions"], got["examples"]) == (12, 80)
    assert got["vocabulary"] <= len(NAMES) + len(COLOURS)
    assert "absent_classes" not in got
    rows = got["named"].rows
    assert len(rows) == 24
    assert {row[0] for row in rows} <= set(NAMES)
    assert {row[3] for row in rows} <= set(CAPTIONS)


def test_a_vocabulary_without_a_true_word_is_counted_or_refused(tmp_path: Path):
    without = tuple(caption for caption in CAPTIONS if "emu" not in caption)
    assert run(free(captions=without))["absent_classes"] == 1
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(f"{a} {b}" for a in COLOURS for b in ("house", "car")))
    with pytest.raises(DataError, match=r"captions\.txt: no caption has a word of 'owl' or of any"):
        run(free(captions_file=str(file)))


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="captions has 2 captions: fewer than retrieved=5"):
        run(free(captions=("red cat", "blue cat", "red cat", " ")))
    with pytest.raises(DataError, match="nowhere"):
        run(free(captions_file=str(tmp_path / "nowhere.txt")))
    with pytest.raises(ValueError, match="one of the two"):
        dataclasses.replace(free(), captions_file="captions.txt")
    with pytest.raises(ValueError, match="alpha"):
        free(alpha=1.5)
    with pytest.raises(NearestError, match="must be"):
        retrieve(unit(3, 5), unit(8, 6), [("cat",)] * 8, 2)
    with pytest.raises(ValueError, match="7 captions have 8 vectors"):
        retrieve(unit(3, 6), unit(8, 6), [("cat",)] * 7, 2)
