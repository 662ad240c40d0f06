"""Activations and gradients at a site of a tower, for methods that look inside."""

from __future__ import annotations

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vision.core.errors import UserError
from vision.core.net import Tap


class SiteError(UserError):
    """A tower has no such site."""


def at_site(asked: Callable[[Tap], jax.Array], site: str) -> tuple[jax.Array, jax.Array]:
    """The activation at ``site``, and the gradient of ``sum(asked(tap))`` with respect to it.

    The gradient is that of a zero which a tap adds there, so no model is edited. Traceable.

    Raises:
      SiteError: no such site; the message says which there are.
    """
    shapes: dict[str, jax.ShapeDtypeStruct] = {}

    def look(name: str, x: jax.Array) -> jax.Array:
        shapes[name] = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return x

    jax.eval_shape(lambda: asked(Tap(look)))
    if site not in shapes:
        raise SiteError(
            f"site={site!r}, but the tower has {', '.join(shapes)}"
            if shapes
            else f"site={site!r}: no tower with sites is called on the way"
        )

    def moved(zero: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen: list[jax.Array] = []

        def add(_: str, x: jax.Array) -> jax.Array:
            seen.append(x)
            return x + zero

        return asked(Tap(add, re.escape(site))).sum(), seen[0]

    gradient, activation = jax.grad(moved, has_aux=True)(
        jnp.zeros(shapes[site].shape, shapes[site].dtype)
    )
    return activation, gradient
