"""A classifier that reads the same token at several depths."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, checked
from vision.models.conv_layers import batch_norm
from vision.models.layers import activate, as_output, dense
from vision.train.precision import Precision

SUMS = 2  # over depths, per channel


@checked
class DepthHead(nn.Module):
    """(B, S, D) tokens of S depths to (B, num_classes) logits.

    BatchNorm; for every channel ``SUMS`` weighted sums over depths, which is a depthwise
    convolution of kernel S; BatchNorm; GELU; linear. From Rios et al., Cross-Layer Cache
    Aggregation, 2024.

    Attributes:
      num_classes: of the logits.
      precision: number formats.
    """

    num_classes: Positive[int]
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        batch, depths, width = x.shape
        precision = as_output(self.precision)
        x = batch_norm(x.astype(precision.compute), train, precision, "norm1")
        init = nn.initializers.normal(depths**-0.5)
        shape = (depths, width, SUMS)
        kernel = self.param("depths", init, shape, precision.params)
        bias = self.param("bias", nn.initializers.zeros, shape[1:], precision.params)
        x = jnp.einsum("bsd,sdm->bdm", x, kernel.astype(x.dtype)) + bias.astype(x.dtype)
        x = batch_norm(x.reshape(batch, -1), train, precision, "norm2")
        small = nn.initializers.normal(0.01)
        return dense(activate(x, "gelu"), self.num_classes, precision, "head", small)
