"""Two encodings of evolved images: pixels, and compositional pattern-producing networks.

An encoding draws genomes, mutates them and renders them. Genomes are trees of arrays with one row
per image; images are float32 (N, H, W, C) in 0..1. Everything is traceable.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vision.config.ranges import Fraction, Positive, checked

Genomes = Any
Shape = tuple[int, int, int]

# Of a node of a pattern-producing network, by number.
ACTIVATIONS = (
    jnp.sin,
    jax.nn.sigmoid,
    lambda x: jnp.exp(-jnp.square(x)),
    lambda x: x,
)


class Encoding(Protocol):
    """Protocol of an encoding; a frozen dataclass."""

    def draw(self, key: jax.Array, count: int, shape: Shape) -> Genomes:
        """Random genomes of ``count`` images of a shape (H, W, C)."""
        ...

    def mutate(self, key: jax.Array, genomes: Genomes, generation: jax.Array) -> Genomes:
        """A child of every genome; ``generation`` is an int32 scalar, 0 for the first."""
        ...

    def render(self, genomes: Genomes, shape: Shape) -> jax.Array:
        """The images (N, H, W, C)."""
        ...


@dataclasses.dataclass(frozen=True)
@checked
class Pixels:
    """The direct encoding: a genome is the image, uniform in 0..1 at first.

    Every number is changed with a probability that halves every ``halved_every`` generations, by
    polynomial mutation (Deb and Agrawal 1995): with u uniform and n the strength, a small u adds
    ``(2 u)^(1 / (n + 1)) - 1``, a large one ``1 - (2 (1 - u))^(1 / (n + 1))``.

    Attributes:
      rate: of mutation in the first generations, 0..1.
      halved_every: generations after which the rate halves.
      strength: n; a larger one makes smaller steps.
    """

    rate: Fraction = 0.1
    halved_every: Positive[int] = 1000
    strength: Positive[float] = 15.0

    def draw(self, key: jax.Array, count: int, shape: Shape) -> Genomes:
        return jax.random.uniform(key, (count, *shape))

    def mutate(self, key: jax.Array, genomes: Genomes, generation: jax.Array) -> Genomes:
        chosen, size = jax.random.split(key)
        rate = self.rate * 0.5 ** (generation // self.halved_every)
        step = polynomial(jax.random.uniform(size, genomes.shape), self.strength)
        changed = jax.random.uniform(chosen, genomes.shape) < rate
        return jnp.clip(genomes + jnp.where(changed, step, 0), 0, 1)

    def render(self, genomes: Genomes, shape: Shape) -> jax.Array:
        return genomes


@dataclasses.dataclass(frozen=True)
@checked
class Patterns:
    """The indirect encoding: a genome is a network that maps a pixel's place to its colour.

    Inputs are x and y in -1..1, the distance from the middle, and 1; every node has one of
    ``ACTIVATIONS``, and those of the last layer are the channels after a logistic function. A
    child's weights each change with probability ``rate`` by a normal number times ``strength``, and
    its nodes each take a random activation with probability ``swap``.

    Attributes:
      width: nodes of a hidden layer.
      depth: hidden layers.
      rate: of mutation of weights, 0..1.
      strength: standard deviation of a mutation, as weights are at first.
      swap: of mutation of activations, 0..1.
    """

    width: Positive[int] = 16
    depth: Positive[int] = 3
    rate: Fraction = 0.2
    strength: Positive[float] = 1.0
    swap: Fraction = 0.05

    def draw(self, key: jax.Array, count: int, shape: Shape) -> Genomes:
        sizes = (4, *[self.width] * self.depth, shape[-1])
        layers = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            weights, kinds = jax.random.split(jax.random.fold_in(key, number))
            kernel = jax.random.normal(weights, (count, inputs, outputs))
            kind = jax.random.randint(kinds, (count, outputs), 0, len(ACTIVATIONS))
            layers.append({"kernel": kernel, "kind": kind})
        return layers

    def mutate(self, key: jax.Array, genomes: Genomes, generation: jax.Array) -> Genomes:
        children = []
        for number, layer in enumerate(genomes):
            where, size, swaps, kinds = jax.random.split(jax.random.fold_in(key, number), 4)
            kernel, kind = layer["kernel"], layer["kind"]
            step = self.strength * jax.random.normal(size, kernel.shape)
            changed = jax.random.uniform(where, kernel.shape) < self.rate
            swapped = jax.random.uniform(swaps, kind.shape) < self.swap
            other = jax.random.randint(kinds, kind.shape, 0, len(ACTIVATIONS))
            children.append(
                {
                    "kernel": kernel + jnp.where(changed, step, 0),
                    "kind": jnp.where(swapped, other, kind),
                }
            )
        return children

    def render(self, genomes: Genomes, shape: Shape) -> jax.Array:
        height, width, _ = shape
        y, x = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
        places = jnp.stack([x, y, jnp.hypot(x, y), jnp.ones_like(x)], -1).reshape(-1, 4)

        def image(layers: Genomes) -> jax.Array:
            at = places
            for layer in layers:
                # Weights are near 1: without the root wide layers would only saturate.
                at = at @ layer["kernel"] / layer["kernel"].shape[0] ** 0.5
                each = jnp.stack([activation(at) for activation in ACTIVATIONS])
                at = jnp.take_along_axis(each, layer["kind"][None, None], 0)[0]
            return jax.nn.sigmoid(at).reshape(shape)

        return jax.vmap(image)(genomes)


def polynomial(u: jax.Array, strength: float) -> jax.Array:
    """Steps in -1..1 of polynomial mutation from u uniform in 0..1."""
    power = 1 / (strength + 1)
    return jnp.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
