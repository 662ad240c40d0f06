"""Least and most attended squares of images, and pasting between images (SMMix)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def regions(attention: jax.Array, side: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """Top-left (row, column) of the least and of the most attended square, int (B, 2) each.

    Args:
      attention: (B, h, w).
      side: of the squares in patches, an integer scalar, which may be traced.
    """
    _, rows, columns = attention.shape
    sums = jnp.pad(attention.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    top, left = jnp.arange(rows), jnp.arange(columns)
    bottom, right = jnp.minimum(top + side, rows), jnp.minimum(left + side, columns)
    upper, lower = sums[:, top], sums[:, bottom]
    square = lower[:, :, right] - lower[:, :, left] - upper[:, :, right] + upper[:, :, left]
    fits = (top + side <= rows)[:, None] & (left + side <= columns)[None]

    def argmax(score: jax.Array) -> jax.Array:
        best = jnp.argmax(jnp.where(fits, score, -jnp.inf).reshape(len(score), -1), -1)
        return jnp.stack([best // columns, best % columns], -1)

    return argmax(-square), argmax(square)


def paste(
    image: jax.Array,
    other: jax.Array,
    into: jax.Array,
    out_of: jax.Array,
    side: jax.Array,
    grid: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """Replaces squares of ``side`` patches of ``image`` (B, H, W, C) by squares of ``other``.

    Args:
      image, other: (B, H, W, C).
      into: (B, 2) first row and column, in patches, of the replaced squares.
      out_of: (B, 2) first row and column, in patches, of the squares of ``other``.
      side: of the squares, in patches.
      grid: patches (h, w) of an image.

    Returns:
      The images, and bool (B, h, w), the mask of patches from ``other``.
    """
    patch = image.shape[1] // grid[0], image.shape[2] // grid[1]
    inside, source = [], []
    for axis in (0, 1):
        first = into[:, axis, None]
        index = jnp.arange(grid[axis])[None]
        inside.append((index >= first) & (index < first + side))
        offset = patch[axis] * (out_of - into)[:, axis, None]
        source.append(jnp.clip(jnp.arange(image.shape[1 + axis])[None] + offset, 0, None))
    pasted = inside[0][:, :, None] & inside[1][:, None, :]
    moved = jnp.take_along_axis(other, source[0][:, :, None, None], axis=1, mode="clip")
    moved = jnp.take_along_axis(moved, source[1][:, None, :, None], axis=2, mode="clip")
    pixels = jnp.repeat(jnp.repeat(pasted, patch[0], 1), patch[1], 2)[..., None]
    return jnp.where(pixels, moved, image), pasted


def paste_partners(
    image: jax.Array, attention: jax.Array, side: jax.Array, valid: jax.Array, half: int
) -> tuple[jax.Array, jax.Array]:
    """Replaces the least attended square of every image by the most attended of its partner.

    Args:
      image: (B, H, W, C).
      attention: (B, h, w).
      side: of the squares, in patches.
      valid: bool (B,); other images stay as they are.
      half: number of rows to the partner.

    Returns:
      The images, and bool (B, h, w), the mask of patches from the partner.
    """
    least, most = regions(attention, side)
    other, out_of = (jnp.roll(x, half, axis=0) for x in (image, most))
    mixed, pasted = paste(image, other, least, out_of, side, attention.shape[1:])
    mixed = jnp.where(valid[:, None, None, None], mixed, image)
    return mixed, pasted & valid[:, None, None]
