"""The zoo's classifier of emoji, 79 subgroups, and as many looks at it for both encodings.

An evolution has 16 generations of 80 children, from random genomes of every seed; images have 48
pixels. Compared are median confidences over the 79 classes. The control has patterns whose pixels
are in one random order, the same for all images: the same genomes and colours, without what lies
beside what. That the network tells subgroups, at ten times chance, is the premise.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from configs.parts.emoji import GROUPS
from configs.parts.emoji_tower import drawings, subgroups, trained
from papers.fooling.encodings import Encoding, Genomes, Patterns, Pixels, Shape
from papers.fooling.method import MapElites, begun, evolved
from vision.metrics.out_of_distribution import max_softmax
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.33, rule="half of 88.11 - 21.59 %, the medians over ImageNet's classes")
CLASSES, WIDTH, SHAPE, ASKED = 79, 192, (48, 48, 3), 300


@dataclasses.dataclass(frozen=True)
class Shuffled(Patterns):
    """Patterns whose pixels are in one random order."""

    def render(self, genomes: Genomes, shape: Shape) -> jax.Array:
        height, width, channels = shape
        order = np.random.default_rng(0).permutation(height * width)
        images = super().render(genomes, shape)
        flat = images.reshape(len(images), height * width, channels)
        return flat[:, order].reshape(images.shape)


@functools.cache
def program(encoding: Encoding) -> Any:
    search = MapElites(encoding, generations=16, children=80)

    # The head as a kernel and a bias, which is all that a program can trace.
    bias = subgroups(np.zeros((1, WIDTH), np.float32))
    kernel = subgroups(np.eye(WIDTH, dtype=np.float32)) - bias

    def logits(images: jax.Array) -> jax.Array:
        return trained().embedding(2 * images - 1) @ kernel + bias

    @jax.jit
    def confidences(key: jax.Array) -> jax.Array:
        state = begun(search, key, CLASSES, SHAPE)
        return evolved(search, logits, state, SHAPE, search.generations)[1]

    return confidences


def measure_seed(seed: int) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, encoding in (
        ("pixels", Pixels()),
        ("patterns", Patterns()),
        ("shuffled", Shuffled()),
    ):
        history = np.asarray(program(encoding)(jax.random.key(seed)))
        row[name], row[f"{name} first"] = (float(np.median(history[i])) for i in (-1, 0))
    real = drawings("test", seed, ASKED, groups=GROUPS, label="subgroup")
    said = np.asarray(subgroups(trained().features(real["image"])))
    row["sure"] = float(np.median(max_softmax(said)))
    row["right"] = float(np.mean(said.argmax(1) == real["label"]))
    return row


def test_patterns_fool_sooner_than_pixels(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, patterns = "median confidence over classes", side("patterns", "patterns")
    record(
        claim="After as many looks at a classifier, it is surer of evolved patterns than of "
        "evolved pixels.",
        expected="undecided",
        compared=Measured(what, patterns, side("pixels", "pixels")),
        margin=MARGIN,
        scale=Scale(),
        premises=[Premise("accuracy on drawings", side("", "right").values, at_least=10 / CLASSES)],
        control=Measured(
            f"{what}, pixels in a random order",
            side("patterns", "shuffled"),
            side("pixels", "pixels"),
        ),
        measured=[
            Measured(what, patterns, side("drawings, of any class", "sure")),
            Measured(
                what, side("patterns", "patterns"), side("first generation", "patterns first")
            ),
        ],
    )
