"""Where in an image the evidence for a class lies: Grad-CAM through the sites of a tower.

The activation maps at a site are weighted by the mean gradient of the class's score and added up
(``vision.blocks.activation_maps``; ``papers/grad_cam`` has guided maps and what is measured of
them). The site is the last map of features. Where the score does not depend on it, as in a
transformer whose head reads the class token of the last block, it is the block before the last.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from vision.blocks.activation_maps import as_maps, relative, spread, weighted
from vision.blocks.sites import SiteError, at_site, shapes
from vision.evaluate.evaluator import Predict
from vision.predict.zero_shot import TextClassifier
from vision.train.objective import Variables
from vision.train.tower import Tap

_BLOCK = re.compile(r"(.*/)?block\d+")
_MAP = re.compile(r"(.*/)?map")
_WARM = np.array([255, 32, 0], np.float32)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Where a model saw evidence for a class in one image. A notebook shows the overlay.

    Attributes:
      file: path of the image, or ``image 0``.
      class_name: the class that is explained.
      probability: of that class, 0..1.
      heat: float32 (H, W), 0..1: the evidence relative to its maximum; zeros where there is none.
      image: uint8 (H, W, C), the part of the image that the model reads, in its size.
    """

    file: str
    class_name: str
    probability: float
    heat: np.ndarray
    image: np.ndarray

    def __repr__(self) -> str:
        return f"Explanation({self.file}, {self.class_name} {self.probability:.1%})"

    def overlay(self, strength: float = 0.6) -> Image.Image:
        """The image with the evidence in red over it.

        Args:
          strength: share of red where the heat is 1, in 0..1.
        """
        share = strength * self.heat[..., None]
        grey = self.image.shape[2] not in (1, 3)
        pixels = self.image.mean(2, keepdims=True) if grey else self.image.astype(np.float32)
        mixed = (1 - share) * np.broadcast_to(pixels, (*self.heat.shape, 3)) + share * _WARM
        return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        image = self.overlay()
        scale = max(1, 224 // max(image.size))
        large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        large.save(buffer, "PNG")
        return buffer.getvalue()


def explained(
    forward: Predict,
    variables: Variables,
    batch: Mapping[str, jax.Array],
    texts: TextClassifier | None,
    target: int | None,
    site: str,
) -> tuple[np.ndarray, int, float]:
    """The map of the first image of a batch.

    Args:
      forward: takes a tap as its third argument.
      variables: of the model.
      batch: on the mesh that is set.
      texts: of a dual encoder's classes; None where the model has logits.
      target: number of the class; None for the likeliest.
      site: of the activations; empty for the default.

    Returns:
      heat float32 (H, W) in 0..1, the number of the class, and its probability.

    Raises:
      SiteError: no such site, or activations there that are no maps.
    """
    sites = shapes(lambda tap: forward(variables, dict(batch), tap))  # pyright: ignore[reportCallIssue]
    tried = (site,) if site else _default(sites)
    if not tried:
        raise SiteError(
            f"the model has no map of features that could be shown; it has {', '.join(sites)}: "
            "name one as site"
        )
    bank = bank_of(texts)
    heat, number, said = np.zeros(0), 0, np.zeros(0)
    for name in tried:
        program = _program(forward, name, _prefix(name, sites), batch["_mask"].sharding)
        about = jnp.int32(-1 if target is None else target)
        try:
            heat, slope, best, said = jax.device_get(program(variables, dict(batch), bank, about))
        except ValueError as error:
            raise SiteError(f"site={name!r} has no maps that cover the image: {error}") from error
        number = int(best[0]) if target is None else target
        if slope[0] > 0:
            break
    probabilities = np.exp(said) if texts is None else texts.probabilities(said)
    return np.asarray(heat[0]), number, float(probabilities[0, number])


def _default(sites: Mapping[str, Any]) -> tuple[str, ...]:
    maps = [name for name, x in sites.items() if _MAP.fullmatch(name) and len(x.shape) == 4]
    blocks = [
        name for name, x in sites.items() if _BLOCK.fullmatch(name) and len(x.shape) in (3, 4)
    ]
    return tuple(maps[-1:] or blocks[-1:]) + tuple(blocks[-2:-1])


def _prefix(name: str, sites: Mapping[str, Any]) -> int:
    """Tokens before the patches at a site: those that the map of the same tower lacks."""
    side, slash, _ = name.rpartition("/")
    place = sites.get(f"{side}{slash}map")
    if name not in sites or len(sites[name].shape) != 3 or place is None or len(place.shape) != 4:
        return 0
    return max(0, sites[name].shape[1] - place.shape[1] * place.shape[2])


def bank_of(texts: TextClassifier | None) -> Any:
    """What ``class_scores`` takes of a dual encoder's classes; None where the model has its own."""
    return None if texts is None else (jnp.asarray(texts.bank), texts.scale, texts.bias)


def class_scores(
    forward: Predict,
    variables: Variables,
    batch: Mapping[str, jax.Array],
    bank: Any,
    tap: Tap | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What is explained: the logits of the classes. Traceable.

    Args:
      forward, variables, batch: the model and its images.
      bank: of ``bank_of``.
      tap: reads or edits activations on the way.

    Returns:
      float32 (B, K), and what probabilities are made of: their logarithms (B, K), or the embeddings
      of a dual encoder's images (B, D).
    """
    out = forward(variables, batch, tap) if tap else forward(variables, batch)  # pyright: ignore
    if bank is not None:
        vectors, scale, bias = bank
        embedding = out["image/embedding"].astype(jnp.float32)
        return scale * embedding @ vectors.T + bias, embedding
    said = out["log_probabilities"].astype(jnp.float32)
    return out.get("logits", said).astype(jnp.float32), said


@functools.lru_cache(maxsize=32)
def _program(forward: Predict, site: str, prefix: int, sharding: Any) -> Any:
    if isinstance(sharding, NamedSharding):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())

    def program(
        variables: Variables, batch: Mapping[str, jax.Array], bank: Any, target: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        def scores(tap: Tap | None) -> tuple[jax.Array, jax.Array]:
            return class_scores(forward, variables, batch, bank, tap)

        values, said = scores(None)
        best = jnp.argmax(values, -1)
        chosen = jnp.where(target < 0, best, target)

        def asked(tap: Tap) -> jax.Array:
            return jnp.take_along_axis(scores(tap)[0], chosen[:, None], 1)[:, 0]

        activation, gradient = at_site(asked, site)
        shape = batch["image"].shape[:3]
        if activation.ndim not in (3, 4):
            raise ValueError(f"it is of shape {activation.shape}")
        maps, slopes = (
            as_maps(x[:, prefix:] if x.ndim == 3 else x, (shape[1], shape[2]))
            for x in (activation, gradient)
        )
        heat = relative(spread(weighted(maps, slopes), shape))
        return heat, jnp.abs(slopes).max((1, 2, 3)), best, said

    return jax.jit(program, out_shardings=sharding)
