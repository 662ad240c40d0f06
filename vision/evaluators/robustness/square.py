"""The Square attack, which needs logits and no gradients; see ``vision.blocks.attack``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.attack import AttackState, Memory, Norm, length, margins, project, rows
from vision.blocks.attack_rules import check_radius
from vision.config.ranges import Finite, Gt, Le, NonNegative, Positive, checked

# After these shares of the queries the area of a square is halved.
_HALVED = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclasses.dataclass(frozen=True)
@checked
class Square:
    """Random search by squares that lie on the surface of the ball; Andriushchenko et al. 2020.

    A query changes one square, everywhere of the same sign per channel (``linf``), or moves the
    weight of one window to another in a pattern of two pyramids (``l2``), and is kept where the
    margin becomes smaller. Squares shrink from ``area`` by halves. There are no more queries for
    an image that is misclassified. Where a drawn square would change nothing, its signs are
    flipped; the authors' first program draws again.

    Attributes:
      eps: radius of the ball; pixels are in 0..1.
      norm: of the ball.
      queries: per restart, including the first (stripes, or a grid of pyramids).
      area: share of the image that the first squares have.
      restarts: number of random starts.
      targeted: labels are the target classes.
    """

    eps: NonNegative[Finite] = 8 / 255
    norm: Norm = "linf"
    queries: Positive[int] = 5000
    area: Annotated[float, Gt(0), Le(1)] = 0.8
    restarts: Positive[int] = 1
    targeted: bool = False

    uses_gradient: ClassVar[bool] = False
    settles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_radius(self.eps, self.norm)

    @property
    def moves(self) -> int:
        return self.queries - 1

    @property
    def rounds(self) -> int:
        return self.restarts

    def sides(self, height: int, width: int) -> np.ndarray:
        """(queries,) int: the side of the square of every query, in pixels."""
        share = np.arange(self.queries) / max(self.queries - 1, 1)
        halvings = np.sum(share[:, None] > np.asarray(_HALVED), 1)
        sides = np.rint(np.sqrt(self.area / 2**halvings * height * width)).astype(np.int32)
        most = min(height, width)
        if self.norm == "linf":
            return np.clip(sides, 1, most)
        sides = np.clip(sides, min(3, most), most)
        return sides + (sides % 2 == 0) * np.where(sides < most, 1, -1)

    def begin(self, keys: jax.Array, image: jax.Array, memory: Memory) -> tuple[jax.Array, Memory]:
        count, height, width, channels = image.shape
        if self.norm == "linf":
            signs = _signs(keys, (1, width, channels))
            at = jnp.clip(image + self.eps * signs, 0, 1)
        else:
            side = max(min(height, width) // 5, 1)
            row, column = jnp.arange(height), jnp.arange(width)
            tiles = height // side, width // side
            signs = _signs(keys, (*tiles, channels))
            signs = signs[:, jnp.clip(row // side, 0, tiles[0] - 1)]
            signs = signs[:, :, jnp.clip(column // side, 0, tiles[1] - 1)]
            inside = (row < side * tiles[0])[:, None] & (column < side * tiles[1])
            shape = _pyramids(row[:, None] % side, column % side, jnp.asarray(side))
            delta = jnp.where(inside, shape, 0)[..., None] * signs
            at = jnp.clip(image + self._to_surface(delta), 0, 1)
        return at, {"held": image, "margin": jnp.full(count, jnp.inf, jnp.float32)}

    def loss(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        return -margins(logits, label, self.targeted)

    def score(self, margin: jax.Array, at: jax.Array, image: jax.Array) -> jax.Array:
        return margin

    def move(
        self,
        place: jax.Array,
        keys: jax.Array,
        state: AttackState,
        logits: jax.Array,
        gradient: jax.Array,
    ) -> tuple[jax.Array, Memory]:
        margin = margins(logits, state.label, self.targeted)
        better = margin < state.memory["margin"]
        held = rows(better, state.at, state.memory["held"])
        memory = {"held": held, "margin": jnp.where(better, margin, state.memory["margin"])}
        side = jnp.asarray(self.sides(*held.shape[1:3]))[place]
        change = self._paint if self.norm == "linf" else self._carry
        return change(jax.vmap(jax.random.split)(keys), state.image, held, side), memory

    def _paint(
        self, keys: jax.Array, image: jax.Array, held: jax.Array, side: jax.Array
    ) -> jax.Array:
        inside = _Window.draw(keys[:, 0], held, side).mask
        signs = _signs(keys[:, 1], (1, 1, held.shape[-1]))
        painted = jnp.where(inside, jnp.clip(image + self.eps * signs, 0, 1), held)
        flipped = jnp.where(inside, jnp.clip(image - self.eps * signs, 0, 1), held)
        unchanged = (jnp.abs(painted - held) < 1e-7).all((1, 2, 3))
        return rows(unchanged, flipped, painted)

    def _carry(
        self, keys: jax.Array, image: jax.Array, held: jax.Array, side: jax.Array
    ) -> jax.Array:
        """Moves the L2 weight of two windows, and what the radius leaves, into one of them."""
        keys = jax.vmap(lambda key: jax.random.split(key, 3))(keys[:, 0])
        to = _Window.draw(keys[:, 0], held, side)
        source = _Window.draw(keys[:, 1], held, side)
        sign, turn_keys = (jax.vmap(jax.random.split)(keys[:, 2])[:, i] for i in range(2))
        delta = held - image
        spent = jnp.sum(jnp.square(delta), (1, 2, 3), keepdims=True)
        windows = delta * (to.mask | source.mask)
        weight = jnp.sum(jnp.square(windows), (1, 2), keepdims=True)
        unspent = jnp.maximum(self.eps**2 - spent, 0) / held.shape[-1]
        turned = jax.vmap(jax.random.bernoulli)(turn_keys)[:, None, None]
        rows_in, columns_in = to.row, to.column
        pattern = _pyramids(
            jnp.where(turned, columns_in, rows_in), jnp.where(turned, rows_in, columns_in), side
        )
        pattern = jnp.where(to.mask, pattern[..., None], 0)
        window = pattern * _signs(sign, (1, 1, held.shape[-1])) + _unit(delta * to.mask)
        delta = jnp.where(to.mask, _unit(window) * jnp.sqrt(unspent + weight), delta * ~source.mask)
        return project("l2", self.eps, image, image + self._to_surface(delta))

    def _to_surface(self, delta: jax.Array) -> jax.Array:
        return self.eps * delta / jnp.maximum(length(delta), 1e-12)


@dataclasses.dataclass(frozen=True)
class _Window:
    """A square of pixels in every image.

    Attributes:
      row, column: (B, H, 1) and (B, 1, W), places counted from its corner.
      mask: (B, H, W, 1) bool, what is in it.
    """

    row: jax.Array
    column: jax.Array
    mask: jax.Array

    @classmethod
    def draw(cls, keys: jax.Array, image: jax.Array, side: jax.Array) -> _Window:
        height, width = image.shape[1:3]
        most = jnp.stack([height - side, width - side])
        corner = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, most + 1))(keys)
        row = jnp.arange(height)[:, None] - corner[:, :1, None]
        column = jnp.arange(width) - corner[:, 1:, None]
        mask = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        return cls(row, column, mask[..., None])


def _signs(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """(B, *shape) of -1 and 1."""
    drawn = jax.vmap(lambda key: jax.random.bernoulli(key, shape=shape))(keys)
    return 2.0 * drawn - 1


def _unit(x: jax.Array) -> jax.Array:
    """Every channel of every image to length one."""
    return x / (jnp.sqrt(jnp.sum(jnp.square(x), (1, 2), keepdims=True)) + 1e-12)


def _pyramids(row: jax.Array, column: jax.Array, side: jax.Array) -> jax.Array:
    """Two pyramids of opposite signs, one above the other, in a square of ``side``.

    A pyramid adds 1 / (n + 1)^2 on all pixels no further than n from its centre, for every n; each
    has length one. ``row`` and ``column``, counted from the corner, broadcast against each other;
    places outside the square mean nothing.
    """
    half = side // 2
    upper = row < half
    tall = jnp.where(upper, half, side - half)
    within = jnp.where(upper, row, row - half)
    distance = jnp.maximum(jnp.abs(within - tall // 2), jnp.abs(column - half))
    most = max(row.shape[-2], column.shape[-1]) + 1
    sums = jnp.asarray(np.cumsum([0, *(1 / np.arange(1.0, most + 1) ** 2)]), jnp.float32)
    steps = jnp.maximum(tall // 2, half) + 1
    value = sums[jnp.clip(steps, 0, most)] - sums[jnp.clip(distance, 0, most)]
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    value = jnp.where(inside, jnp.maximum(value, 0), 0)

    def size(part: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jnp.square(value * part), (-2, -1), keepdims=True)) + 1e-12

    return jnp.where(upper, value / size(upper), -value / size(~upper))
