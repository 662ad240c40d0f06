"""Towers to test: shapes without computing, random parameters, quick compilation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.tiny import filled
from vision.train.tower import Tap, forward, initialise


def quick_jit(function: Callable[..., Any], **kwargs: Any) -> Any:
    """``jax.jit`` without LLVM's optimizations: tests spend their time compiling."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **kwargs)


def abstract_variables(tower: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    """Shapes of ``(params, model_state)`` for images of this shape; computes nothing."""
    init = functools.partial(initialise, tower)
    return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))


def random_variables(tower: Any, shape: tuple[int, ...], seed: int = 0) -> Any:
    """``(params, model_state)`` with every array random, of sizes that keep activations near 1.

    No zero head, zero bias or unit scale hides that a parameter is not used.
    """
    return filled(abstract_variables(tower, shape), seed)


@functools.cache
def _compiled(tower: Any, tap: Tap | None, train: bool) -> Any:
    def apply(variables: Any, x: jax.Array, key: jax.Array | None) -> Any:
        return forward(tower, *variables, x, train=train, key=key, tap=tap)[1]

    return quick_jit(apply)


def run(
    tower: Any,
    variables: Any,
    x: jax.Array,
    *,
    tap: Tap | None = None,
    train: bool = False,
    key: jax.Array | None = None,
) -> Any:
    """``out`` of one call."""
    return _compiled(tower, tap, train)(variables, x, key)


def identity(name: str, x: jax.Array) -> jax.Array:
    return x


def assert_same(a: Any, b: Any, atol: float = 2e-6) -> None:
    """Two ``out`` have the same sites and values."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol, err_msg=name)
