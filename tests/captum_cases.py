"""A small CNN, a small MLP and what captum says of them.

``bench/goldens/attributions.py`` made the weights and captum's answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.models.convolution import convolve, max_pool
from vision.train.tower import Tap, apply_tap

GOLDEN = Path(__file__).resolve().parent / "golden" / "attributions.npz"
LAYOUT = ("NHWC", "HWIO", "NHWC")


def golden() -> dict[str, Any]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def cnn(p: Mapping[str, Any], x: jax.Array, tap: Tap | None = None) -> jax.Array:
    """Logits of images (B, h, w, C)."""
    for i in (1, 2):
        k = jnp.transpose(p[f"cnn/conv{i}.weight"], (2, 3, 1, 0))
        x = convolve(x, k, (1, 1), [(1, 1), (1, 1)], dimension_numbers=LAYOUT)
        x = apply_tap(tap, f"relu{i}", jax.nn.relu(x + p[f"cnn/conv{i}.bias"].reshape(1, 1, 1, -1)))
        x = max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)))
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    x = jax.nn.relu(x @ p["cnn/fc1.weight"].T + p["cnn/fc1.bias"])
    return x @ p["cnn/fc2.weight"].T + p["cnn/fc2.bias"]


def mlp(p: Mapping[str, Any], x: jax.Array) -> jax.Array:
    for i in (1, 2, 3):
        x = x @ p[f"mlp/fc{i}.weight"].T + p[f"mlp/fc{i}.bias"]
        x = jax.nn.relu(x) if i < 3 else x
    return x


def last(x: np.ndarray) -> np.ndarray:
    """Channels last."""
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def errors(computed: Mapping[str, jax.Array]) -> dict[str, float]:
    """Name to the largest difference from captum's answer, relative to captum's largest value."""
    answers = golden()
    return {
        name: float(np.abs(np.asarray(x) - last(answers[name])).max() / np.abs(answers[name]).max())
        for name, x in computed.items()
    }
