"""MLP-Mixer: MLPs over patches and over channels in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonNegative, Positive, Rate, checked
from vision.models.layers import (
    Activation,
    Mlp,
    Remat,
    check_images,
    classify,
    drop_path,
    layer_norm,
)
from vision.models.patches import embed_patches, spatial_tokens
from vision.models.transformer import XAVIER, Noise, run_blocks
from vision.parallel.mesh import constrain_batch
from vision.train.precision import Precision
from vision.train.tower import Tap, apply_tap, chain_layers_above


class MixerBlock(nn.Module):
    """``x + mix(norm1(x))`` over patches, then ``x + mlp(norm2(x))`` over channels.

    Returns, and has sites, as ``vision.models.transformer.Block``; its branch ``mix`` stands at
    ``blockNN/mix``.

    Attributes:
      mix_dim, mlp_dim: hidden widths of the two MLPs.
      dropout: of both branches.
      precision: number formats.
      activation: of the MLPs.
      norm_epsilon: of LayerNorm.
      tap: see ``vision.train.tower.Tap``.
      site: name of the block for the tap.
    """

    mix_dim: int
    mlp_dim: int
    dropout: float
    precision: Precision
    activation: Activation
    norm_epsilon: float
    tap: Tap | None = None
    site: str = ""

    @nn.compact
    def __call__(
        self, x: jax.Array, noise: Noise | None, mask: None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        tap, site = self.tap, self.site
        key, rate = (None, None) if noise is None else noise
        keys = (None,) * 4 if key is None else tuple(jax.random.split(key, 4))
        y = layer_norm(x, self.precision, "norm1", self.norm_epsilon).swapaxes(1, 2)
        y = self._mlp(self.mix_dim, "mix")(y, keys[0]).swapaxes(1, 2)
        out = {"mix": apply_tap(tap, f"{site}/mix", drop_path(y, keys[1], rate))}
        x = x + out["mix"]
        y = layer_norm(x, self.precision, "norm2", self.norm_epsilon)
        y = self._mlp(self.mlp_dim, "mlp")(y, keys[2])
        out["mlp"] = apply_tap(tap, f"{site}/mlp", drop_path(y, keys[3], rate))
        x = out[""] = apply_tap(tap, site, constrain_batch(x + out["mlp"]))
        return x, out

    @nn.nowrap
    def _mlp(self, hidden: int, name: str) -> Mlp:
        return Mlp(
            hidden,
            XAVIER.fc1,
            self.precision,
            XAVIER.mlp_bias,
            self.dropout,
            self.activation,
            name=name,
        )


@checked
class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al., 2021).

    Called, and with sites, as ``vision.models.vit.ViT``, without prefix tokens and attention:
    ``blockNN/mix`` is the branch over patches. Images have the size that the parameters are made
    for, since those of ``mix`` are per patch.

    Attributes:
      width, depth, patch: sizes.
      mix_dim: hidden width of the MLPs over patches.
      mlp_dim: hidden width of the MLPs over channels.
      num_classes: classes of the head; None and 0 both mean no head.
      activation: of the MLPs.
      norm_epsilon, scan, remat, drop_path, dropout, precision, head_zero_init: as in ``ViT``.
    """

    width: Positive[int]
    depth: Positive[int]
    patch: Positive[int]
    mix_dim: Positive[int]
    mlp_dim: Positive[int]
    num_classes: NonNegative[int] | None = None
    activation: Activation = "gelu"
    norm_epsilon: Positive[float] = 1e-6
    scan: bool = True
    remat: Remat = "none"
    drop_path: Rate = 0.0
    dropout: Rate = 0.0
    precision: Precision = Precision()
    head_zero_init: bool = True

    @nn.nowrap
    def layers_above(self, path: Sequence[str]) -> int | Sequence[int]:
        """See ``vision.train.tower.Layered``."""
        return chain_layers_above(path[0], self.depth, ("patch_embed",))

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        check_images(x)
        noisy = train and (self.dropout or self.drop_path)
        key = self.make_rng("dropout") if noisy else None
        x = embed_patches(x, self.width, self.patch, self.precision)
        grid = (x.shape[1], x.shape[2])
        x = constrain_batch(x.reshape(x.shape[0], -1, self.width))
        self._check(x.shape[1])
        out = {"stem": apply_tap(tap, "stem", x)}
        fields: Mapping[str, Any] = {
            "mix_dim": self.mix_dim,
            "mlp_dim": self.mlp_dim,
            "dropout": self.dropout,
            "precision": self.precision,
            "activation": self.activation,
            "norm_epsilon": self.norm_epsilon,
        }
        x, blocks = run_blocks(
            self,
            MixerBlock,
            fields,
            out["stem"],
            depth=self.depth,
            scan=self.scan,
            remat=self.remat,
            key=key,
            drop_path=self.drop_path,
            tap=tap,
        )
        out |= blocks
        x = layer_norm(x, self.precision, "norm", self.norm_epsilon)
        x = out["tokens"] = apply_tap(tap, "tokens", x)
        patches = spatial_tokens(x, 0, grid, out, tap)
        pooled = patches.mean(axis=1, dtype=jnp.float32).astype(self.precision.output)
        pooled = out["pooled"] = apply_tap(tap, "pooled", pooled)
        return classify(pooled, out, tap, self.num_classes, self.head_zero_init, self.precision)

    @nn.nowrap
    def _check(self, patches: int) -> None:
        first = "blocks" if self.scan else "block00"
        if not self.has_variable("params", first):
            return
        made = self.get_variable("params", first)["mix"]["fc1"]["kernel"].shape[-2]
        if made != patches:
            raise ValueError(
                f"the images have {patches} patches, and the parameters are of {made}: a Mixer "
                "takes images of the size that it was made with"
            )
