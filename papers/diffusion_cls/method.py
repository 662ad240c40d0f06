"""Linear probes on U-Net features of a diffusion model, by block and noise level.

A denoising network learns features of image content. It stays frozen: the image is noised once to
step t, the U-Net runs, the map of block b is average-pooled to k x k, and a classifier is fitted:

    x_t = sqrt(abar_t) x + sqrt(1 - abar_t) e,   f_{t,b}(x) = flatten(pool_{k x k}(U_b(x_t, t)))

The question is which (t, b) is best: enough noise to remove detail, too little to hide the class,
and a block early in the decoder.

Mukhopadhyay et al., Do Text-free Diffusion Models Learn Discriminative Visual Representations?
(Diffusion Models Beat GANs on Image Classification), 2023. Headline: 71.89 % on ImageNet by a head
of attention, 61.95 % by a linear one (unconfirmed), at t = 90 and block 24 of 37. Differences: of
the heads only the linear one (A) is here, not the MLP, the small CNN and the attention head; it is
fitted to its minimum on one noise sample per record, where the authors sample at every step.
CKA between two (t, b) is ``vision.metrics.representation.linear_cka`` of such features.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vision.blocks.diffusion import Diffusion, row_noise
from vision.evaluate.evaluator import Predict
from vision.train.objective import Batch, Variables


def features(
    predict: Predict,
    variables: Variables,
    batch: Batch,
    diffusion: Diffusion,
    time: jax.Array | int,
    pool: int = 2,
    seed: int = 0,
) -> dict[str, jax.Array]:
    """Name of a block to f_{t,b}, float32 (B, k k C).

    Args:
      predict: of ``vision.objectives.denoise.Denoise``.
      variables: the diffusion model's.
      batch: ``image`` (B, H, W, C), clean, and ``_index`` (B,), which decides a record's noise.
      diffusion: the schedule that the model was trained with.
      time: t, () or (B,).
      pool: k; smaller maps are not pooled.
      seed: of the noise.
    """
    image = batch["image"]
    noise = row_noise(jax.random.key(seed), batch["_index"], image.shape[1:])
    noised = {"image": diffusion.noised(image, jnp.asarray(time), noise), "time": time}
    out = predict(variables, noised)
    return {name: pooled(x, pool) for name, x in out.items() if name.startswith("block")}


def pooled(x: jax.Array, size: int) -> jax.Array:
    """(B, h, w, C) to float32 (B, size size C): means over boxes as equal in size as possible."""
    for axis in (1, 2):
        length = x.shape[axis]
        count = min(size, length)
        edges = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        parts = [
            jax.lax.slice_in_dim(x, low, high, axis=axis).mean(axis, dtype=jnp.float32)
            for low, high in edges
        ]
        x = jnp.stack(parts, axis=axis)
    return x.reshape(len(x), -1)
