"""The functional hash of a tower: of its logits with symmetric weights."""

from __future__ import annotations

import functools
import math
import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from papers.functional_hash.method import functional_hash
from vision.models.nasnet import NasNet
from vision.parallel.mesh import path_of
from vision.train.tower import forward, initialise


def symmetric_variables(tower: NasNet, shape: tuple[int, ...], seed: int = 0) -> Any:
    """``(params, model_state)`` for images of ``shape``, equal for equivalent genotypes.

    Kernels are normal of variance 1 / fan-in, seeded by the kind of an operation, not by its step
    or its side of the sum; kernels that read the concatenated states of a cell are equal for every
    block of ``tower.filters`` channels. Other parameters have their initial values.
    """
    shapes = jax.eval_shape(
        functools.partial(initialise, tower), jax.random.key(0), jax.ShapeDtypeStruct(shape, "f4")
    )

    def drawn(path: Any, leaf: Any) -> jax.Array:
        name = path_of(path)
        if not name.endswith("kernel"):
            ones = name.endswith(("scale", "var"))
            return jnp.full(leaf.shape, float(ones), leaf.dtype)
        kind = re.sub(r"step\d+[lr]_", "", name)
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        channels = leaf.shape[-2]
        fan_in = tower.filters if re.search("squeeze|previous|head", kind) else channels
        values = rng.standard_normal((*leaf.shape[:-2], fan_in, leaf.shape[-1]))
        columns = np.arange(channels) % fan_in
        return jnp.asarray(values[..., columns, :] / math.prod(leaf.shape[:-1]) ** 0.5, leaf.dtype)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def hash_of_tower(tower: NasNet, images: jax.Array, seed: int = 0, mantissa_bits: int = 10) -> int:
    """The functional hash of a tower: of its logits for ``images`` with symmetric weights.

    Sums in another order differ by float32 rounding, which ``mantissa_bits`` has to cut off.
    """
    variables = symmetric_variables(tower, images.shape, seed)
    logits = forward(tower, *variables, images, train=False)[1]["logits"]
    return functional_hash(np.asarray(logits, np.float64).ravel(), mantissa_bits)
