"""Attacks in the space of data transfer between models; those in a space of one model do not.

Why Representation-Space Attacks Fail to Transfer. No code of the authors was found; what is here
follows the card. Headline: attacks on representations succeed on their own model as those on data
do, and hardly on others, unless their spaces are aligned (unconfirmed).

Let a network be g(h(x)), and another one g' = g Q^-1, h' = Q h with a rotation Q: the same function
in other coordinates. Then

    g'(h'(x + d))      = g(h(x + d))           a perturbation of data does the same to both
    g'(h'(x) + e)      = g(h(x) + Q^-1 e)      one of h meets h' in a random direction
    g'(h'(x) + Q e)    = g(h(x) + e)           and does the same where it is rotated too

The three are exact identities and tests. Networks of other seeds are measured: a perturbation d for
all images that leads to a class t, in pixels or added to the activations at a site (its length is
bounded by a share of theirs), is learned on one network and added at the same place of others; and
added after a linear map that leads from the activations of the one to those of the other:

    M = argmin |A M - B|^2    over rows of channels, centred           least squares
    Q = U V',  U S V' = A' B                                            rotation (Procrustes)

Both attacks run in the loop of ``vision.blocks.attack`` by the rule ``universal.Universal``;
activations of any shape are brought to (B, H, W, C), and a tap puts them back.

Differences: the authors' attacks on language models and on vision-language models are left out:
there is no such model here. One batch has all images that a perturbation is learned on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from papers.rep_vs_data.universal import Universal
from vision.blocks.attack import init, run, updates
from vision.blocks.sites import activations
from vision.train.tower import Tap

# Images (B, H, W, C) in 0..1 and a tap, or none, to logits (B, K).
Call = Callable[[jax.Array, Tap | None], jax.Array]
Alignment = Literal["least_squares", "rotation"]


def perturbation(
    rule: Universal,
    call: Call,
    pixels: jax.Array,
    target: jax.Array,
    attacked: jax.Array | None = None,
    site: str = "",
) -> jax.Array:
    """One perturbation for all images, of the shape of an image or of a site's activation.

    Traceable.

    Args:
      rule: of pixels where ``site`` is empty, else of activations.
      call: the network.
      pixels: (B, H, W, C) float32 in 0..1.
      target: int scalar, the class to lead to, or (B,) the true classes of an untargeted rule.
      attacked: (B,) bool, images that count; None for all.
      site: of the tower; empty for pixels.

    Raises:
      SiteError: the tower has no such site.
      ValueError: a rule for the other kind of points.
    """
    if rule.pixels != (not site):
        raise ValueError(f"site={site!r} and a rule with pixels={rule.pixels}")
    points, logits_fn = pixels, lambda at: call(at, None)
    if site:
        points = activations(lambda tap: call(pixels, tap), (site,))[0].astype(jnp.float32)

        def logits_fn(at: jax.Array) -> jax.Array:
            return call(pixels, Tap(lambda _, x: at.reshape(x.shape).astype(x.dtype), pattern))

        pattern = re.escape(site)
    label = jnp.broadcast_to(target, len(pixels))
    shaped = points.reshape(_four(points.shape))
    start = init(rule, jax.random.key(0), shaped, label, attacked)
    end = run(rule, logits_fn, start, updates(rule))
    return end.memory["delta"][0].reshape(points.shape[1:])


def perturbed(call: Call, pixels: jax.Array, delta: jax.Array, site: str = "") -> jax.Array:
    """Logits (B, K) of images to which, or to whose activations, ``delta`` is added."""
    if not site:
        return call(jnp.clip(pixels + delta, 0, 1), None)
    return call(pixels, Tap(lambda _, x: x + delta.astype(x.dtype), re.escape(site)))


def aligned(source: np.ndarray, other: np.ndarray, how: Alignment) -> np.ndarray:
    """The linear map (C, C') from rows (N, C) of the source to those of the other (N, C').

    Raises:
      ValueError: other numbers of rows, or for a rotation of channels.
    """
    if len(source) != len(other) or (how == "rotation" and source.shape != other.shape):
        raise ValueError(
            f"activations are {list(source.shape)} and {list(other.shape)}; rows are one each of "
            "the same images, and a rotation needs as many channels"
        )
    a, b = (x.astype(np.float64) - x.mean(0) for x in (source, other))
    if how == "rotation":
        left, _, right = np.linalg.svd(a.T @ b)
        return left @ right
    return np.linalg.lstsq(a, b, rcond=1e-6)[0]


def transported(delta: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A perturbation (..., C) in the channels of another network (..., C')."""
    return (delta.astype(np.float64) @ matrix).astype(np.float32)


def channels(x: Any) -> np.ndarray:
    """Activations (B, ..., C) as rows (N, C), a row for every place of every image."""
    x = np.asarray(x, np.float32)
    return x.reshape(-1, x.shape[-1])


def _four(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(B, ..., C) as (B, H, W, C)."""
    return (shape[0], -1, 1, shape[-1]) if len(shape) != 4 else shape
