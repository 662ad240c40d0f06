"""The small network between a tower and a loss of self-supervised learning."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax

from vision.config.ranges import Positive, checked
from vision.models.layers import activate, dense
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap


@checked
class Projector(nn.Module):
    """Dense layers with an activation between them.

    Called with vectors (B, D), gives ``(projection, out)``: ``block00``.. are (B, width) after
    each activation; ``embedding``, the projection, is the last layer, without one.

    Attributes:
      widths: of the layers, the projection's last.
      activation: ``relu``, or ``gelu``, exact (erf).
      precision: number formats.
    """

    widths: tuple[Positive[int], ...] = (256, 128, 50)
    activation: Literal["relu", "gelu"] = "relu"
    precision: Precision = Precision()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        out: dict[str, jax.Array] = {}
        he = nn.initializers.he_normal()
        for i, width in enumerate(self.widths[:-1]):
            site = f"block{i:02d}"
            x = dense(x, width, self.precision, f"fc{i}", he)
            x = nn.relu(x) if self.activation == "relu" else activate(x, self.activation)
            x = out[site] = apply_tap(tap, site, x)
        lecun = nn.initializers.lecun_normal()
        x = dense(x, self.widths[-1], self.precision, f"fc{len(self.widths) - 1}", lecun)
        x = out["embedding"] = apply_tap(tap, "embedding", x.astype(self.precision.output))
        return x, out
