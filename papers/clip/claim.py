"""Contrast with captions, against predicting the words of captions.

Captions of emoji by two houses, a name with up to three of its keywords, teach a tower on frozen
ImageNet features, 300 steps of 256 drawings: by CLIP's loss and a text tower, or, as the paper's
own baseline, by a yes or no for every word of the vocabulary. Then drawings of emoji that neither
has seen are named, of all unseen emoji, by the nearest name or by the name whose words are the
likeliest in the mean. The control learns by contrast from captions of other drawings.

Steps and images are the same for both, and so is the tower up to its last layer, which gives 64
numbers or one for every word.

Undecided: 7.2 % by either, where chance is 0.4.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.digit_mlp import Weights, trained
from configs.parts.emoji_features import (
    BATCH,
    PAD,
    RATE,
    caption_ids,
    drawings,
    init_weights,
    learned,
    name_ids,
    naming,
    vocabulary,
)
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")
STEPS, TEXTS = 300, 8


def words_of(w: Weights, x: jax.Array) -> jax.Array:
    """Logits (N, V + 1) of words."""
    return jax.nn.relu(x @ w["image"]["first"]) @ w["image"]["second"]


def bags(ids: Any, count: int) -> jax.Array:
    """float32 (N, V + 1), 1 for the words of ids (N, L)."""
    ids = jnp.asarray(ids)
    found = jnp.zeros((len(ids), count)).at[jnp.arange(len(ids))[:, None], ids].set(1.0)
    return found.at[:, PAD].set(0.0)


def predicts_words(w: Weights, data: tuple[Any, ...], key: jax.Array) -> jax.Array:
    x, ids = data
    k_rows, k_text = jax.random.split(key)
    rows = jax.random.randint(k_rows, (BATCH,), 0, len(x))
    chosen = jax.random.randint(k_text, (BATCH,), 0, ids.shape[1])
    said = words_of(w, x[rows])
    told = bags(ids[rows, chosen], said.shape[1])
    return jnp.mean(jnp.sum(jax.nn.softplus(said) - told * said, 1))


def measure_seed(seed: int) -> dict[str, float]:
    every = drawings()
    data = every.take(~every.unseen & every.by("noto", "twemoji"))
    asked = every.take(every.unseen)
    ids, count = caption_ids(data.emoji, TEXTS, seed), len(vocabulary())
    classes = np.unique(asked.emoji)
    texts = name_ids(classes)
    others = ids[np.random.default_rng(seed).permutation(len(ids))]
    start = init_weights(seed, data.x.shape[1], 1, outputs=count + 1)
    words = trained({"image": start["image"]}, predicts_words, (data.x, ids), STEPS, RATE)
    named = bags(texts, count + 1)
    likely = jax.nn.log_sigmoid(words_of(words, jnp.asarray(asked.x))) @ named.T / named.sum(1)
    return {
        "contrast": naming(learned(seed, data.x, ids, STEPS), asked, classes, texts),
        "words": float(np.mean(classes[np.asarray(likely).argmax(1)] == asked.emoji)),
        "others": naming(learned(seed, data.x, others, STEPS), asked, classes, texts),
        "classes": len(classes),
    }


def test_contrast_names_more_than_predicted_words(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    classes = round(rows[0]["classes"])
    what, words = f"zero-shot accuracy of {classes} unseen emoji", side("words", "words")
    record(
        claim="Names tell more images after contrast with captions than after prediction of their "
        "words.",
        expected="undecided",
        compared=Measured(what, side("contrast", "contrast"), words),
        margin=MARGIN,
        scale=Scale(chance=1 / classes),
        control=Measured(what, side("contrast with captions of others", "others"), words),
    )
