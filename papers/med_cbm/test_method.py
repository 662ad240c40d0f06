"""Concepts: terms and bias are the logit, all directions are the probe, patches are read by tap."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.med_cbm.method import SCORES, ConceptProbe, Scored, explanations
from tests.evaluators.linear_dual import TOKENIZER, data, predict, run, texts_of
from vision.blocks.sites import SiteError
from vision.data.source import DataError
from vision.evaluators.features.probe import LinearProbe
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.probes.concepts import (
    ConceptBottleneck,
    ConceptError,
    concept_list,
    fit_bottleneck,
)
from vision.train.objective import Variables

NAMES = ("owl", "cat", "newt")
CONCEPTS = {"owl": ("round eyes", "has wings"), "cat": ("fur",), "newt": ("a tail", "wet")}
TEXTS = texts_of([text for texts in CONCEPTS.values() for text in texts])
RNG = np.random.default_rng(0)


def images(count: int, noise: float = 0.3) -> dict[str, Any]:
    label = np.arange(count).astype(np.int32) % 3
    x = TEXTS[np.array([0, 2, 3])[label]] + noise * RNG.normal(size=(count, 12))
    return {"image": x / np.linalg.norm(x, axis=1, keepdims=True), "label": label}


def probe(**more: Any) -> ConceptProbe:
    given = {
        "train": data(class_names=NAMES, **images(60)),
        "test": data(class_names=NAMES, **images(42), place=np.arange(42, dtype=np.int32) % 2),
        "tokenizer": TOKENIZER,
        "concepts": CONCEPTS,
    }
    return ConceptProbe(**{**given, **more})


@pytest.fixture(scope="module")
def fitted() -> tuple[ConceptBottleneck, np.ndarray]:
    rows = images(80)
    raw = rows["image"] @ TEXTS.T
    concepts, _ = concept_list(CONCEPTS)
    return fit_bottleneck(raw, rows["label"], 3, concepts), raw


def test_terms_and_bias_are_the_logit_and_a_concept_takes_its_term_with_it(fitted: Any):
    model, raw = fitted
    terms = model.contributions(raw)
    np.testing.assert_allclose(terms.sum(1) + model.bias, model.logits(raw), atol=1e-9)
    np.testing.assert_allclose(terms.mean(0), 0, atol=1e-6)  # scores are standardised
    without = model.without(["fur", "wet"])
    np.testing.assert_allclose(
        model.logits(raw) - without.logits(raw), terms[:, [2, 4]].sum(1), atol=1e-9
    )
    np.testing.assert_allclose(
        model.without(model.concepts).logits(raw), np.broadcast_to(model.bias, (80, 3))
    )
    with pytest.raises(ConceptError, match="no concept 'gills' among the 5"):
        model.without(["gills"])


def test_raw_scores_may_be_of_any_unit(fitted: Any):
    """A score is standardised: another unit or zero point of it changes no logit."""
    model, raw = fitted
    label = np.arange(80) % 3
    scale, shift = RNG.uniform(0.5, 20, 5), RNG.normal(size=5)
    other = fit_bottleneck(raw * scale + shift, label, 3, model.concepts)
    np.testing.assert_allclose(other.logits(raw * scale + shift), model.logits(raw), atol=2e-3)


def test_few_concepts_are_the_largest_of_all_fitted_again(fitted: Any):
    model, raw = fitted
    label = np.arange(80) % 3
    few = fit_bottleneck(raw, label, 3, model.concepts, most=3)
    kept = np.flatnonzero(few.weight.any(1))
    size = np.linalg.norm(fit_bottleneck(raw, label, 3, model.concepts).weight, axis=1)
    assert set(kept) == set(np.argsort(-size)[:3])
    alone = fit_bottleneck(raw[:, kept], label, 3, [model.concepts[j] for j in kept])
    np.testing.assert_allclose(few.weight[kept], alone.weight, atol=1e-6)


def test_lists_have_each_concept_once_and_none_that_names_a_class():
    described = {"owl": ("Wings", "an owl's eyes", "round eyes"), "cat": ("wings", "catlike")}
    assert concept_list(described) == (("Wings", "round eyes", "catlike"), (0, 0, 1))
    with pytest.raises(ConceptError, match="no concept is left of the lists of 2 classes"):
        concept_list({"owl": ("an owl",), "cat": ()})


def test_the_evaluator_computes_what_its_parts_do():
    evaluator = probe(group="place", explained=2, shown=2)
    got = run(evaluator, 8)

    def rows(part: Any) -> tuple[np.ndarray, np.ndarray]:
        records = [part.source[i] for i in range(len(part.source))]
        x = np.stack([each["image"].reshape(-1) for each in records])
        return x, np.array([each["label"] for each in records])

    (x, label), (asked, truth) = rows(evaluator.train), rows(evaluator.test)
    concepts, _ = concept_list(CONCEPTS)
    model = fit_bottleneck(x @ TEXTS.T, label, 3, concepts)
    right = model.logits(asked @ TEXTS.T).argmax(1) == truth
    assert got["top1"] == right.mean() > 0.6
    assert got["worst_group"] == min(right[::2].mean(), right[1::2].mean())
    linear = run(LinearProbe(evaluator.train, evaluator.test))
    assert abs(got["probe_top1"] - linear["top1"]) <= 0.1  # other scale of decays
    assert got["name_top1"] < got["top1"]
    assert (got["concepts"], got["examples"]) == (5, 42)
    assert [row[:2] for row in got["weights"].rows][2] == ("fur", "cat")
    table = got["explanations"].rows
    assert len(table) == 6
    added = sum(float(row[4]) for row in table[:3])
    assert added == pytest.approx(model.logits(asked[:1] @ TEXTS.T).max(), abs=5e-3)


def test_as_many_directions_as_the_embedding_has_are_the_probe():
    """Scores of a basis turn the embedding: with hardly a penalty both are one classifier."""
    rows = images(90, noise=0.8)
    turn = np.linalg.qr(RNG.normal(size=(12, 12)))[0]
    names = [str(i) for i in range(12)]
    answers = [
        fit_bottleneck(x, rows["label"], 3, names, decays=(1e-7,)).logits(x).argmax(1)
        for x in (rows["image"], rows["image"] @ turn)
    ]
    assert np.mean(answers[0] == answers[1]) > 0.97


def test_an_explanation_of_one_concept_is_its_term():
    model = ConceptBottleneck(
        ("fur",), np.array([1.0]), np.array([2.0]), np.array([[3.0, 0.0]]), np.zeros(2), 1.0, 1.0
    )
    table = explanations(model, np.array([[5.0]]), ["cat"], ("cat", "owl"), 1)
    assert table.rows[0] == ("0", "cat", "cat", "fur", "+6.000")
    assert table.rows[1][3:] == ("all others and the bias", "+0.000")


TOWERS: dict[str, Any] = {
    "vit": (ViT(width=12, depth=1, heads=2, patch=4), "tokens", 1),
    "resnet": (ResNet(depth=18, width_multiplier=0.125), "map", 0),
    "convnext": (ConvNeXt(depths=(1, 1), dims=(4, 8)), "map", 0),
}


@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
def test_patches_of_any_tower_are_scored(kind: str):
    tower, site, prefix = TOWERS[kind]
    image = jnp.zeros((2, 32, 32, 3))
    shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), image))

    def forward(variables: Any, batch: Any, tap: Any = None) -> dict[str, jax.Array]:
        embedding, out = tower.apply(variables.params, batch["image"], tap=tap)
        return {"image/embedding": embedding, **out}

    variables = Variables(shapes, {}, {})
    width = jax.eval_shape(forward, variables, {"image": image})["map"].shape[-1]
    vectors = np.ones((5, width), np.float32)
    scored = Scored(forward, vectors, site, prefix)
    found = jax.eval_shape(scored, variables, {"image": image})
    assert found[SCORES].shape == (2, 5)
    with pytest.raises(SiteError, match="'nowhere', but the tower has"):
        jax.eval_shape(Scored(forward, vectors, "nowhere"), variables, {"image": image})
    with pytest.raises(ValueError, match="the texts' have 7"):
        jax.eval_shape(Scored(forward, np.ones((5, 7)), site, prefix), variables, {"image": image})


def test_the_likest_patch_counts_and_the_prefix_does_not():
    patches = jnp.asarray(RNG.normal(size=(2, 5, 12)), jnp.float32)

    def forward(variables: Any, batch: Any, tap: Any = None) -> dict[str, jax.Array]:
        return {"image/embedding": tap("image/tokens", patches)[:, 0]}

    scores = np.asarray(patches)[:, 1:] @ TEXTS.T
    likest = Scored(forward, TEXTS, "image/tokens", 1)(Variables({}, {}, {}), {})
    np.testing.assert_allclose(likest[SCORES], scores.max(1), rtol=1e-5)
    mean = Scored(forward, TEXTS, "image/tokens", 1, "mean")(Variables({}, {}, {}), {})
    np.testing.assert_allclose(mean[SCORES], scores.mean(1), rtol=1e-5, atol=1e-6)
    whole = Scored(predict, TEXTS)(Variables({"scale": 1.0}, {}, {}), {"image": jnp.eye(3, 12)})
    np.testing.assert_allclose(whole[SCORES], TEXTS.T[:3], rtol=1e-5)


def test_what_is_missing_is_named():
    with pytest.raises(DataError, match="no descriptors of 'newt'"):
        run(probe(concepts={"owl": ("x",), "cat": ("y",)}))
    with pytest.raises(ConceptError, match="no concept is left"):
        run(probe(concepts={name: (f"a {name}",) for name in NAMES}))
    rows = images(9)
    with pytest.raises(ConceptError, match="9 labelled images: every tenth is held out"):
        run(probe(train=data(class_names=NAMES, **rows)))
    outside: dict[str, Any] = {**images(20), "label": np.full(20, 3, np.int32)}
    with pytest.raises(DataError, match=r"made: .*label"):
        run(probe(train=data(**outside), class_names=NAMES))
    with pytest.raises(ConceptError, match=r"scores \(4, 2\) of 1 concepts"):
        fit_bottleneck(np.zeros((4, 2)), np.arange(4) % 2, 2, ["x"])
