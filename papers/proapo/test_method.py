"""ProAPO: without epochs the best template; fitness never falls; what is missing is named."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from papers.proapo.evaluator import OptimizedZeroShot
from papers.proapo.method import Search, optimise
from papers.proapo.search import Fitness, Plan, Pool, evolve, useful
from tests.evaluators.linear_dual import TOKENIZER, data, run, texts_of
from vision.data.prompts import prompts
from vision.data.source import DataError

RNG = np.random.default_rng(0)
NAMES = ("owl", "cat", "newt")
TEMPLATES = ("{}", "a {} thing", "the {}")
KNOWN = {"owl": ("round eyes", "wings"), "cat": ("fur",), "newt": ("a tail", "wet")}
FEW = Search(
    Fitness(0.5, 0.05, 10.0, 10.0),
    Fitness(0.0, 0.2, 10.0, 10.0),
    Plan(2, edits=3),
    Plan(2, edits=3, mutations=4),
)


def unit(x: Any) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def made(templates: int = 6, classes: int = 8) -> dict[str, Any]:
    """Images near their class, templates of rising noise, descriptions of which half are wrong."""
    centres = unit(RNG.normal(size=(classes, 12)))
    noise = np.linspace(1.0, 2.0, templates)[:, None, None]
    bank = unit(centres + noise * RNG.normal(size=(templates, classes, 12)) * 0.5)
    describes = np.repeat(np.arange(classes), 6)
    of = np.where(np.arange(len(describes)) % 2, describes, (describes + 1) % classes)
    described = unit(centres[of] + 0.1 * RNG.normal(size=(len(describes), 12)))
    labels = np.arange(classes)
    images = unit(centres + 0.1 * RNG.normal(size=(classes, 12)))
    return {
        "bank": bank,
        "described": described,
        "describes": describes,
        "images": images,
        "labels": labels,
    }


def test_fitness_is_its_sum():
    images, classes, labels = (
        unit(RNG.normal(size=(20, 6))),
        unit(RNG.normal(size=(7, 6))),
        RNG.integers(0, 7, 20),
    )
    p = np.exp(10 * images @ classes.T)
    p /= p.sum(1, keepdims=True)
    order = np.argsort(-p, 1)
    top1, top5 = (
        np.mean([y in row[:k] for y, row in zip(labels, order, strict=True)]) for k in (1, 5)
    )
    loss = -np.mean(np.log(p[np.arange(20), labels]))
    got = Fitness(0.5, 0.2, 3.0, 10.0)(images, labels, classes)
    assert got == pytest.approx(50 * top1 + 20 * top5 - 3 * loss)


def test_a_class_is_the_unit_mean_of_its_sentences():
    x = unit(RNG.normal(size=(4, 5)))
    pool = Pool(x, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 2]), np.zeros((2, 5)))
    got = pool.class_vectors(np.array([True, True, False]))
    assert got is not None
    np.testing.assert_allclose(got, unit(np.stack([x[0] + x[2], x[1]])), rtol=1e-12)
    assert pool.class_vectors(np.array([False, True, False])) is None  # none of class 1
    left = pool.only(np.array([True, False, True]))
    assert (left.size, left.choices.tolist()) == (2, [0, 0, 1])


def test_without_epochs_it_is_the_best_single_template():
    given = made()
    none = dataclasses.replace(FEW, template_plan=Plan(0), rounds=0)
    found = optimise(**given, search=none, seed=0)
    values = [FEW.templates(given["images"], given["labels"], each) for each in given["bank"]]
    assert np.flatnonzero(found.templates).tolist() == [int(np.argmax(values))]
    np.testing.assert_allclose(found.classes, given["bank"][np.argmax(values)], rtol=1e-9)
    assert found.template_fitness == (pytest.approx(max(values)),)


def test_fitness_never_falls_and_wrong_descriptions_are_left():
    given = made()
    found = optimise(**given, search=FEW, seed=0)
    for values in (found.template_fitness, found.description_fitness):
        assert (np.diff(values) > -1e-9).all()
    last = FEW.descriptions(given["images"], given["labels"], found.classes)
    assert found.description_fitness[-1] == pytest.approx(last)
    assert found.description_fitness[-1] > found.description_fitness[0]
    wrong = np.arange(len(given["describes"])) % 2 == 0
    assert found.descriptions.any()
    assert wrong[found.descriptions].mean() < 0.4
    again = optimise(**given, search=FEW, seed=0)
    np.testing.assert_array_equal(found.descriptions, again.descriptions)


def test_copies_and_what_harms_are_dropped():
    classes = np.eye(4)
    vectors = np.concatenate([classes, classes, np.roll(classes, 1, 0)])
    pool = Pool(vectors, np.tile(np.arange(4), 3), np.repeat(np.arange(3), 4), np.zeros((4, 4)))
    assert useful(pool, classes, np.arange(4), classes).tolist() == [True, False, False]


def test_a_class_without_any_sentence_is_an_error():
    pool = Pool(np.eye(2), np.array([0, 0]), np.array([0, 1]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="leaves a class without a sentence"):
        evolve(pool, np.eye(2, dtype=bool), np.eye(2), np.arange(2), FEW.templates, Plan(), RNG)


def test_widths_and_classes_that_differ_are_errors():
    given = made()
    with pytest.raises(ValueError, match="same last dimension"):
        optimise(**{**given, "images": np.ones((8, 5))}, search=FEW, seed=0)
    with pytest.raises(ValueError, match=r"describes lie in 0\.\.9"):
        optimise(**{**given, "describes": np.full(48, 9) * (np.arange(48) > 0)}, search=FEW, seed=0)


def asked(**more: Any) -> OptimizedZeroShot:
    def images(each: int) -> Any:
        label = np.repeat(np.arange(3, dtype=np.int32), each)
        x = unit(texts_of(NAMES)[label] + 0.2 * RNG.normal(size=(3 * each, 12)))
        return data(image=x, label=label, class_names=NAMES)

    given = {"data": images(20), "train": images(2), "tokenizer": TOKENIZER, "descriptors": KNOWN}
    return OptimizedZeroShot(**{**given, "search": FEW, "templates": TEMPLATES, **more})


def test_the_evaluator_says_what_was_taken():
    got = run(asked(), 8)
    assert (got["shots"], got["examples"]) == (3, 60)
    assert len(got["texts"].rows) == got["templates"] + got["descriptions"]
    assert {row[1] for row in got["texts"].rows} <= {*TEMPLATES, *sum(KNOWN.values(), ())}
    assert got["single_top1"] > 0.5


def test_one_template_and_no_rounds_are_its_bank():
    got = run(asked(templates=("{}",), search=dataclasses.replace(FEW, rounds=0)))
    assert got["top1"] == got["templates_top1"] == got["single_top1"]
    assert prompts(("{}",), NAMES) == list(NAMES)


def test_what_is_missing_is_named():
    with pytest.raises(DataError, match="no descriptors of 'cat'"):
        run(asked(descriptors={"owl": ("wings",), "newt": ("wet",)}))
    label = np.zeros(4, np.int32)
    train = data(image=np.ones((4, 12)), label=label, class_names=NAMES)
    with pytest.raises(DataError, match="no image of 'cat', nor of 1 other"):
        run(asked(train=train))
