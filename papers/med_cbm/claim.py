"""Groups of emoji told by concepts, where the house that drew them misleads.

A dual encoder on frozen ImageNet features learns half of all emoji, drawn by three houses, from
captions of names and keywords, 600 steps of 256 pairs. Of three tenths of the emoji seven groups
are learned; here the house is what the hospital is in the paper: 95 % of four groups are drawn by
Noto and 95 % of the other three by Fluent. The remaining fifth, whole families of other emoji, is
asked with the houses reversed. Concepts of a group are the six commonest keywords of the encoder's
emoji, none with a word of a group's name, each once; no keyword says who drew. The baseline is the
same classifier on the encoder's embedding, with the same choice of its decay. In the control the
concepts' vectors have their 64 coordinates permuted, all by one
permutation, so that they are as many, as long and as alike as before but about nothing.

The rate of 95 % is the card's. Of seeds 100 and 101, which are not measured here, the baseline
alone was looked at, to be above twice chance: 0.49 and 0.39.

Undecided, and rather worse than better: 0.440 beside 0.476, an interval of -8.3 to 1.2 points. An
embedding that was learned from captions has already lost most of the house, and 42 concepts are
less than the embedding: with the houses as in training they have 0.498 beside 0.569. Against the
frozen features under the encoder, which never saw a text, they have 0.440 beside 0.412. Permuted,
which are as many directions about nothing, 0.412.
"""

from __future__ import annotations

import collections

import jax.numpy as jnp
import numpy as np

from configs.parts.emoji_features import (
    THINGS,
    Drawn,
    caption_ids,
    drawings,
    ids_of,
    image_vectors,
    learned,
    numbered,
    text_vectors,
)
from vision.data.sources.emoji import GROUPS, index, names
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side
from vision.probes.concepts import DECAYS, concept_list, fit_bottleneck, fit_chosen

MARGIN = Margin(
    0.05,
    rule="half of ten points, the least that the paper's tens of points can mean (unconfirmed)",
)
STEPS, RATE, EACH = 600, 0.95, 6
MISLED = 4  # groups that are drawn by the first house


def places(data: Drawn, seed: int) -> np.ndarray:
    """float (N,) in 0..1, by which emoji are dealt out: one number for a family."""
    family = np.array([index().emoji[k].family for k in data.emoji])
    kinds, number = np.unique(family, return_inverse=True)
    return (np.random.default_rng([seed, 189]).permutation(len(kinds)) / len(kinds))[number]


def keywords(data: Drawn) -> dict[str, tuple[str, ...]]:
    """The commonest keywords of each group, the first of equally common ones by the alphabet."""
    parts = [part for name in THINGS for part in (*name.split("-"), name)]
    found: dict[str, tuple[str, ...]] = {}
    for name in THINGS:
        counts = collections.Counter[str]()
        for k in np.unique(data.emoji[data.group == GROUPS.index(name)]):
            counts.update({word for word in names("en")[k][1:] if len(word) > 2})
        kept, _ = concept_list({name: sorted(counts, key=lambda w: (-counts[w], w))}, parts)
        taken = {word for words in found.values() for word in words}
        found[name] = tuple(word for word in kept if word not in taken)[:EACH]
    return found


def measure_seed(seed: int) -> dict[str, float]:
    data = drawings()
    place, label = places(data, seed), numbered(data.group)
    taught = data.take(place < 0.5)
    w = learned(seed, taught.x, caption_ids(taught.emoji, 4, seed), STEPS)
    x = np.asarray(image_vectors(w, jnp.asarray(data.x)))

    rng = np.random.default_rng([seed, 190])
    usual = rng.random(len(index().emoji))[data.emoji] < RATE
    first, second = data.by("noto"), data.by("fluent")
    train = (place >= 0.5) & (place < 0.8) & np.where((label < MISLED) == usual, first, second)
    later = place >= 0.8
    reversed_ = later & np.where(label < MISLED, second, first)
    alike = later & np.where(label < MISLED, first, second)

    concepts, _ = concept_list(keywords(taught))
    vectors = np.asarray(text_vectors(w, jnp.asarray(ids_of(concepts))))

    def accuracies(name: str, fitted: np.ndarray, logits) -> dict[str, float]:
        return {
            f"{name}{part}": float(np.mean(logits(fitted[rows]).argmax(1) == label[rows]))
            for part, rows in (("", reversed_), (" alike", alike))
        }

    def bottleneck(name: str, vectors: np.ndarray) -> dict[str, float]:
        scores = x @ vectors.T
        model = fit_bottleneck(scores[train], label[train], len(THINGS), concepts)
        return accuracies(name, scores, model.logits)

    def probe(name: str, z: np.ndarray) -> dict[str, float]:
        z = (z - z[train].mean(0)) / z[train].std(0)
        model, _, _ = fit_chosen(z[train], label[train], len(THINGS), DECAYS)
        return accuracies(name, z, model.logits)

    return {
        **bottleneck("concepts", vectors),
        **bottleneck("permuted", vectors[:, rng.permutation(vectors.shape[1])]),
        **probe("embedding", x),
        **probe("features", data.x),
        "count": len(concepts),
    }


def test_concepts_do_not_see_who_drew(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = "accuracy of seven groups of emoji, houses reversed"
    probe = side("embedding", "embedding")
    record(
        claim="Where the house that drew a training image misleads about its class, a linear "
        "classifier of concept scores is more accurate than one of the embedding itself.",
        expected="undecided",
        compared=Measured(what, side("concepts", "concepts"), probe),
        margin=MARGIN,
        scale=Scale(chance=1 / len(THINGS)),
        control=Measured(f"{what}, permuted concepts", side("permuted", "permuted"), probe),
        measured=[
            Measured(
                "accuracy, houses as in training",
                side("concepts", "concepts alike"),
                side("embedding", "embedding alike"),
            ),
            Measured(what, side("concepts", "concepts"), side("features", "features")),
            Measured("concepts", side("concepts", "count")),
        ],
    )
