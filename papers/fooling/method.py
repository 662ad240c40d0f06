"""Fooling images: noise and patterns about which a classifier is sure.

Nguyen, Yosinski and Clune, Deep Neural Networks are Easily Fooled: High Confidence Predictions for
Unrecognizable Images, 2015. Headline: with AlexNet on ImageNet a median confidence of 88.11 % over
the 1,000 classes with images of the indirect encoding after 5,000 generations, 21.59 % with those
of the direct one after 20,000; with LeNet on MNIST 99.99 % with both, after 200.

Three producers of an image for every class c of a network f, p = softmax(f(x)):

    MapElites(Pixels())      evolution of pixels by polynomial mutation         (encodings)
    MapElites(Patterns())    of networks from a pixel's place to its colour
    Ascent()                 x + step * unit(grad(log p_c(x) - decay |x - 1/2|^2))       (ascent)

Identities: an elite's confidence never falls, and it is what the network says of its image; a
search of 2 n generations is one of n, continued; a child that suits no class leaves all as it was.

Facts of the paper: pixels mutate with probability 0.1, halved every 1,000 generations, with
strength 15; networks have sines, sigmoids, Gaussians and linear nodes.

Differences: a pattern's network has layers of fixed width, of which weights and activations evolve
and the topology does not (theirs grows, by NEAT), and its outputs are the channels (theirs are hue,
saturation and value); mutation of its weights is normal. A generation is a batch of children of the
same elites. A gradient step has a constant length, and decay is from grey, not from the mean image.
Not here: the network that is trained anew with fooling images as a class of their own.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from papers.fooling.ascent import GREY, Ascent
from papers.fooling.encodings import Encoding, Genomes, Shape
from vision.blocks.attack import LogitsFn, init, rows, run, updates
from vision.config.ranges import Positive, checked


@flax.struct.dataclass
class Elites:
    """State of the search: the best image of every class so far.

    Attributes:
      generation: int32 scalar, the number of generations done.
      key: (2,) uint32, of the whole search.
      genomes: tree of arrays with K rows; before the first generation random ones, of no rank.
      confidence: (K,) float32, the probability of its class; -1 before the first generation.
    """

    generation: jax.Array
    key: jax.Array
    genomes: Genomes
    confidence: jax.Array


@dataclasses.dataclass(frozen=True)
@checked
class MapElites:
    """Evolution of one image per class (Mouret and Clune 2015), as in the paper.

    In every generation ``children`` mutants of elites that are drawn with replacement are shown to
    the classifier. The surest of them about a class takes its place where it is surer than the
    elite: one child may take several places. Confidences never fall.

    Attributes:
      encoding: of images.
      generations: of the whole search.
      children: of a generation, one forward pass.
    """

    encoding: Encoding
    generations: Positive[int] = 200
    children: Positive[int] = 200


def begun(search: MapElites, key: jax.Array, classes: int, shape: Shape) -> Elites:
    """The state before the first generation, for images (H, W, C)."""
    genomes = search.encoding.draw(jax.random.fold_in(key, 0), classes, shape)
    confidence = jnp.full(classes, -1, jnp.float32)
    return Elites(jnp.zeros([], jnp.int32), jax.random.key_data(key), genomes, confidence)


def evolved(
    search: MapElites, logits_fn: LogitsFn, state: Elites, shape: Shape, generations: int
) -> tuple[Elites, jax.Array]:
    """So many more generations, and the confidences (generations, K) after each.

    Continuing from a state gives what one search would have. Traceable. Images whose logits are
    not finite take no place.
    """

    def generation(state: Elites, _: None) -> tuple[Elites, jax.Array]:
        number = state.generation + 1
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), number)
        draw, mutation = jax.random.split(key)
        parents = jax.random.randint(draw, (search.children,), 0, len(state.confidence))
        family = jax.tree.map(lambda x: x[parents], state.genomes)
        children = search.encoding.mutate(mutation, family, state.generation)
        images = search.encoding.render(children, shape)
        logits = logits_fn(images).astype(jnp.float32)
        # Told before softmax, whose maximum need not keep NaN.
        finite = jnp.isfinite(logits).all(-1, keepdims=True)
        sure = jnp.where(finite, jax.nn.softmax(jnp.where(finite, logits, 0)), -1)
        best, confidence = jnp.argmax(sure, 0), sure.max(0)
        better = confidence > state.confidence
        genomes = jax.tree.map(
            lambda child, elite: rows(better, child[best], elite), children, state.genomes
        )
        confidence = jnp.maximum(confidence, state.confidence)
        return Elites(number, state.key, genomes, confidence), confidence

    return jax.lax.scan(generation, state, length=generations)


def produced(
    producer: MapElites | Ascent, logits_fn: LogitsFn, key: jax.Array, classes: int, shape: Shape
) -> jax.Array:
    """Images (K, H, W, C) in 0..1, one for every class, from nothing. Traceable."""
    if isinstance(producer, MapElites):
        state = begun(producer, key, classes, shape)
        state, _ = evolved(producer, logits_fn, state, shape, producer.generations)
        return producer.encoding.render(state.genomes, shape)
    return ascended(producer, logits_fn, key, jnp.arange(classes), shape)


def ascended(
    producer: Ascent, logits_fn: LogitsFn, key: jax.Array, label: jax.Array, shape: Shape
) -> jax.Array:
    """Images (N, H, W, C) of the classes (N,), from grey; the last where none is of the class."""
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(label)
    grey = jnp.full((len(label), *shape), GREY, jnp.float32)
    end = run(producer, logits_fn, init(producer, keys, grey, label), updates(producer))
    return jnp.where(end.found[:, None, None, None], end.best, end.at)


def nearest(images: np.ndarray, real: np.ndarray, itself: bool = False) -> np.ndarray:
    """Root mean square distance (N,) to the nearest of ``real``, or nearest other one."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (images, real))
    square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    if itself:
        np.fill_diagonal(square, np.inf if len(b) > 1 else np.nan)
    return np.sqrt(np.maximum(square.min(1), 0) / a.shape[1])
