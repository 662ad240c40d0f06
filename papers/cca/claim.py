"""Emoji found by what they are, by who drew them and by their ground: a space each, or one.

The head reads maps of the zoo's classifier as tokens and learns the three attributes of 1,000 of
1,500 drawings of the families that are seen, 150 steps of triplets from batches of 48. Then every
one of 600 of 900 drawings of unseen families looks for those of its group, house and ground among
the others: mAP, the mean of the three attributes. In the baseline they share one query and so one
space of the same width. In the control a query is dealt out to every image anew, in training and
after, so that it says nothing of the attribute.

How much a space says of another attribute is beside: mAP of houses in the space of groups. So is
where the queries of groups and of grounds attend: the share of it that is on the drawing, by its
exact mask, beside the share of all tokens.

The first run, seeds 0 to 4, was undecided: +2.75 points, with an interval of 1.8 to 3.7 about the
margin of 2. The second has ten other seeds and changes nothing else.

Held: 48.3 beside 45.5, and 45.8 with queries dealt out. Groups and houses gain, grounds are found
as well in one space. Of the attention of the query of groups 42 % is on the drawing, of that of
grounds 8 %, of all tokens 34 %.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts import emoji_maps, emoji_tower
from configs.parts.digit_mlp import trained
from papers.cca.head import ConditionHead
from papers.cca.triplets import triplet_losses
from vision.data.sources.emoji import HOUSES
from vision.metrics.multilabel import average_precisions
from vision.papers.claims import Margin, Measured, Premise, Recorder, Scale, Side
from vision.train.precision import Precision

MARGIN = Margin(0.02, rule="the paper's figures are unconfirmed: 2 points of mAP")

COUNT, ASKED, STEPS, ROWS, RATE, WIDTH = 1500, 900, 150, 48, 2e-3, 32
NEW = tuple(range(5, 15))
ATTRIBUTES = ("label", "house", "background")


def head(arm: str) -> ConditionHead:
    return ConditionHead(1 if arm == "shared" else 3, WIDTH, 1, 4, Precision())


def spaces(w: Any, tokens: jax.Array, arm: str, key: jax.Array) -> jax.Array:
    """(B, 3, 32): where images lie for every attribute."""
    out: Any = head(arm).apply({"params": w}, tokens)
    if arm == "shared":
        return jnp.repeat(out, 3, 1)
    if arm == "dealt":
        order = jax.random.randint(key, (len(out), 3), 0, 3)
        return jnp.take_along_axis(out, order[..., None], 1)
    return out


@functools.cache  # one program for all seeds
def loss_of(arm: str) -> Any:
    def loss(w: Any, data: Any, key: jax.Array) -> jax.Array:
        tokens, values = data
        k_rows, k_query = jax.random.split(key)
        rows = jax.random.choice(k_rows, len(tokens), (ROWS,), replace=False)
        found, valid = spaces(w, tokens[rows], arm, k_query), jnp.ones(ROWS, bool)
        losses = [
            triplet_losses(found[:, a], values[rows, a], valid, 0.2)[0]
            for a in range(len(ATTRIBUTES))
        ]
        return jnp.stack(losses).mean()

    return loss


@functools.partial(jax.jit, static_argnames="arm")
def places(w: Any, tokens: jax.Array, arm: str) -> jax.Array:
    return spaces(w, tokens, arm, jax.random.key(1))


def precision(vectors: np.ndarray, values: np.ndarray) -> float:
    """mAP of every row's search for those of its value among the others."""
    scores, alike = vectors @ vectors.T, (values[:, None] == values).astype(np.int8)
    np.fill_diagonal(alike, -1)  # neither right nor wrong
    return float(np.nanmean(average_precisions(scores, alike)))


def attention(w: Any, tokens: np.ndarray) -> np.ndarray:
    """(N, 3, 36): where the query of each attribute attends, mean over heads."""
    block = jax.device_get(w["cross0"])

    def projected(x: np.ndarray, norm: str, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        x = x * block[norm]["scale"] + block[norm]["bias"]
        x = x @ block[name]["kernel"] + block[name]["bias"]
        return x.reshape(*x.shape[:-1], 4, -1)

    q, k = projected(np.asarray(w["queries"]), "norm_q", "q"), projected(tokens, "norm_kv", "k")
    scores = np.einsum("ahd,nthd->nhat", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).mean(1)


@functools.cache
def tokens() -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Tokens (N, 36, 48), attributes int (N, 3) and the share of a token that is on the drawing,
    (N, 36), to learn from and to ask about."""
    features = ("image", "masks", *ATTRIBUTES)
    parts = [
        emoji_tower.drawings(split, 0, count, features=features, houses=HOUSES, part=part)
        for split, count, part in (("train", COUNT, "seen"), ("test", ASKED, "unseen"))
    ]
    x = emoji_maps.standardised(*(emoji_maps.maps(part["image"]) for part in parts))
    learned, asked = (
        (
            a.reshape(len(a), -1, a.shape[-1]),
            np.stack([b[name] for name in ATTRIBUTES], 1),
            emoji_maps.in_patches(b["masks"][:, 0]).reshape(-1, 36),
        )
        for a, b in zip(x, parts, strict=True)
    )
    return learned, asked


def measure_seed(seed: int) -> dict[str, float]:
    rng, (learned, asked) = np.random.default_rng(seed), tokens()
    part = rng.permutation(COUNT)[:1000]
    data = learned[0][part], learned[1][part]
    part = rng.permutation(ASKED)[:600]
    x, values, drawn = (each[part] for each in asked)
    # What a search without knowledge gets.
    row = {"chance": float(np.mean([np.mean(v[:, None] == v) for v in values.T]))}
    for arm in ("own", "shared", "dealt"):
        start = head(arm).init(jax.random.key(seed), jnp.asarray(x[:1]))["params"]
        w = trained(start, loss_of(arm), data, STEPS, RATE)
        found = np.asarray(places(w, x, arm))
        each = [precision(found[:, a], values[:, a]) for a in range(len(ATTRIBUTES))]
        row |= {f"{arm}_{name}": value for name, value in zip(ATTRIBUTES, each, strict=True)}
        row[arm] = float(np.mean(each))
        if arm == "own":
            on = np.einsum("nat,nt->na", attention(w, x), drawn).mean(0)
            row |= {"on_label": float(on[0]), "on_background": float(on[2])}
            row["on_any"] = float(drawn.mean())
        if arm != "dealt":
            row[f"{arm}_leak"] = precision(found[:, 0], values[:, 1])
    return row


def test_a_space_for_every_attribute(record: Recorder):
    rows = [measure_seed(seed) for seed in NEW]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    def both(what: str, key: str) -> Measured:
        return Measured(what, side("a query each", f"own_{key}"), side("one", f"shared_{key}"))

    learned = tuple(row["shared"] / row["chance"] for row in rows)
    on = "share of attention that is on the drawing"
    what, shared = "mAP, mean of group, house and ground", side("one query", "shared")
    record(
        claim="Emoji of unseen families are found by group, house and ground with higher precision "
        "in a space for each than in one for all.",
        expected="held",
        compared=Measured(what, side("a query each", "own"), shared),
        margin=MARGIN,
        seeds=NEW,
        scale=Scale(chance=None),
        control=Measured(what, side("queries dealt out", "dealt"), shared),
        premises=[Premise("mAP of one query over that of any order", learned, at_least=1.5)],
        measured=[
            both("mAP of groups", "label"),
            both("mAP of houses", "house"),
            both("mAP of grounds", "background"),
            both("mAP of houses in the space of groups", "leak"),
            Measured(what, shared, side("any order", "chance")),
            Measured(on, side("query of groups", "on_label"), side("all tokens", "on_any")),
            Measured(on, side("query of grounds", "on_background"), side("all tokens", "on_any")),
        ],
    )
