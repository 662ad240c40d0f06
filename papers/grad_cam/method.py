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

import jax
import jax.numpy as jnp

from vision.blocks.activation_maps import as_maps, relative, spread, weighted
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
        heat = spread(cam, images.shape[:3])
        if self.guided:
            heat = heat * jnp.abs(guided_gradient(asked, images)).max(-1)
        return relative(heat)


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
