"""Queries about relations of two objects, against queries about one object.

The gallery is 5,000 scenes of two things; the predicates are the scene's own record, so that all
matches are known, as in INQUIRE. Queries of both kinds have 30 to 90 matches, so that AP@50 is of
similar difficulty by chance, and their words occur in training captions. The claim is ours: the
paper's finding that queries about context and behaviour are harder than those about appearance,
as 2 points of mAP@50.

It did not hold: relations were found far better. To be as rare as a "small red star", a relation
here names two colours and nothing else of the two things, so that rarity does not make the two
kinds alike; this says little against the paper. A first try, on captions of 40 tokens and with 250
steps, found hardly anything of either kind (mAP@50 0.03 and 0.01), so captions and steps, not the
margin, were changed once.

The card's proof, reranking by a head that matches image and text, needs a model that reads both at
once, which is not here yet. The definitions of the metrics are compared with the paper's, in terms
of scikit-learn: those agree.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import sklearn
from sklearn.metrics import average_precision_score, ndcg_score

from configs.parts.small_dual import (
    dual,
    embed,
    images,
    tokenizer,
    world,
)
from configs.parts.small_pairs import COLOURS, SHAPES, SIZES, transformer
from papers.inquire.method import full_rank, retrieval_metrics
from vision.blocks.ranking import Places, rank
from vision.config.specs import spec
from vision.data import ops
from vision.data.sources.arrays import Arrays
from vision.data.sources.scenes import Parse, Scene, agrees, describe, parse, write
from vision.papers.claims import SEEDS, Margin, Measured, Parity, Recorder, Scale, Side, train

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")

LENGTH, GALLERY, QUERIES, STEPS = 20, 5000, 30, 400
PHRASES = ("is above", "is to the left of")  # those that captions of scenes use
TWO = {"caption": "caption_long", "num_objects": (2, 2)}


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random part of size, colour and shape of both things and of how they stand."""
    parsed = describe(scene, "long")
    plain = {"position": None, "variant": None, "texture": None}
    mentions = tuple(dataclasses.replace(each, **plain) for each in parsed.mentions)
    example = {"caption": write(Parse(mentions, parsed.relations))}
    return ops.ShortenCaption(feature="caption", share=(0.3, 1.0))(example, rng)["caption"]


@functools.cache
def stories(split: str, num_examples: int) -> Arrays:
    """Scenes drawn once, ``image`` and ``text``."""
    source = world(split, num_examples, **TWO)
    scenes = [source.scene(i) for i in range(num_examples)]
    texts = [partial_caption(scene, np.random.default_rng(i)) for i, scene in enumerate(scenes)]
    ids = np.asarray(tokenizer(LENGTH).encode(texts), np.int32)
    return Arrays({"image": images(scenes), "text": ids}, f"{split} scenes")


def candidates() -> dict[str, list[str]]:
    """Queries by category, in a fixed random order."""
    rng = np.random.default_rng(0)
    things = [
        f"a {size} {colour} {shape}"
        for size, colour, shape in itertools.product(SIZES, COLOURS, SHAPES)
    ]
    stands = [
        f"a {a} thing and a {b} thing. the {a} thing {phrase} the {b} thing".replace(
            "a orange", "an orange"
        )
        for a, b in itertools.permutations(COLOURS, 2)
        for phrase in PHRASES
    ]
    return {
        "things": [things[i] for i in rng.permutation(len(things))],
        "relations": [stands[i] for i in rng.permutation(len(stands))],
    }


def test_relations_are_harder_than_things(record: Recorder):
    source = world("gallery", GALLERY, **TWO)
    scenes = [source.scene(i) for i in range(GALLERY)]
    texts: list[str] = []
    relevant: list[np.ndarray] = []
    categories: list[str] = []
    for category, sentences in candidates().items():
        for sentence in sentences:
            if categories.count(category) == QUERIES:
                break
            meaning = parse(sentence)
            matches = np.flatnonzero([agrees(meaning, scene) for scene in scenes])
            if 30 <= len(matches) <= 90:
                texts.append(sentence)
                relevant.append(matches)
                categories.append(category)
    pictures, ids = images(scenes), np.asarray(tokenizer(LENGTH).encode(texts))
    chance = full_rank(*random_vectors(len(texts)), relevant, categories)

    results = []
    for seed in SEEDS:
        data = spec(stories, split="train", num_examples=8000)
        run = train(dual(data, transformer(tokenizer(LENGTH)), STEPS), seed)
        embedded = embed(run, "text", ids), embed(run, "image", pictures)
        results.append(full_rank(*embedded, relevant, categories))

    def side(name: str, category: str, metric: str) -> Side:
        return Side(name, tuple(each[category][metric] for each in results))

    relations = {m: side("relations", "relations", m) for m in ("map", "ndcg", "mrr")}
    things = {m: side("things", "things", m) for m in ("map", "ndcg", "mrr")}
    error = largest_error()
    assert error < 1e-12
    record(
        claim="A dual encoder ranks images for queries about relations worse than for queries "
        "about things of the same rarity.",
        expected="undecided",
        compared=Measured(f"mAP@50 of {GALLERY}", things["map"], relations["map"]),
        margin=MARGIN,
        scale=Scale(chance=max(each["map"] for each in chance.values())),
        control=None,
        measured=[
            Measured(f"nDCG@50 of {GALLERY}", relations["ndcg"], things["ndcg"]),
            Measured("MRR", relations["mrr"], things["mrr"]),
            Measured(
                "mAP@50 of random vectors",
                *(Side(name, (chance[name]["map"],)) for name in ("relations", "things")),
            ),
        ],
        parity=Parity("scikit-learn", sklearn.__version__, error),
    )


def random_vectors(queries: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(queries, 16)), rng.normal(size=(GALLERY, 16))


def largest_error() -> float:
    """Of AP@k and nDCG@k against the paper's words: scikit-learn's average precision of the first
    k times hits / min(N, k); its nDCG of the first k with the unseen positives at the bottom."""
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(100):
        size, k = int(rng.integers(60, 200)), int(rng.integers(5, 50))
        positive = rng.random(size) < rng.uniform(0.02, 0.5)
        if not positive.any():
            continue
        vectors = rng.normal(size=(size, 4)), rng.normal(size=(1, 4))
        scores = (vectors[0].astype(np.float32) @ vectors[1].astype(np.float32).T)[:, 0]
        places = rank(vectors[1], vectors[0], lambda _: np.flatnonzero(positive))  # noqa: B023
        ours = retrieval_metrics(places, k)
        shown = positive[np.argsort(-scores, kind="stable")][:k]
        hits, falling = shown.sum(), -np.arange(k, dtype=float)
        precision = average_precision_score(shown, falling) if hits else 0.0
        unseen = int(positive.sum() - hits)
        gains = np.concatenate([shown, np.ones(unseen)])
        order = np.concatenate([falling, np.full(unseen, -1.0 - k) - np.arange(unseen)])
        worst = max(
            worst,
            abs(ours["map"] - precision * hits / min(positive.sum(), k)),
            abs(ours["ndcg"] - ndcg_score([gains], [order], k=k)),
        )
    return worst


def test_average_precision_of_the_card():
    """Relevances 1, 0, 1 with four relevant images."""
    places = Places(np.array([[0, 2, 7, 9]]), np.array([4]))
    assert retrieval_metrics(places, 3)["map"] == np.float64((1 + 2 / 3) / 3)
