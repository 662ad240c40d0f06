"""Counts of votes on digits, by the Dirichlet-multinomial likelihood and by shares of votes.

Between 5 and 40 voters answer one question of four answers about a digit. Every digit has an
answer that it mostly gets, and every picture shares of its own around these, so that voters of two
pictures of one digit agree less than voters of one picture do. A linear layer on the pixels is
fitted to the votes of training digits by 400 steps of Adam on all of them, either as the paper does
or with the cross-entropy of the shares of votes, and asked for the likelihood of the votes on test
digits, in nats per picture.

The control has no shares of a picture's own: all pictures of a digit have the same, and the layer
reads which digit it is in the place of pixels. There the likelihood of independent votes is the
right one, and the other must not be better. (On pixels it was, by 0.9 nats: where the layer errs,
pictures differ too.) That the baseline has learned its task is a premise: it tells the majority
answer of more pictures than the most frequent answer does, by 15 points at least.

Held: 6.6 beside 11.0 nats; where pictures are alike 4.97 beside 4.94.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from papers.zoobot.method import dirichlet_multinomial, multinomial
from vision.data.sources.digits import Digits
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.05, rule="no figure is reported for this comparison: 0.05 nats a picture")

ANSWERS, STEPS, RATE, CEILING = 4, 400, 0.02, 100.0
OWN = 6.0  # sum of the concentrations of a picture's shares around its digit's


def votes(labels: np.ndarray, own: bool, digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts (N, 4) of digits (N,), whose usual shares are ``digit`` (10, 4)."""
    shares = digit[labels]
    if own:
        shares = np.stack([rng.dirichlet(OWN * each) for each in shares])
    voters = rng.integers(5, 41, len(labels))
    return np.stack([rng.multinomial(n, p) for n, p in zip(voters, shares, strict=True)])


def likelihood(logits: Any, counts: Any, dirichlet: bool) -> jax.Array:
    """Negative log-likelihood (N,), nats."""
    if dirichlet:
        return dirichlet_multinomial(counts, 1 + CEILING * jax.nn.sigmoid(logits))
    return multinomial(counts, jax.nn.log_softmax(logits))


@functools.partial(jax.jit, static_argnums=2)
def fitted(x: Any, counts: Any, dirichlet: bool) -> Any:
    """Weights (D, 4) of a linear layer."""
    shares = counts / counts.sum(-1, keepdims=True)

    def loss(w: jax.Array) -> jax.Array:
        if dirichlet:
            return likelihood(x @ w, counts, True).mean()
        return -jnp.sum(shares * jax.nn.log_softmax(x @ w), -1).mean()

    optimizer = optax.adam(RATE)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(loss)(w), state)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.zeros((x.shape[1], ANSWERS))
    (w, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=STEPS)
    return w


def measure_seed(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    digit = 0.1 + 0.6 * np.eye(ANSWERS)[np.arange(10) % ANSWERS]
    parts = [Digits(split).__getitems__(range(len(Digits(split)))) for split in ("train", "test")]
    images = [part["image"].reshape(-1, 64).astype(np.float32) / 255 for part in parts]
    x, new = (np.concatenate([image, np.ones((len(image), 1), np.float32)], 1) for image in images)
    row: dict[str, float] = {}
    for own in (True, False):
        counts, asked = (votes(part["label"], own, digit, rng).astype(np.float32) for part in parts)
        known, unknown = (x, new) if own else (np.eye(10)[part["label"]] for part in parts)
        for dirichlet in (True, False):
            logits = unknown @ np.asarray(fitted(known, counts, dirichlet))
            name = f"{'dirichlet' if dirichlet else 'shares'}{'' if own else ' alike'}"
            row[name] = float(likelihood(logits, asked, dirichlet).mean())
            if own:
                row[f"{name} majority"] = float(np.mean(logits.argmax(1) == asked.argmax(1)))
        if own:
            row["frequent"] = float(np.bincount(asked.argmax(1)).max() / len(asked))
            # Of votes that are all equally likely.
            row["alike"] = float(
                multinomial(jnp.asarray(asked), jnp.full(ANSWERS, -np.log(ANSWERS))).mean()
            )
    return row


def test_counts_are_told_better_where_pictures_differ(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = "negative log-likelihood of new votes, nats a picture"
    record(
        claim="Where pictures of one kind differ in what voters see, the Dirichlet-multinomial "
        "likelihood tells new counts better than shares of votes do.",
        expected="held",
        compared=Measured(what, side("Dirichlet", "dirichlet"), side("shares", "shares")),
        margin=MARGIN,
        scale=Scale(worst=max(row["alike"] for row in rows), best=0.0),
        premises=[
            Premise(
                "majority answers told, beyond the most frequent one",
                tuple(row["shares majority"] - row["frequent"] for row in rows),
                at_least=0.15,
            ),
        ],
        control=Measured(
            f"{what}, pictures alike",
            side("Dirichlet", "dirichlet alike"),
            side("shares", "shares alike"),
        ),
        measured=[
            Measured(
                "majority answers told",
                side("Dirichlet", "dirichlet majority"),
                side("shares", "shares majority"),
            ),
        ],
    )
