"""Activations and gradients at a site of a tower, for attribution and feature methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from vision.config.errors import UserError
from vision.train.tower import Tap


class SiteError(UserError):
    """A tower has no such site."""


def activations(call: Callable[[Tap], object], sites: tuple[str, ...]) -> list[jax.Array]:
    """The activations at ``sites`` when ``call`` runs with a tap. Traceable.

    Raises:
      SiteError: no such site; the message lists the existing ones.
    """
    captured: dict[str, jax.Array] = {}

    def capture(name: str, x: jax.Array) -> jax.Array:
        captured[name] = x
        return x

    call(Tap(capture, "|".join(map(re.escape, sites))))
    for site in sites:
        if site not in captured:
            raise SiteError(_absent(site, shapes(call)))
    return [captured[site] for site in sites]


def at_site(call: Callable[[Tap], jax.Array], site: str) -> tuple[jax.Array, jax.Array]:
    """The activation at ``site``, and the gradient of ``sum(call(tap))`` with respect to it.

    It is the gradient of a zero that a tap adds at the site, so the model is not changed.
    Traceable.

    Raises:
      SiteError: no such site; the message lists the existing ones.
    """
    known = shapes(call)
    if site not in known:
        raise SiteError(_absent(site, known))

    def shifted(zero: jax.Array) -> tuple[jax.Array, jax.Array]:
        captured: list[jax.Array] = []

        def add(_: str, x: jax.Array) -> jax.Array:
            captured.append(x)
            return x + zero

        return call(Tap(add, re.escape(site))).sum(), captured[0]

    gradient, activation = jax.grad(shifted, has_aux=True)(
        jnp.zeros(known[site].shape, known[site].dtype)
    )
    return activation, gradient


def shapes(call: Callable[[Tap], object]) -> dict[str, jax.ShapeDtypeStruct]:
    """Name to shape and dtype of every site that ``call`` passes with a tap, in order. Computes
    nothing."""
    found: dict[str, jax.ShapeDtypeStruct] = {}

    def record(name: str, x: jax.Array) -> jax.Array:
        found[name] = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x

    jax.eval_shape(lambda: call(Tap(record)))
    return found


def _absent(site: str, known: Mapping[str, object]) -> str:
    if known:
        return f"site={site!r}, but the tower has {', '.join(known)}"
    return f"site={site!r}: no tower with sites is called"
