"""Towers to test: shapes without computing, random parameters, quick compilation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.parallel.mesh import path_of
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
    rng = np.random.default_rng(seed)

    def draw(key_path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = path_of(key_path).rpartition("/")[2]
        values = rng.standard_normal(leaf.shape)
        if name == "kernel" and leaf.ndim >= 4:
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        elif name == "kernel":
            values /= np.sqrt(leaf.shape[-2])
        elif name in ("scale", "var", "gamma"):
            values = np.exp(0.2 * values)
        elif name != "pos_embed":
            values *= 0.3
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(tower, shape))


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
