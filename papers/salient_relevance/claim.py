"""Relevance of the zoo's classifier of emoji, and its salience, beside the drawing's exact mask.

The tower is frozen; for every seed a head is fitted that names the group of a drawing, and the map
of relevance for the right group, and its salience, are compared with the mask pixel by pixel. The
control is the salience of another drawing's relevance. That relevance adds up to the logit, and
with epsilon zero is the gradient times the input, are tests.

The drawings take up half of the side, so that relevance alone leaves room: of scenes with one plain
object it was on the object already, 0.958 of AUROC, and nothing could be 0.05 above that.

Held: 0.925 beside 0.856, and 0.717 by another drawing's relevance. Salience is one part where
relevance falls into 27.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.emoji_tower import drawings, head, trained
from papers.salient_relevance import captum
from papers.salient_relevance.method import Relevance, SalientRelevance
from vision.metrics.localisation import parts, pixel_auroc
from vision.papers.claims import SEEDS, Margin, Measured, Parity, Recorder, Scale, Side
from vision.train.tower import Tap

MARGIN = Margin(0.02, rule="the authors show pictures and report no number: 0.02 of AUROC")
LEARNED, ASKED, THRESHOLD = 600, 60, 0.15
SALIENT = SalientRelevance(side_px=24)


@jax.jit
def maps(
    weight: jax.Array, bias: jax.Array, images: jax.Array, label: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Relevance and its salience, both (N, H, W)."""

    def asked(images: jax.Array, tap: Tap | None = None) -> jax.Array:
        logits = trained().embedding(images, tap) @ weight + bias
        return jnp.take_along_axis(logits, label[:, None], 1)[:, 0]

    return Relevance()(asked, images), SALIENT(asked, images)


def measure_seed(seed: int) -> dict[str, float]:
    train = drawings("train", seed, LEARNED, imbalance="none")
    test = drawings(
        *("test", seed, ASKED),
        side=(0.4, 0.6),
        imbalance="none",
        features=("image", "label", "masks"),
    )
    fitted = head(trained().features(train["image"]), train["label"])
    weight, bias = jnp.asarray(fitted.weight, jnp.float32), jnp.asarray(fitted.bias, jnp.float32)
    relevance, salience = map(np.asarray, maps(weight, bias, test["image"], test["label"]))
    heats = {"relevance": relevance, "salience": salience, "another": np.roll(salience, 1, 0)}
    row = {
        name: float(
            np.mean([pixel_auroc(x, m[0]) for x, m in zip(heat, test["masks"], strict=True)])
        )
        for name, heat in heats.items()
    }
    return row | {
        f"{name} parts": float(np.mean([parts(x, THRESHOLD)[1] for x in heat]))
        for name, heat in heats.items()
    }


def test_salience_is_nearer_to_the_mask(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, relevance = "pixel AUROC", side("|R|", "relevance")
    away = max(error for name, error in captum.errors().items() if "lrp" in name)
    record(
        claim="Pixel by pixel salient relevance is nearer to the drawing's mask than relevance.",
        expected="held",
        compared=Measured(what, side("SR", "salience"), relevance),
        margin=MARGIN,
        scale=Scale(chance=0.5),
        control=Measured(what, side("SR of another drawing", "another"), relevance),
        measured=[
            Measured("parts of a map", side("SR", "salience parts"), side("|R|", "relevance parts"))
        ],
        parity=Parity("captum", "0.9.0", away),
    )
