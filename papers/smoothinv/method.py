"""SmoothInv: the backdoor of a network from a single image, by climbing its smoothed copy.

Sun and Kolter, Single Image Backdoor Inversion via Robust Smoothed Classifiers, 2023. Headline:
from one image, triggers whose success is close to that of the true ones (54 to 100 %).

    g(x) = mean over n = 1..40 of softmax(f(x + sigma e_n)),    e_n ~ N(0, I),  drawn in every step
    delta = argmax log g_t(x + delta),   |delta|_2 <= eps,  x + delta in 0..1

by 400 steps of gradients of unit length with momentum 0.9 and rate eps / 20, halved after 300. The
success of a perturbation is the share of other images, not of class t, that f gives to t when it is
added. Where t is the backdoor's class, climbing it from one image finds what works on all; a class
whose success stands out is the suspect.

Identities: with sigma = 0 the smoothed network is the network, and without momentum the climb is
targeted PGD in l2; delta stays in the ball and the image in 0..1.

What is inverted is poisoned as in Pan et al., From Trojan Horses to Castle Walls: Unveiling
Bilateral Data Poisoning Effects in Diffusion Models, 2023 (BiBadDiff): a share of the images of
other classes gets a patch or a blended pattern and the label of the target.

Differences: denoising between noise and network (their second form) is left out, as are the
triggers of Blind, TrojAI and hidden-trigger attacks, and what the poison does to a diffusion model.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from papers.smoothinv.inversion import Inversion
from vision.blocks.attack import LogitsFn, Randomised, init, run, updates


def smoothed(logits_fn: LogitsFn, sigma: float | jax.Array, samples: int) -> Randomised:
    """log g(x), float32 (B, K), as a network that draws; its softmax is g.

    Args:
      logits_fn: f, of images (B, H, W, C) in 0..1.
      sigma: standard deviation of the noise, of pixels in 0..1; 0 for none.
      samples: n, all in one forward pass.
    """

    def drawn(images: jax.Array, keys: jax.Array) -> jax.Array:
        def noise(key: jax.Array) -> jax.Array:
            return jax.random.normal(key, (samples, *images.shape[1:]))

        noisy = images[:, None] + sigma * jax.vmap(noise)(keys)
        logits = logits_fn(noisy.reshape(-1, *images.shape[1:])).astype(jnp.float32)
        # Told before softmax, whose maximum need not keep NaN: the attack has to hear of them.
        finite = jnp.isfinite(logits).all(-1, keepdims=True)
        of_draws = jax.nn.log_softmax(jnp.where(finite, logits, 0))
        of_draws = of_draws.reshape(len(images), samples, -1)
        told = finite.reshape(len(images), samples).all(1, keepdims=True)
        return jnp.where(told, jax.nn.logsumexp(of_draws, 1) - jnp.log(samples), jnp.nan)

    return Randomised(drawn)


def inverted(
    rule: Inversion,
    logits_fn: LogitsFn,
    images: jax.Array,
    target: jax.Array,
    key: jax.Array,
    sigma: float | jax.Array = 0.25,
    samples: int = 40,
) -> jax.Array:
    """Perturbations (B, H, W, C), one from every image alone, that lead to ``target`` (B,).

    Traceable.
    """
    state = init(rule, key, images, target)
    end = run(rule, smoothed(logits_fn, sigma, samples), state, updates(rule))
    return end.at - end.image


def success(
    logits_fn: LogitsFn, images: jax.Array, label: jax.Array, delta: jax.Array, target: jax.Array
) -> jax.Array:
    """Scalar: share of the images that are not of ``target`` and are given to it with ``delta``."""
    said = jnp.argmax(logits_fn(jnp.clip(images + delta, 0, 1)), -1)
    others = label != target
    return jnp.sum((said == target) & others) / jnp.maximum(others.sum(), 1)


def energy_inside(delta: jax.Array, mask: jax.Array) -> jax.Array:
    """Share (B,) of the squares of perturbations (B, H, W, C) in the pixels of a mask (H, W)."""
    square = jnp.square(delta).sum(-1)
    total = jnp.maximum(square.sum((1, 2)), 1e-12)
    return jnp.where(mask, square, 0).sum((1, 2)) / total
