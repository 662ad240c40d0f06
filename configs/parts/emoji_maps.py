"""Maps of the zoo's classifier of emoji, and objectives that are trained on them: for claims.

What comes out of the tower's second stage, (6, 6, 48) of a drawing of 48 pixels, is an image to a
small tower on top of it, as the maps of a ResNet are to a hybrid ViT (Dosovitskiy et al., 2021).
Fine classes are the emoji of a group, and an answer counts among those of the right subgroup; they
are learned from drawings by two houses and asked of the third.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.parts import emoji_tower
from configs.parts.emoji import LEARNED, NEW_HOUSE
from vision.data.sources.emoji import Emoji, index
from vision.train.objective import Context, Objective, Variables
from vision.train.tower import forward

GROUPS = ("food-drink",)
"""131 emoji in eight subgroups."""
Drawn = dict[str, np.ndarray]


@functools.cache
def _program(site: str) -> Any:
    tower = emoji_tower.trained()

    def run(images: jax.Array) -> jax.Array:
        out = forward(tower.model, tower.params, tower.state, images, train=False)[1]
        return out[site]

    return jax.jit(run)


def maps(images: np.ndarray, site: str = "block01") -> np.ndarray:
    """What the tower has at a site, (N, h, w, C) float32, of images (N, H, W, 3) in -1..1."""
    size, program = emoji_tower.BATCH, _program(site)
    parts = [program(images[i : i + size]) for i in range(0, len(images), size)]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


@functools.cache
def fine(count: int, asked: int, **fields: Any) -> tuple[Drawn, Drawn]:
    """Drawings by two houses to learn from, and by the third to ask about, on grounds.

    Args:
      count: of drawings to learn from.
      asked: of drawings to ask about.
      **fields: of ``Emoji``, the same for both.

    Returns:
      For each ``image`` in -1..1 and ``label``, the emoji, with what else ``features`` names.
    """
    given: dict[str, Any] = {"groups": GROUPS, "label": "emoji", "part": "all"} | fields
    learned = emoji_tower.drawings("train", 0, count, houses=LEARNED, **given)
    return learned, emoji_tower.drawings("test", 0, asked, houses=NEW_HOUSE, **given)


def standardised(learned: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Maps (N, h, w, C) whose channels have mean 0 and deviation 1 over ``learned``, the first."""
    mean, deviation = learned.mean((0, 1, 2)), learned.std((0, 1, 2)) + 1e-6
    return tuple((x - mean) / deviation for x in (learned, *others))


def in_patches(masks: np.ndarray, grid: tuple[int, int] = (6, 6)) -> np.ndarray:
    """Share of every patch that is covered, (N, h, w), by masks (N, H, W)."""
    count, height, width = masks.shape
    patches = masks.reshape(count, grid[0], height // grid[0], grid[1], width // grid[1])
    return patches.mean((2, 4))


@functools.cache
def peers(groups: tuple[str, ...] = GROUPS) -> np.ndarray:
    """bool (K, K): whether two emoji, by their labels, are of one subgroup."""
    source, signs = Emoji(groups=groups, label="emoji"), index().emoji
    of = {source.label_of(each): signs[each.emoji].subgroup for each in source.drawings}
    subgroup = np.array([of[k] for k in range(len(of))])
    return subgroup[:, None] == subgroup


def right(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether the likeliest emoji of the right subgroup is the label, bool (N,), of (N, K)."""
    return np.where(peers()[label], np.asarray(logits), -np.inf).argmax(-1) == label


def chance() -> float:
    """What guessing within the subgroup gets where all emoji are equally frequent."""
    return float((1 / peers().sum(1)).mean())


@functools.partial(jax.jit, static_argnames="objective")
def _start(objective: Objective, data: Any, seed: jax.Array) -> Variables:
    first = {name: x[:2] for name, x in data.items()}
    return objective.init(jax.random.fold_in(jax.random.key(seed), 1), first)


def start(objective: Objective, data: Drawn, seed: int) -> Variables:
    """What ``fitted`` starts from."""
    return _start(objective, _whole(data), jnp.uint32(seed))


def _whole(data: Drawn) -> Drawn:
    return {**data, "_mask": np.ones(len(data["image"]), bool)}


@functools.partial(jax.jit, static_argnames=("objective", "steps", "rows", "rate"))
def _fitted(
    objective: Objective, data: Any, seed: jax.Array, steps: int, rows: int, rate: float
) -> Variables:
    k_rows, k_loss = jax.random.split(jax.random.key(seed))
    variables, count = _start(objective, data, seed), len(data["_mask"])
    optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=0.05)

    def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
        variables, state = carry
        chosen = jax.random.choice(
            jax.random.fold_in(k_rows, number), count, (rows,), replace=False
        )
        batch = {name: x[chosen] for name, x in data.items()}
        ctx = Context(number, steps, True, jax.random.fold_in(k_loss, number))

        def loss(params: Any) -> Any:
            return objective.loss(variables.replace(params=params), batch, ctx)

        slope, aux = jax.grad(loss, has_aux=True)(variables.params)
        updates, state = optimizer.update(slope, state, variables.params)
        params: Any = optax.apply_updates(variables.params, updates)
        moved = Variables(params, {}, variables.extra_state)
        return (moved.merge(model_state={**variables.model_state, **aux.model_state}), state), None

    start = (variables, optimizer.init(variables.params))
    return jax.lax.scan(step, start, jnp.arange(steps))[0][0]


def fitted(
    objective: Objective, data: Drawn, seed: int, steps: int, rows: int, rate: float
) -> Variables:
    """Variables after steps of AdamW with a cosine to zero on batches drawn from ``data``.

    Objectives whose networks have parameters of the same names start from the same values, and
    see the same batches in the same order.

    Args:
      objective: what is learned.
      data: entries of a batch, one row per example.
      seed: of start, order and whatever the loss draws.
      steps: number of steps.
      rows: of a batch.
      rate: of AdamW, at the start.
    """
    return _fitted(objective, _whole(data), jnp.uint32(seed), steps, rows, rate)


@functools.partial(jax.jit, static_argnames="objective")
def _predicted(objective: Objective, variables: Variables, batch: Any) -> Any:
    return objective.predict(variables, batch, Context.evaluation())


def predicted(
    objective: Objective, variables: Variables, data: Drawn, rows: int = 200
) -> dict[str, np.ndarray]:
    """Predictions of all examples of ``data``, in batches of ``rows``, a divisor of their number.

    Args:
      objective: as it was fitted.
      variables: of ``fitted``.
      data: entries of a batch, one row per example.
      rows: of a batch.
    """
    whole = _whole(data)
    count = len(whole["_mask"])
    if count % rows:
        raise ValueError(f"rows={rows} does not divide the {count} examples")
    parts = [
        jax.device_get(
            _predicted(objective, variables, {k: x[i : i + rows] for k, x in whole.items()})
        )
        for i in range(0, count, rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
