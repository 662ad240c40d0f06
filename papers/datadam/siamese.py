"""Differentiable siamese augmentation: the same random transform for two sets of images.

Zhao and Bilen, Dataset Condensation with Differentiable Siamese Augmentation, 2021: one strategy
and one draw of its parameters for all images of a class, so that calls with one key on real and on
synthetic images apply the same transform to those of the same class.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

STRATEGIES = ("colour", "crop", "cutout", "flip", "scale", "rotate")


def augment_by_class(
    images: jax.Array, label: jax.Array, key: jax.Array, strategies: tuple[str, ...] = STRATEGIES
) -> jax.Array:
    """``siamese_augment`` with a draw of its own for every class.

    Args:
      images: (B, H, W, C) float.
      label: int (B,), -1 for none.
      key: of all classes' draws.
      strategies: to choose from.
    """
    if not strategies:
        return images

    def one(image: jax.Array, number: jax.Array) -> jax.Array:
        return siamese_augment(image[None], jax.random.fold_in(key, number), strategies)[0]

    return jax.vmap(one)(images, label + 1)


def siamese_augment(
    images: jax.Array, key: jax.Array, strategies: tuple[str, ...] = STRATEGIES
) -> jax.Array:
    """``images`` (B, H, W, C) float under one of ``strategies``, chosen by ``key``.

    Raises:
      ValueError: an unknown strategy.
    """
    if unknown := [name for name in strategies if name not in STRATEGIES]:
        raise ValueError(f"strategies: {unknown[0]!r} is none of {', '.join(STRATEGIES)}")
    if not strategies:
        return images
    k_which, k_how = jax.random.split(key)
    which = jax.random.randint(k_which, (), 0, len(strategies))
    draws = jax.random.uniform(k_how, (3,), minval=-1.0, maxval=1.0)
    return jax.lax.switch(which, [_RULES[name] for name in strategies], images, draws)


def _colour(x: jax.Array, u: jax.Array) -> jax.Array:
    """Brightness by up to 0.5, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    x = x + 0.5 * u[0]
    grey = x.mean(-1, keepdims=True)
    x = grey + (1 + u[1]) * (x - grey)
    mean = x.mean((1, 2, 3), keepdims=True)
    return mean + (1 + 0.5 * u[2]) * (x - mean)


def _crop(x: jax.Array, u: jax.Array) -> jax.Array:
    """A shift by up to an eighth of each side, zeros coming in."""
    height, width = x.shape[1:3]
    return _sampled(x, jnp.eye(2), jnp.round(u[:2] * jnp.array([height / 8, width / 8])))


def _cutout(x: jax.Array, u: jax.Array) -> jax.Array:
    """A square of half the sides set to zero, anywhere."""
    height, width = x.shape[1:3]
    y = jnp.abs(jnp.arange(height) - (u[0] + 1) / 2 * (height - 1))[:, None] <= height / 4
    z = jnp.abs(jnp.arange(width) - (u[1] + 1) / 2 * (width - 1))[None] <= width / 4
    return jnp.where((y & z)[None, :, :, None], 0.0, x)


def _flip(x: jax.Array, u: jax.Array) -> jax.Array:
    return jnp.where(u[0] < 0, x[:, :, ::-1], x)


def _scale(x: jax.Array, u: jax.Array) -> jax.Array:
    """Each axis by a factor of 1 / 1.2 to 1.2."""
    return _sampled(x, jnp.diag(1.2 ** u[:2]), jnp.zeros(2))


def _rotate(x: jax.Array, u: jax.Array) -> jax.Array:
    """By up to 15 degrees."""
    c, s = jnp.cos(u[0] * jnp.pi / 12), jnp.sin(u[0] * jnp.pi / 12)
    return _sampled(x, jnp.array([[c, -s], [s, c]]), jnp.zeros(2))


def _sampled(x: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Bilinear, at ``matrix (place - centre) + centre + shift``; zero outside."""
    height, width = x.shape[1:3]
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    coordinates = jnp.moveaxis((grid - centre) @ matrix.T + centre + shift, -1, 0)

    def plane(channel: jax.Array) -> jax.Array:
        return map_coordinates(channel, list(coordinates), order=1, mode="constant")

    planes = jnp.moveaxis(x, -1, 1)
    return jnp.moveaxis(jax.vmap(jax.vmap(plane))(planes), 1, -1)


_RULES = {
    "colour": _colour,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
