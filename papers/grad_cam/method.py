"""Grad-CAM: class activation maps from the gradient of a logit with respect to feature maps.

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization,
2017. Headline: VGG-16 on ILSVRC val localises with an error of 56.51 (top-1) and 46.41 (top-5);
CAM, which needs a special architecture, with 57.20 and 45.14.

Of the maps A_k (h, w) at a site and a scalar y, the logit of a class before the softmax,

    alpha_k = (1 / hw) sum_ij dy / dA_kij,        L = max(0, sum_k alpha_k A_k),

resized to the image (bilinear) and divided by its maximum. Evidence against the class uses -dy/dA
instead of dy/dA (``counterfactual``). Where y is linear in the maps' means, alpha_k is the head's
weight over hw, and L before max(0, .) is CAM over hw.

*Guided backpropagation* (Springenberg et al., 2015) is the gradient at the pixels with another rule
for ReLU, which passes positive cotangents at positive inputs only: c_in = c 1[x > 0] 1[c > 0].
*Guided Grad-CAM* is the product of both.

In a vision transformer the tokens of a block, without the prefix, are the maps. With a class token
the head reads only this token of the last block, so the site is the block before: ``block10`` of
12. (The paper is about convolutional networks; other implementations for transformers take the
input of the last block after its norm.) The layer is chosen by the user, as in the paper.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from vision.blocks.sites import at_site
from vision.blocks.tape import Cotangents, Operation, record, vjp
from vision.evaluators.attribution import Asked


@dataclasses.dataclass(frozen=True)
class GradCam:
    """A map for ``vision.evaluators.attribution``.

    Attributes:
      site: site of the tower, with an activation (B, h, w, K) or (B, prefix + h w, K).
      prefix: number of tokens before the patches.
      counterfactual: evidence against the class instead of for it.
      guided: multiply by the guided gradient, the maximum over channels of its absolute value.
    """

    site: str = "map"
    prefix: int = 0
    counterfactual: bool = False
    guided: bool = False

    def __call__(self, asked: Asked, images: jax.Array) -> jax.Array:
        """(B, H, W) in 0..1.

        Raises:
          SiteError: the tower has no such site.
          ValueError: tokens that are no grid of the image's proportions.
        """
        activation, gradient = at_site(lambda tap: asked(images, tap), self.site)
        height, width = images.shape[1:3]
        maps, gradients = (
            as_maps(x[:, self.prefix :] if x.ndim == 3 else x, (height, width))
            for x in (activation, gradient)
        )
        cam = weighted(maps, -gradients if self.counterfactual else gradients)
        heat = jax.image.resize(jnp.maximum(cam, 0), images.shape[:3], "bilinear")
        if self.guided:
            heat = heat * jnp.abs(guided_gradient(asked, images)).max(-1)
        peak = heat.max((1, 2), keepdims=True)
        return heat / jnp.where(peak > 0, peak, 1)


def weighted(maps: jax.Array, gradients: jax.Array) -> jax.Array:
    """Sum over k of alpha_k A_k of maps and gradients, both (B, h, w, K): float32 (B, h, w)."""
    alpha = gradients.astype(jnp.float32).mean((1, 2))
    return jnp.einsum("bhwk,bk->bhw", maps.astype(jnp.float32), alpha)


def as_maps(tokens: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Tokens (B, h w, K) of images of ``size`` as (B, h, w, K); maps as they are."""
    if tokens.ndim == 4:
        return tokens
    count = tokens.shape[1]
    height = max(1, round(math.sqrt(count * size[0] / size[1])))
    if count % height:
        raise ValueError(
            f"{count} tokens are no grid over images of {size[0]} x {size[1]}: set prefix to the "
            "number of tokens before the patches"
        )
    return tokens.reshape(len(tokens), height, count // height, -1)


def guided_gradient(asked: Asked, images: jax.Array) -> jax.Array:
    """Guided backpropagation: (B, H, W, C)."""
    tape = record(asked, images)
    return tape.pull(jnp.ones(len(images), tape.end.array.dtype), _guided)


def _guided(operation: Operation, cotangents: Cotangents) -> Cotangents:
    if operation.name != "max" or "relu" not in operation.calls:
        return vjp(operation, cotangents)
    [place], [cotangent] = operation.dependent, cotangents
    passed: Cotangents = [None, None]
    passed[place] = jnp.where((operation.inputs[place].array > 0) & (cotangent > 0), cotangent, 0)
    return passed
