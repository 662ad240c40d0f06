"""A box around the patches of highest score, and the image within it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Grid = tuple[int, int]


def box_of_highest(scores: jax.Array, grid: Grid, count: int) -> jax.Array:
    """The smallest box that holds the ``count`` patches of highest score of every image.

    Args:
      scores: (B, N), of patches row by row.
      grid: rows and columns, N together.
      count: 1 to N.

    Returns:
      int32 (B, 4): first row, first column, last row + 1, last column + 1, in patches.
    """
    _, best = jax.lax.top_k(scores, count)
    rows, columns = best // grid[1], best % grid[1]
    ends = (rows.min(1), columns.min(1), rows.max(1) + 1, columns.max(1) + 1)
    return jnp.stack(ends, 1).astype(jnp.int32)


def crop_and_resize(
    images: jax.Array, boxes: jax.Array, size: tuple[int, int] | None = None
) -> jax.Array:
    """The content of each image's box, stretched to a size, bilinear: (B, *size, C) float32.

    Differentiable in the images. Pixel centres are at halves; at the edge of a box its outside
    neighbours have a part in the interpolation.

    Args:
      images: (B, H, W, C) float.
      boxes: (B, 4) float: top, left, bottom, right in pixels, the latter two larger.
      size: rows and columns of the result; None for those of the image.
    """
    height, width = images.shape[1:3] if size is None else size
    channels = images.shape[3]

    def one(image: jax.Array, box: jax.Array) -> jax.Array:
        scale = jnp.array([height, width]) / (box[2:] - box[:2])
        return jax.image.scale_and_translate(
            image, (height, width, channels), (0, 1), scale, -box[:2] * scale, "linear", False
        )

    return jax.vmap(one)(images.astype(jnp.float32), boxes.astype(jnp.float32))
