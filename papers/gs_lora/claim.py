"""A ViT on digits of 8 pixels forgets two of them in each of three requests, from four images each.

The network learns 1,437 digits; a request has four images of every class that was not forgotten
before, all in one batch, and 60 steps of Adam along a cosine. GS-LoRA++ trains updates of rank 8
of the MLPs and begins each request with new ones; its rival trains all parameters of the network on
the same loss without groups. Either has the better of two rates, 1e-2 and 2e-3, by H on 300
training digits that no request sees. Compared is H on 359 test digits, the mean over requests.
Bounds are 10 nats, and 1 nat for prototypes: logits are no cosines, as the authors' are.

The control deals out anew which images of a request are to be forgotten. That the network tells
digits before the requests is the premise. Beside H stands the share of blocks that changed, with
alpha 1e-4 as the authors have it, with 1e-2 and with none.

Undecided: 0.869 beside 0.820, an interval that reaches below zero. Both forget all but 1 % and
differ in what remains, 84 and 80 %. In 60 steps no block was switched off, whatever alpha was.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.parts.from_scratch import digits
from papers.gs_lora.terms import Weights, changed, group_norms, harmonic, request_loss
from vision.blocks.adapters import Lora, init_adapters, merge_adapters
from vision.models.vit import ViT
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side
from vision.train.tower import forward, initialise

MARGIN = Margin(0.02, rule="the paper's figures are unconfirmed: 2 points of H")
MODEL = ViT(width=32, depth=3, heads=2, patch=2, pool="mean", num_classes=10)
LORA = (Lora(pattern=r"mlp/(fc1|fc2)/kernel$", rank=8),)
REQUESTS, SHOTS, STEPS, RATES = ((0, 1), (2, 3), (4, 5)), 4, 60, (1e-2, 2e-3)
LEARNED = 500
WEIGHTS = Weights(bound=10.0, prototype_bound=1.0)


def told(params: Any, x: Any) -> tuple[jax.Array, jax.Array]:
    embedding, out, _ = forward(MODEL, params, {}, x, train=False)
    return out["logits"], embedding


@jax.jit
def learned(x: Any, label: Any, seed: Any) -> Any:
    """Parameters after ``LEARNED`` steps of Adam along a cosine, 64 images each."""
    begin, draw = jax.random.split(jax.random.key(seed))
    start = initialise(MODEL, begin, x[:1])[0]
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, LEARNED))

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, memory = carry
        rows = jax.random.randint(key, (64,), 0, len(x))

        def loss(params: Any) -> jax.Array:
            logits = told(params, x[rows])[0]
            return optax.softmax_cross_entropy_with_integer_labels(logits, label[rows]).mean()

        updates, memory = optimizer.update(jax.grad(loss)(params), memory)
        return (optax.apply_updates(params, updates), memory), None

    return jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(draw, LEARNED))[0][0]


@functools.partial(jax.jit, static_argnames=("lora",))
def request(
    params: Any, x: Any, label: Any, forgets: Any, valid: Any, rate: Any, group: Any, lora: bool
) -> tuple[Any, jax.Array]:
    """The parameters after a request, and the norms of its groups."""
    kind = jax.nn.one_hot(label, 10) * valid[:, None]
    prototypes = kind.T @ told(params, x)[1] / jnp.maximum(kind.sum(0), 1)[:, None]
    start = init_adapters(LORA, params, jax.random.key(0)) if lora else params

    def network(trained: Any) -> Any:
        return merge_adapters(LORA, params, trained) if lora else trained

    def loss(trained: Any) -> jax.Array:
        logits, embedding = told(network(trained), x)
        known = kind.sum(0) > 0
        found, _ = request_loss(
            WEIGHTS, logits, embedding, prototypes, known, label, forgets, valid
        )
        return found + (group * group_norms(trained).sum() if lora else 0)

    optimizer = optax.adam(optax.cosine_decay_schedule(rate, STEPS, 1e-3))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        trained, memory = carry
        updates, memory = optimizer.update(jax.grad(loss)(trained), memory)
        return (optax.apply_updates(trained, updates), memory), None

    trained = jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)[0][0]
    norms = group_norms(trained) if lora else jnp.zeros(1)
    return network(trained), norms


@jax.jit
def classes(params: Any, x: Any) -> jax.Array:
    return told(params, x)[0].argmax(-1)


@dataclasses.dataclass(frozen=True)
class Given:
    """Images and classes: few for requests, and two parts to ask about."""

    params: Any
    few: tuple[np.ndarray, np.ndarray]
    chosen_on: tuple[np.ndarray, np.ndarray]
    asked: tuple[np.ndarray, np.ndarray]

    def after(
        self, rate: float, lora: bool, group: float = WEIGHTS.group, dealt: int | None = None
    ) -> dict[str, float]:
        """Means over the requests: H on both parts, and the share of blocks that changed."""
        params, gone, rows = self.params, np.zeros(10, bool), []
        x, label = self.few
        for wanted in REQUESTS:
            valid, forgets = ~gone[label], np.isin(label, wanted)
            if dealt is not None:
                order = np.random.default_rng(dealt).permutation(np.flatnonzero(valid))
                forgets[np.flatnonzero(valid)] = forgets[order]
            before = params
            params, norms = request(params, x, label, forgets, valid, rate, group, lora)
            row = {"blocks": changed(np.asarray(norms))}
            for name, (images, answer) in (("chosen", self.chosen_on), ("asked", self.asked)):
                of = np.isin(answer, wanted)
                was, now = (np.asarray(classes(p, images)) == answer for p in (before, params))
                remain = float(now[~of & ~gone[answer]].mean())
                row[name] = harmonic(remain, float(was[of].mean() - now[of].mean()))
                row[f"{name} remain"], row[f"{name} forget"] = remain, float(now[of].mean())
            rows.append(row)
            gone[list(wanted)] = True
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def measure_seed(seed: int) -> dict[str, float]:
    task = digits(asked=359)
    params = learned(task.x, task.label, seed)
    order = np.random.default_rng(seed).permutation(len(task.x))
    few = np.concatenate([order[task.label[order] == c][:SHOTS] for c in range(10)])
    held = np.setdiff1d(order, few)[:300]
    given = Given(
        params,
        (task.x[few], task.label[few]),
        (task.x[held], task.label[held]),
        (task.asked, task.answer),
    )
    row = {"before": float(np.mean(np.asarray(classes(params, task.asked)) == task.answer))}
    for name, lora in (("lora", True), ("full", False)):
        tried = {rate: given.after(rate, lora) for rate in RATES}
        rate = max(RATES, key=lambda rate: tried[rate]["chosen"])
        row |= {f"{name} {what}": value for what, value in tried[rate].items()}
        if lora:
            row["dealt"] = given.after(rate, lora, dealt=seed)["asked"]
            for group in (0.0, 1e-2):
                found = given.after(rate, lora, group)
                row[f"h {group:g}"], row[f"blocks {group:g}"] = found["asked"], found["blocks"]
    return row


def test_low_rank_updates_forget_better_than_all_parameters(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    lora, full = side("GS-LoRA++", "lora asked"), side("all parameters", "full asked")
    record(
        claim="After requests to forget, from four images per class, low-rank updates with groups "
        "have a larger H than training all parameters on the same loss.",
        expected="undecided",
        compared=Measured("H, mean of three requests", lora, full),
        margin=MARGIN,
        scale=Scale(),
        premises=[Premise("accuracy before", side("", "before").values, at_least=0.9)],
        control=Measured("H, images to forget dealt out anew", side("GS-LoRA++", "dealt"), full),
        measured=[
            Measured(
                "accuracy on what remains",
                side("GS-LoRA++", "lora asked remain"),
                side("all parameters", "full asked remain"),
            ),
            Measured(
                "accuracy on what is forgotten",
                side("GS-LoRA++", "lora asked forget"),
                side("all parameters", "full asked forget"),
            ),
            Measured("H", side("alpha 1e-2", "h 0.01"), side("no groups", "h 0")),
            Measured(
                "share of blocks that changed",
                side("alpha 1e-2", "blocks 0.01"),
                side("alpha 1e-4", "lora blocks"),
            ),
            Measured("share of blocks that changed", side("no groups", "blocks 0")),
        ],
    )
