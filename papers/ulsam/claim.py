"""Emoji of one subgroup, drawn by a new house, told with subspace attention in place of layers.

A MobileNet-V1 of six separable layers stands on maps of the zoo's classifier and learns 131 emoji
from 1,000 of 1,500 drawings by two houses, 150 steps of 32. It is asked about 1,000 of 2,000
drawings by the third; an answer counts among the emoji of the right subgroup. In the method,
attention of four groups takes the place of two of the repeated layers, as the paper's does; stem,
other layers and head start alike and see the same batches. In the control every image is weighed
by the maps of the next one of its batch.

What the network without the two layers and without attention gets stands beside.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts import emoji_maps
from papers.ulsam.method import MobileNetV1
from vision.objectives.classify import Classify, cross_entropy, to_targets
from vision.papers.claims import Margin, Measured, Recorder, Scale, Side
from vision.train.objective import Aux, Context, Variables, apply, averaged, classified
from vision.train.tower import Tap, count_params

MARGIN = Margin(
    0.005, rule="half of the one point that fine-grained sets gain with a quarter fewer parameters"
)

COUNT, ASKED, STEPS, ROWS, RATE = 1500, 2000, 150, 32, 4e-3
REPEATED: tuple[tuple[int, int], ...] = ((64, 1), (96, 1), (96, 1), (96, 1), (96, 1), (128, 2))
ATTENDED = (2, 3)
SIX = tuple(range(6))
EXCHANGE = Tap(lambda _, maps: jnp.roll(maps, 1, 0), "block02/attention|block03/attention")


def tower(layers: tuple[tuple[int, int], ...] = REPEATED, **fields: Any) -> MobileNetV1:
    return MobileNetV1(layers=layers, stride=1, num_classes=131, head_zero_init=True, **fields)


class Exchanged(Classify):
    """Classification where attention weighs an image by the maps of the next of its batch."""

    def loss(self, variables: Variables, batch: Any, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx, tap=EXCHANGE)
        targets, labelled = to_targets(batch["label"], 131)
        losses = cross_entropy(out["logits"], targets, "softmax", self.label_smoothing)
        return averaged(losses, labelled & batch["_mask"], state)

    def predict(self, variables: Variables, batch: Any, ctx: Context) -> dict[str, jax.Array]:
        out, _ = apply(self.model, variables, batch["image"], ctx, tap=EXCHANGE)
        return classified(out["logits"], out["embedding"])


ATTENDING = Classify(tower(attention=ATTENDED), label_smoothing=0.1)
ARMS = {
    "attention": ATTENDING,
    "layers": Classify(tower(), label_smoothing=0.1),
    "exchanged": Exchanged(ATTENDING.model, label_smoothing=0.1),
    "fewer": Classify(tower(REPEATED[:2] + REPEATED[4:]), label_smoothing=0.1),
}


@functools.cache
def maps() -> tuple[emoji_maps.Drawn, emoji_maps.Drawn]:
    parts = emoji_maps.fine(COUNT, ASKED, side=(0.5, 0.7))
    x = emoji_maps.standardised(*(emoji_maps.maps(part["image"]) for part in parts))
    learned, asked = ({"image": a, "label": b["label"]} for a, b in zip(x, parts, strict=True))
    return learned, asked


def measure_seed(seed: int) -> dict[str, float]:
    rng, (learned, asked) = np.random.default_rng(seed), maps()
    part = rng.permutation(COUNT)[:1000]
    learned = {name: x[part] for name, x in learned.items()}
    part = rng.permutation(ASKED)[:1000]
    asked = {name: x[part] for name, x in asked.items()}
    row = {}
    for arm, objective in ARMS.items():
        variables = emoji_maps.fitted(objective, learned, seed, STEPS, ROWS, RATE)
        out = emoji_maps.predicted(objective, variables, asked)
        row[arm] = float(emoji_maps.right(out["logits"], asked["label"]).mean())
        row[f"{arm}_weights"] = count_params(variables.params)
    return row


def test_attention_takes_the_place_of_layers(record: Recorder):
    rows = [measure_seed(seed) for seed in SIX]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, layers = "top-1 within the subgroup, new house", side("all layers", "layers")
    record(
        claim="A MobileNet-V1 with subspace attention in the place of two layers tells emoji of "
        "one subgroup by a new house better than with the layers.",
        expected="undecided",
        compared=Measured(what, side("attention", "attention"), layers),
        margin=MARGIN,
        scale=Scale(chance=emoji_maps.chance()),
        control=Measured(what, side("maps of the next image", "exchanged"), layers),
        seeds=SIX,
        measured=[
            Measured(what, side("neither", "fewer"), layers),
            Measured(
                "parameters",
                side("attention", "attention_weights"),
                side("all layers", "layers_weights"),
            ),
        ],
    )
