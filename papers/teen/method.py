"""TEEN: training-free calibration of few-shot prototypes by similar base-class prototypes.

A network and a cosine classifier are trained on the base classes. Then every class is represented
by the mean feature of its records, a unit vector, without further training. The mean of five
records is biased, and features of new classes lie near those of similar base classes; so the
prototype p_n of a new class is calibrated by the base prototypes p_b,

    s_nb = softmax_b(tau p_n . p_b),    d_n = unit(sum_b s_nb p_b),
    p_n' = (1 - alpha) p_n + alpha d_n,

and the prediction is the class of the largest cosine. With alpha = 0 this is the nearest mean.

Wang et al., Few-Shot Class-Incremental Learning via Training-Free Prototype Calibration, 2023.
Headline: about 52.1 % after the last session on miniImageNet and 59.3 % on CUB. Scale of the
cosines 16 (CIFAR-100) or 32; alpha 0.1 on CIFAR-100, else 0.5; tau 16.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vision.blocks.similarity import unit


def calibrated(new: jax.Array, base: jax.Array, alpha: float, tau: float = 16.0) -> jax.Array:
    """New prototypes (N, D) mixed with a share ``alpha`` of similar base prototypes (B, D).

    The inputs are unit vectors.
    """
    cosines = jnp.dot(new, base.T, precision=jax.lax.Precision.HIGHEST)
    estimate = jnp.dot(jax.nn.softmax(tau * cosines), base, precision=jax.lax.Precision.HIGHEST)
    return (1 - alpha) * new + alpha * unit(estimate)
