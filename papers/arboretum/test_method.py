"""Arboretum: one kind of text per step, caps and rare species exact, ranks as they are defined."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.arboretum.capped import CappedClasses
from papers.arboretum.evaluator import Ranks
from papers.arboretum.method import OneKindOfText
from papers.arboretum.taxa import KINDS, TaxonTexts, read_taxa
from tests.evaluators.linear_dual import TOKENIZER, data, run, texts_of
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluators.image_text.zero_shot import ZeroShot
from vision.objectives.contrast import Contrast
from vision.train.objective import Context, Variables

TAXA = {
    "Felis catus": {
        "family": "Felidae",
        "genus": "Felis",
        "species": "catus",
        "common_name": "cat",
    },
    "Felis silvestris": {"family": "Felidae", "genus": "Felis", "species": "silvestris"},
    "Lynx lynx": {"family": "Felidae", "genus": "Lynx", "species": "lynx", "common_name": "lynx"},
    "Strix aluco": {"family": "Strigidae", "genus": "Strix", "species": "aluco"},
}


def test_texts_are_the_authors():
    cat, wild, *_ = read_taxa(TAXA, tuple(TAXA))
    assert {kind: cat.text(kind) for kind in KINDS} == {
        "scientific_name": "Felis catus",
        "common_name": "cat",
        "taxonomic_name": "Felidae Felis catus",
        "sci": "a photo of Felis catus.",
        "com": "a photo of cat.",
        "sci_com": "a photo of Felis catus with common name cat.",
        "taxon": "a photo of Felidae Felis catus.",
        "taxon_com": "a photo of Felidae Felis catus with common name cat.",
        "taxonTag": "a photo of family Felidae genus Felis species catus.",
        "taxonTag_com": "a photo of family Felidae genus Felis species catus with common name cat.",
    }
    assert wild.text("com") == "a photo of Felis silvestris."
    rng = np.random.default_rng(0)
    read = TaxonTexts(TAXA, tuple(TAXA), kinds=("com", "sci"))({"label": 2}, rng)
    assert read == {"label": 2, "caption": ("a photo of lynx.", "a photo of Lynx lynx.")}
    with pytest.raises(DataError, match="'label' is 4, not a species"):
        TaxonTexts(TAXA, tuple(TAXA))({"label": 4}, rng)


class Sums:
    """A dual encoder without parameters: texts and images are unit vectors of their numbers."""

    def apply(self, variables: Any, inputs: Any, **_: Any) -> Any:
        text = jax.nn.one_hot(inputs["text"], 8).sum(-2)
        out = {"image/embedding": inputs["image"], "text/embedding": text}
        return (inputs["image"], out), {}


def test_a_step_has_one_kind_and_is_contrast_on_it():
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.normal(size=(4, 8)).astype(np.float32),
        "text": rng.integers(0, 8, (4, 3, 5)).astype(np.int32),
        "text_cut": np.zeros((4, 3), np.int32),
        "_mask": np.ones(4, bool),
    }
    model: Any = Sums()
    ours, plain = OneKindOfText(model, seed=5), Contrast(model)
    learned = {"log_scale": jnp.float32(1.0)}
    variables = Variables({"model": {}, "contrast": learned}, {"model": {}}, {})
    kinds = jax.jit(jax.vmap(lambda step: ours.kind(step, 3)))(jnp.arange(60)).tolist()
    assert min(np.bincount(kinds, minlength=3)) > 10

    @functools.partial(jax.jit, static_argnums=0)
    def loss_of(objective: Contrast, given: Any, step: jax.Array) -> jax.Array:
        ctx = Context(step, 60, True, jax.random.key(0))
        embeddings, _ = objective.encode(variables, given, ctx)
        return objective.loss_from_embeddings(variables, embeddings, given, ctx)[0]

    for step in (0, kinds.index(1), kinds.index(2)):
        one = {**batch, **{name: batch[name][:, kinds[step]] for name in ("text", "text_cut")}}
        loss = loss_of(ours, batch, jnp.int32(step))
        np.testing.assert_allclose(loss, loss_of(plain, one, jnp.int32(step)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(4, 5\), and texts of several kinds"):
        ours.encode(variables, {**batch, "text": batch["text"][:, 0]}, Context.evaluation())


def test_rare_species_are_apart_and_frequent_ones_capped():
    counts = (3, 12, 40, 9)
    label = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3, -1], (*counts, 5)))
    source = Arrays({"label": label.astype(np.int32)}, "made")
    parts = {part: CappedClasses(source, 10, 20, part) for part in ("train", "rare")}
    kept = {part: np.bincount(label[c.chosen], minlength=4).tolist() for part, c in parts.items()}
    assert kept == {"train": [0, 12, 20, 0], "rare": [3, 0, 0, 9]}
    assert parts["train"].info.num_examples == len(parts["train"]) == 32
    again = CappedClasses(source, 10, 20, seed=1).chosen
    assert not np.array_equal(again, parts["train"].chosen)
    np.testing.assert_array_equal(CappedClasses(source, 10, 20).chosen, parts["train"].chosen)
    with pytest.raises(DataError, match="part='train' is empty: 4 classes have 3 to 40 records"):
        CappedClasses(source, 50).chosen  # noqa: B018


def asked(taxa: Any, noise: float = 0.4, **more: Any) -> Ranks:
    rng = np.random.default_rng(3)
    bank = texts_of([taxon.text("sci") for taxon in read_taxa(TAXA, tuple(TAXA))])
    label = rng.integers(0, 4, 80).astype(np.int32)
    x = bank[label] + noise * rng.normal(size=(80, 12))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    asked = data(image=x, label=label, class_names=tuple(TAXA))
    order = () if isinstance(taxa, str) else tuple(taxa)
    return Ranks(asked, TOKENIZER, taxa, order, **more)


def test_ranks_are_those_of_the_species_or_sums(tmp_path: Path):
    path = tmp_path / "taxa.json"
    path.write_text(json.dumps(TAXA))
    evaluator = asked(str(path))
    got = run(evaluator)
    plain = ZeroShot(evaluator.data, TOKENIZER, templates=("a photo of {}.",), mistakes=0)
    assert got["top1"] == got["species/of_species"] == got["species/summed"] == run(plain)["top1"]
    ranks = ("family", "genus", "species")
    ways = [got[f"{rank}/of_species"] for rank in ranks]
    assert ways == sorted(ways, reverse=True)
    assert ways[0] > ways[-1]
    # A softmax so cold that the likeliest species is all there is.
    cold = run(asked(TAXA, temperature=1e-5))
    for rank in ranks:
        assert cold[f"{rank}/summed"] == cold[f"{rank}/of_species"] == got[f"{rank}/of_species"]
    assert got["examples"] == 80
    x = np.stack([evaluator.data.source[i]["image"].ravel() for i in range(80)])
    label = np.array([evaluator.data.source[i]["label"] for i in range(80)])
    names = texts_of([f"a photo of {name}." for name in ("Felidae", "Strigidae")])
    assert got["family/named"] == np.mean((x @ names.T).argmax(1) == (label == 3))


def test_what_is_missing_is_named(tmp_path: Path):
    path = tmp_path / "taxa.json"
    for taxa, words in (
        ("[]", "must map scientific names"),
        ('{"A b": {"genus": "A"}, "C d": {"family": "C"}}', r"'C d' has the ranks \['family'\]"),
        ('{"A b": {"genus": " "}}', "'A b' has an empty name"),
        ('{"A b": ["A"]}', "'A b' needs an object"),
    ):
        path.write_text(taxa)
        with pytest.raises(DataError, match=words):
            read_taxa(str(path))
    with pytest.raises(DataError, match="nowhere"):
        read_taxa("nowhere.json")
    with pytest.raises(DataError, match="have no order of their own: give class_names"):
        read_taxa(TAXA)
    with pytest.raises(DataError, match="taxa: no species 'A b', nor 1 others"):
        read_taxa(TAXA, ("A b", "Felis catus", "C d"))


def test_the_order_is_that_of_the_labels_and_ranks_begin_at_the_root():
    """A mapping comes out of a config sorted by its keys."""
    order = ("Strix aluco", "Felis catus")
    mixed = {name: dict(sorted(TAXA[name].items(), reverse=True)) for name in sorted(order)}
    owl, cat = read_taxa(mixed, order)
    assert owl.scientific_name == "Strix aluco"
    assert [rank for rank, _ in cat.ranks] == ["family", "genus", "species"]
    with pytest.raises(DataError, match="label 3 is none of the 3 species"):
        run(asked({name: TAXA[name] for name in list(TAXA)[:3]}))
