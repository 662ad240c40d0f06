"""Diffusion: schedules, noising, and samplers whose results are known in closed form."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.diffusion import Diffusion, Noising, classifier_guide, row_noise

SHAPE = (64, 2, 2, 1)
FIRST, SECOND = jax.random.split(jax.random.key(0))
START = jax.random.normal(FIRST, SHAPE)


def normal_noise(diffusion: Diffusion, mean: float, deviation: float) -> Any:
    """The noise that is left, on average, in x_t where images are normal: what a network learns."""
    left = jnp.asarray(diffusion.alpha_bar, jnp.float32)

    def noise_of(x: jax.Array, time: jax.Array) -> jax.Array:
        a, b = jnp.sqrt(left[time]), jnp.sqrt(1 - left[time])
        return b * (x - a * mean) / (a**2 * deviation**2 + b**2)

    return noise_of


@functools.partial(jax.jit, static_argnames=("diffusion", "deviation", "count", "eta", "clip"))
def samples(
    diffusion: Diffusion, deviation: float, count: int, eta: float, clip: float | None = None
) -> jax.Array:
    noise_of = normal_noise(diffusion, 0.5, deviation)
    return diffusion.sample(noise_of, START, SECOND, count=count, eta=eta, clip=clip)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_alpha_bar_decreases_from_one_to_zero(schedule: Noising):
    left = Diffusion(200, schedule).alpha_bar
    assert left.shape == (200,)
    assert (np.diff(left) < 0).all()
    assert left[0] > 0.998
    assert 0 < left[-1] < 1e-3


def test_ho_et_al_are_the_thousand_steps_of_the_linear_schedule():
    variances = 1 - Diffusion().alpha_bar[1:] / Diffusion().alpha_bar[:-1]
    np.testing.assert_allclose(variances, np.linspace(1e-4, 0.02, 1000)[1:], rtol=1e-9)


def test_noise_is_added_by_the_step_of_each_row():
    diffusion = Diffusion(100)
    image, time = jnp.ones(SHAPE), jnp.arange(64)
    actual = diffusion.noised(image, time, START)
    left = diffusion.alpha_bar[:64].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(actual, np.sqrt(left) + np.sqrt(1 - left) * START, atol=1e-6)
    again = diffusion.noised(image, jnp.int32(7), START)[7]
    np.testing.assert_allclose(again, actual[7], atol=1e-6)


def test_sampling_recovers_a_single_image_from_any_noise():
    actual = samples(Diffusion(100), 0.0, 10, 0.0)
    np.testing.assert_allclose(actual, 0.5, atol=1e-5)


def test_a_wide_normal_keeps_mean_and_deviation():
    ddim, ddpm = samples(Diffusion(200), 0.3, 200, 0.0), samples(Diffusion(200), 0.3, 200, 1.0)
    for actual in (ddim, ddpm):
        np.testing.assert_allclose(actual.mean(), 0.5, atol=0.05)
        np.testing.assert_allclose(actual.std(), 0.3, atol=0.03)
    # DDIM has no chance but that of the start: what was larger stays larger.
    order = np.argsort(np.ravel(START))
    assert (np.diff(np.ravel(ddim)[order]) >= 0).all()
    assert not (np.diff(np.ravel(ddpm)[order]) >= 0).all()


def test_ancestral_sampling_is_the_posterior_of_the_forward_process():
    """Two last steps by hand, as Ho et al. write them."""
    diffusion = Diffusion(30)
    noise_of = normal_noise(diffusion, 0.5, 0.3)
    left = diffusion.alpha_bar
    actual = np.asarray(samples(diffusion, 0.3, 30, 1.0), np.float64)
    x, keys = START, jax.random.split(SECOND, 30)
    for i, t in enumerate(reversed(range(30))):
        kept = left[t] / (left[t - 1] if t else 1.0)
        below = left[t - 1] if t else 1.0
        mean = (x - (1 - kept) / np.sqrt(1 - left[t]) * noise_of(x, jnp.int32(t))) / np.sqrt(kept)
        variance = (1 - below) / (1 - left[t]) * (1 - kept)
        x = mean + np.sqrt(variance) * jax.random.normal(keys[i], SHAPE)
    np.testing.assert_allclose(actual, x, atol=1e-4)


def test_the_estimate_is_kept_in_range():
    assert float(jnp.abs(samples(Diffusion(100), 0.3, 10, 0.0, 0.4)).max()) <= 0.4 + 1e-5
    assert float(jnp.abs(samples(Diffusion(100), 0.3, 10, 0.0)).max()) > 0.5


def log_probability(x: jax.Array, time: jax.Array) -> jax.Array:
    """Of y = 1, seen with variance 0.09 at x_0, from x_t where x_0 is normal(0.5, 0.09)."""
    left = jnp.asarray(Diffusion(200).alpha_bar, jnp.float32)
    a, b = jnp.sqrt(left[time]), jnp.sqrt(1 - left[time])
    share = a * 0.09 / (a**2 * 0.09 + b**2)
    mean, variance = 0.5 + share * (x - a * 0.5), 0.09 * (1 - share * a) + 0.09
    return jnp.sum(-0.5 * (1 - mean) ** 2 / variance, axis=(1, 2, 3))


def guided(scale: float, count: int, rows: int) -> jax.Array:
    guide = classifier_guide(log_probability, scale)
    noise_of = normal_noise(Diffusion(200), 0.5, 0.3)
    return Diffusion(200).sample(
        noise_of, START[:rows], SECOND, count=count, guide=guide, clip=None
    )


def test_a_zero_guide_changes_nothing_bitwise():
    # Operation by operation: a compiler may round two programs differently.
    with jax.disable_jit():
        noise_of = normal_noise(Diffusion(200), 0.5, 0.3)
        plain = Diffusion(200).sample(noise_of, START[:2], SECOND, count=6, clip=None)
        np.testing.assert_array_equal(guided(0.0, 6, 2), plain)
        assert np.abs(guided(0.01, 6, 2) - plain).max() > 1e-4


def test_a_guide_leads_to_the_posterior():
    actual = jax.jit(guided, static_argnums=(0, 1, 2))(1.0, 200, 64)
    np.testing.assert_allclose(actual.mean(), 0.75, atol=0.04)
    np.testing.assert_allclose(actual.std(), 0.3 / 2**0.5, atol=0.03)


def test_noise_depends_on_the_record_not_on_its_batch():
    key = jax.random.key(3)
    actual = row_noise(key, jnp.array([4, 9, 2]), (2, 2))
    np.testing.assert_array_equal(actual[1], row_noise(key, jnp.array([9]), (2, 2))[0])
    assert not np.array_equal(actual[0], actual[1])


def test_errors_of_values():
    with pytest.raises(ValueError, match="steps is 20, expected a whole number >= 21"):
        Diffusion(20)
    with pytest.raises(ValueError, match="schedule is 'other'"):
        Diffusion(100, "other")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="count=101"):
        Diffusion(100).respaced(101)
    assert Diffusion(100).respaced(1).tolist() == [99]
    assert Diffusion(100).respaced(3).tolist() == [0, 50, 99]
