"""Drawings by a new house, by texts that one drawing of each class has found, or by all texts.

A dual encoder on frozen ImageNet features learns the emoji of one house from captions of a name and
up to three keywords, 300 steps of 256 pairs. Every seed asks for 100 of those emoji. Templates are
the name alone and the name with one of the 23 most frequent keywords; the descriptions of a class
are the name with each of its keywords, and for every three of them two with keywords of other
emoji, which are wrong. The search sees the second house's drawing of every class, and the third
house's are asked. The baseline is the mean of all templates and descriptions, equally weighed; the
control searches with the labels of the one drawing dealt out among the classes.

Undecided: 29.8 beside 28.8 %, an interval of -1.0 to 3.0 points; 25.8 by templates alone, 23.8 with
labels dealt out. Of the descriptions that were taken 32.5 % are wrong, of those given 37.5. A third
search, of a fitness without entropy, gave 29.8 too; it was left out for the time that it took.
"""

from __future__ import annotations

import collections

import jax.numpy as jnp
import numpy as np

from configs.parts.emoji_features import (
    SCALE,
    caption_ids,
    drawings,
    ids_of,
    image_vectors,
    learned,
    text_vectors,
)
from papers.proapo.method import Search, optimise
from papers.proapo.search import Fitness, Plan
from vision.data.sources.emoji import names
from vision.evaluators.image_text.embeddings import normalised
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="the paper's margins are unconfirmed: 2 points")
CLASSES, TEMPLATES = 100, 24
PLANS = Plan(), Plan(epochs=4, mutations=4)
SEARCH = Search(Fitness(0.5, 0.05, 10.0, SCALE), Fitness(0.0, 0.2, 10.0, SCALE), *PLANS)


def templates() -> list[str]:
    """What is said after the name: nothing, or a keyword."""
    counts = collections.Counter(word for texts in names("en") for word in texts[1:])
    return ["", *(word for word, _ in counts.most_common(TEMPLATES - 1))]


def measure_seed(seed: int) -> dict[str, float]:
    rng, every = np.random.default_rng(seed), drawings()
    data = every.take(~every.unseen & every.by("noto"))
    w = learned(seed, data.x, caption_ids(data.emoji, 8, seed))
    drawn = [set(every.emoji[~every.unseen & every.by(house)]) for house in ("twemoji", "fluent")]
    both = sorted(set(data.emoji) & drawn[0] & drawn[1])
    classes = np.sort(rng.choice(both, CLASSES, replace=False))
    told = [names("en")[k] for k in classes]

    def images(house: str) -> tuple[np.ndarray, np.ndarray]:
        part = every.take(np.isin(every.emoji, classes) & every.by(house))
        found = np.asarray(image_vectors(w, jnp.asarray(part.x)))
        return found, np.searchsorted(classes, part.emoji)

    def embedded(texts: list[str]) -> np.ndarray:
        return np.asarray(text_vectors(w, jnp.asarray(ids_of(texts))))

    bank = embedded([f"{name} {word}" for word in templates() for name, *_ in told])
    bank = bank.reshape(TEMPLATES, CLASSES, -1)
    texts, describes, wrong = [], [], []
    for k, (name, *keywords) in enumerate(told):
        of_others = [word for i, own in enumerate(told) if i != k for word in own[1:]]
        strange = list(rng.choice(of_others, len(keywords) * 2 // 3))
        for word in (*keywords, *strange):
            texts.append(f"{name} {word}")
            describes.append(k)
        wrong += [False] * len(keywords) + [True] * len(strange)
    described, owners, is_wrong = embedded(texts), np.array(describes), np.array(wrong)
    one, label = images("twemoji")
    asked, true = images("fluent")

    def top1(vectors: np.ndarray) -> float:
        return float(np.mean((asked @ vectors.T).argmax(1) == true))

    total = bank.sum(0)
    np.add.at(total, owners, described)
    found = optimise(bank, described, owners, one, label, SEARCH, seed)
    dealt = optimise(bank, described, owners, one, rng.permutation(label), SEARCH, seed)
    return {
        "found": top1(found.classes),
        "all": top1(normalised(total)),
        "dealt": top1(dealt.classes),
        "templates": top1(found.by_templates),
        "name": top1(bank[0]),
        "wrong": float(is_wrong[found.descriptions].mean()) if found.descriptions.any() else 0.0,
        "given": float(is_wrong.mean()),
    }


def test_search_finds_texts_that_suit(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = f"zero-shot accuracy of {CLASSES} emoji by a new house"
    everything, found = side("mean of all texts", "all"), side("texts that were found", "found")
    record(
        claim="Texts found by evolution with one drawing of each class name more drawings of "
        "another house than the mean of all texts.",
        expected="undecided",
        compared=Measured(what, found, everything),
        margin=MARGIN,
        scale=Scale(chance=1 / CLASSES),
        control=Measured(what, side("labels dealt out", "dealt"), everything),
        measured=[
            Measured(what, found, side("templates alone", "templates")),
            Measured(what, found, side("the name alone", "name")),
            Measured("share of wrong sentences", side("taken", "wrong"), side("given", "given")),
        ],
        seeds=SEEDS,
    )
