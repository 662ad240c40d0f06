"""Gaussian diffusion: noise schedules, forward process, and sampling with or without guidance.

With T steps and a_t = sqrt(abar_t), b_t = sqrt(1 - abar_t), t in 0..T - 1 (0 is nearly clean),

    x_t = a_t x_0 + b_t e,    e ~ N(0, I)

and a network predicts e from x_t and t. A step of sampling, from t to the step before it, s:

    x_0 = (x_t - b_t e) / a_t
    x_s = a_s x_0 + sqrt(b_s^2 - v) e + sqrt(v) z,    z ~ N(0, I)
    v = eta^2 (b_s / b_t)^2 (1 - abar_t / abar_s)

eta = 0 is DDIM, deterministic given the start; eta = 1 at every step is DDPM's ancestral
sampling. Guidance by the gradient g of a log-density replaces e by e - b_t g.

Ho et al., Denoising Diffusion Probabilistic Models, 2020; Song et al., Denoising Diffusion Implicit
Models, 2021; Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021; Dhariwal
and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vision.config.ranges import Ge, checked

Noising = Literal["linear", "cosine"]
# Maps (B, H, W, C) images and their step, an int32 scalar, to an array of the images' shape.
OfImage = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
@checked
class Diffusion:
    """A noise schedule of ``steps`` steps.

    Attributes:
      steps: T.
      schedule: ``linear``: variances rise from 0.1 / T to 20 / T, which is Ho et al.'s for
        T = 1000; ``cosine``: abar falls like a squared cosine (Nichol and Dhariwal).
    """

    # With fewer the last variance of the linear schedule would be above 1.
    steps: Annotated[int, Ge(21)] = 1000
    schedule: Noising = "linear"

    @functools.cached_property
    def alpha_bar(self) -> np.ndarray:
        """abar, float64 (T,): the remaining share of the image's variance, decreasing."""
        if self.schedule == "linear":
            variances = np.linspace(0.1 / self.steps, 20 / self.steps, self.steps)
        else:
            angle = (np.arange(self.steps + 1) / self.steps + 0.008) / 1.008
            signal = np.cos(angle * np.pi / 2) ** 2
            variances = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
        return np.cumprod(1 - variances)

    def noised(self, image: jax.Array, time: jax.Array, noise: jax.Array) -> jax.Array:
        """x_t of images (B, H, W, C) in [-1, 1] and noise of their shape; ``time`` (B,) or ()."""
        shape = (-1,) + (1,) * (image.ndim - 1)
        signal = jnp.asarray(np.sqrt(self.alpha_bar), image.dtype)[time].reshape(shape)
        spread = jnp.asarray(np.sqrt(1 - self.alpha_bar), image.dtype)[time].reshape(shape)
        return signal * image + spread * noise

    def respaced(self, count: int) -> np.ndarray:
        """int32 (count,), evenly spaced steps from 0 to T - 1.

        Raises:
          ValueError: ``count`` outside 1..T.
        """
        if not 1 <= count <= self.steps:
            raise ValueError(f"count={count}, but it is 1 to the {self.steps} steps of training")
        if count == 1:
            return np.array([self.steps - 1], np.int32)
        return np.linspace(0, self.steps - 1, count).round().astype(np.int32)

    def sample(
        self,
        noise_of: OfImage,
        start: jax.Array,
        key: jax.Array,
        *,
        count: int = 25,
        eta: float = 0.0,
        guide: OfImage | None = None,
        clip: float | None = 1.0,
    ) -> jax.Array:
        """Images (B, H, W, C) from noise. Traceable.

        Args:
          noise_of: the network's prediction of the noise in x_t.
          start: (B, H, W, C), normal noise.
          key: of z; nothing is drawn at ``eta`` 0.
          count: number of steps, spaced as in ``respaced``.
          eta: 0 is DDIM, 1 ancestral.
          guide: gradient of a log-density at x_t, see ``classifier_guide``; None for none.
          clip: the estimate of x_0, before guidance, is clipped to -clip..clip; None for no
            clipping.
        """
        times = self.respaced(count)
        alpha_bar = self.alpha_bar[times]
        next_alpha_bar = np.append(1.0, alpha_bar[:-1])
        variance = (
            eta**2 * (1 - next_alpha_bar) / (1 - alpha_bar) * (1 - alpha_bar / next_alpha_bar)
        )
        table = np.stack(
            [
                np.sqrt(alpha_bar),
                np.sqrt(1 - alpha_bar),
                np.sqrt(next_alpha_bar),
                np.sqrt(np.maximum(1 - next_alpha_bar - variance, 0)),
                np.sqrt(variance),
            ],
            axis=1,
        )[::-1]

        def step(x: jax.Array, row: Any) -> tuple[jax.Array, None]:
            time, (a, b, a_next, direction, sigma), k = row
            noise = noise_of(x, time)
            image = (x - b * noise) / a
            if clip is not None:
                image = jnp.clip(image, -clip, clip)
                noise = (x - a * image) / b
            if guide is not None:
                # As increments, so that a guide of zero changes nothing, bit for bit.
                shift = b * guide(x, time)
                noise, image = noise - shift, image + (b / a) * shift
            x = a_next * image + direction * noise
            if eta:
                x = x + sigma * jax.random.normal(k, x.shape, x.dtype)
            return x, None

        keys = jax.random.split(key, count)
        rows = (jnp.asarray(times[::-1].copy()), jnp.asarray(table, start.dtype), keys)
        return jax.lax.scan(step, start, rows)[0]


def classifier_guide(
    log_probability: Callable[[jax.Array, jax.Array], jax.Array], scale: float | jax.Array
) -> OfImage:
    """The guide ``scale * d/dx log p(y | x_t)``.

    Args:
      log_probability: (B,) of the target classes, from (B, H, W, C) images and their step.
      scale: s; 0 samples without guidance.
    """

    def guide(x: jax.Array, time: jax.Array) -> jax.Array:
        return scale * jax.grad(lambda x: jnp.sum(log_probability(x, time)))(x)

    return guide


def row_noise(key: jax.Array, index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Normal float32 (B, *shape): row i depends only on ``key`` and ``index[i]``, (B,)."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    return jax.vmap(lambda k: jax.random.normal(k, shape))(keys)
