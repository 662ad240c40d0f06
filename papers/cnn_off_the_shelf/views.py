"""The 16 views of an image, and their features."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from vision.evaluate.evaluator import Predict
from vision.train.objective import Batch, Variables

VIEWS = 16


_TURN_DEG, _SIDE = 10.0, 2 / 3


def views(image: jax.Array) -> jax.Array:
    """Images (B, h, w, C) to (B, 16, h, w, C), the image itself first. Traceable."""
    height, width = image.shape[1:3]
    rows, columns = round(_SIDE * height), round(_SIDE * width)
    tops = (0, 0, height - rows, height - rows, (height - rows) // 2)
    lefts = (0, width - columns, 0, width - columns, (width - columns) // 2)
    parts = [image]
    for top, left in zip(tops, lefts, strict=True):
        crop = image[:, top : top + rows, left : left + columns]
        parts.append(jax.image.resize(crop, image.shape, "bilinear"))
    parts += [_turned(image, np.deg2rad(angle)) for angle in (-_TURN_DEG, _TURN_DEG)]
    return jnp.stack([*parts, *(view[:, :, ::-1] for view in parts)], 1)


def _turned(image: jax.Array, angle: float) -> jax.Array:
    """Images rotated about the centre by ``angle`` in radians; the edges are repeated."""
    centres = (np.asarray(image.shape[1:3]) - 1) / 2
    y, x = np.indices(image.shape[1:3]) - centres[:, None, None]
    sampled = [np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x]
    sampled = [
        jnp.asarray(coordinate + centre)
        for coordinate, centre in zip(sampled, centres, strict=True)
    ]
    rotate = functools.partial(map_coordinates, coordinates=sampled, order=1, mode="nearest")
    planes = jax.vmap(rotate)(jnp.moveaxis(image, 3, 1).reshape(-1, *image.shape[1:3]))
    planes = planes.reshape(image.shape[0], image.shape[3], *image.shape[1:3])
    return jnp.moveaxis(planes, 1, 3)


@dataclasses.dataclass(frozen=True)
class Viewed:
    """``predict`` with the ``embedding`` of all views concatenated, (B, 16 D).

    Attributes:
      predict: of the run.
    """

    predict: Predict

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        def features_of(image: jax.Array) -> jax.Array:
            return self.predict(variables, {**batch, "image": image})["embedding"]

        features = jax.lax.map(features_of, jnp.moveaxis(views(batch["image"]), 1, 0))
        return {"embedding": jnp.moveaxis(features, 0, 1).reshape(features.shape[1], -1)}
