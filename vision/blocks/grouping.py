"""Patches that a text selects, pooled to one vector: the fine-grained loss of DreamLIP.

Zheng et al., DreamLIP: Language-Image Pre-training with Long Captions, 2024. With a unit text t and
the unit patches v_p of its image, the similarities t . v_p are min-max scaled to 0..1 over the
patches; those below a threshold become 0; divided by their sum they are weights w_p; and
u = normalise(sum_p w_p v_p). Every sub-caption of every image and its u are a positive pair.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vision.blocks.contrast import Loss, Softmax
from vision.blocks.similarity import ContrastError, check_widths, inner, unit
from vision.config.ranges import Finite, NonNegative, checked


@dataclasses.dataclass(frozen=True)
@checked
class Grouping:
    """Contrast of sub-captions with the patches that they select, over the whole batch.

    Attributes:
      weight: of this loss relative to the one of whole images.
      threshold: patches of lower similarity, scaled to 0..1, are not selected; above 1 no patch
        is ever selected. None: one over the number of patches.
      prefix: tokens of the image tower before its patches, which are left out: 1 for a class token.
      criterion: loss between all texts and all groups, with its own learned parameters.
    """

    weight: NonNegative[Finite] = 1.0
    threshold: NonNegative[float] | None = 0.1
    prefix: NonNegative[int] = 0
    criterion: Loss = Softmax()  # noqa: RUF009 - frozen

    def gather(self, tokens: jax.Array, texts: jax.Array) -> jax.Array:
        """Unit vectors (B, K, D) float32 of the patches that every text selects.

        Zero where nothing is selected. If all patches are equally similar, all are selected with
        equal weight, so that the group of a single patch is that patch.

        Args:
          tokens: (B, prefix + P, D) of the images, of any length.
          texts: (B, K, D) unit vectors, K texts per image.
        """
        check_widths(tokens, texts)
        patches = unit(tokens[:, self.prefix :])
        count = patches.shape[1]
        if not count:
            raise ContrastError(
                f"an image has {tokens.shape[1]} tokens and prefix={self.prefix} of them are left "
                "out: no patch remains"
            )
        similarity = inner("bkd,bpd->bkp", texts, patches)
        low = jnp.min(similarity, -1, keepdims=True)
        spread = jnp.max(similarity, -1, keepdims=True) - low
        varies = spread > 1e-6
        stretched = jnp.where(varies, (similarity - low) / jnp.where(varies, spread, 1.0), 1.0)
        threshold = 1 / count if self.threshold is None else self.threshold
        selected = jnp.where(stretched >= threshold, stretched, 0.0)
        total = jnp.sum(selected, -1, keepdims=True)
        weights = selected / jnp.where(total > 0, total, 1.0)
        return unit(inner("bkp,bpd->bkd", weights, patches))
