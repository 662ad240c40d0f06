"""What captum says of a small CNN and a small MLP, and how far from it we are.

``bench/goldens/attributions.py`` made the weights and captum's answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from papers.grad_cam.method import guided_gradient, weighted
from papers.salient_relevance.relevance import Lrp, relevance
from vision.blocks.sites import at_site
from vision.models.convolution import convolve, max_pool
from vision.train.tower import Tap, apply_tap

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "attributions.npz"
LAYOUT = ("NHWC", "HWIO", "NHWC")
RULES = {
    "epsilon": Lrp(),
    "epsilon_0.25": Lrp(epsilon=0.25),
    "z_plus": Lrp("alpha_beta", "alpha_beta"),
}


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


def ours(p: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Everything that captum was asked for, by its name in the goldens. Images are NHWC."""
    found: dict[str, jax.Array] = {}
    nets: dict[str, Callable[..., jax.Array]] = {"cnn": cnn, "mlp": mlp}
    for name, net in nets.items():
        x = jnp.asarray(last(p[f"{name}/x"]))
        logits = found[f"{name}/logits"] = net(p, x)
        about = jax.nn.one_hot(p[f"{name}/target"], logits.shape[1])
        for rule, lrp in RULES.items():
            found[f"{name}/lrp/{rule}"] = relevance(lambda x, net=net: net(p, x), x, about, lrp)

    x, target = jnp.asarray(last(p["cnn/x"])), p["cnn/target"]

    def asked(x: jax.Array, tap: Tap | None = None) -> jax.Array:
        return jnp.take_along_axis(cnn(p, x, tap), target[:, None], 1)[:, 0]

    cam = jnp.maximum(weighted(*at_site(lambda tap: asked(x, tap), "relu2")), 0)[..., None]
    found["cnn/cam"], found["cnn/guided"] = cam, guided_gradient(asked, x)
    large = jax.image.resize(cam, (*x.shape[:3], 1), "bilinear")
    found["cnn/guided_cam"] = large * found["cnn/guided"]
    return found


def last(x: np.ndarray) -> np.ndarray:
    """Channels last."""
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def errors() -> dict[str, float]:
    """Name to the largest difference, relative to captum's largest value."""
    p = golden()
    found = jax.device_get(jax.jit(lambda: ours(p))())
    return {
        name: float(np.abs(x - last(p[name])).max() / np.abs(p[name]).max())
        for name, x in found.items()
    }
