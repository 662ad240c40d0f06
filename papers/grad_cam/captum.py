"""Grad-CAM and guided gradients of the test networks whose results by captum are stored."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from papers.grad_cam.method import guided_gradient, weighted
from tests import captum_cases
from vision.blocks.sites import at_site
from vision.train.tower import Tap


@jax.jit
def computed() -> dict[str, jax.Array]:
    """Maps of the CNN, NHWC, by their names in captum's results."""
    p = captum_cases.golden()
    x, target = jnp.asarray(captum_cases.last(p["cnn/x"])), p["cnn/target"]

    def logit(x: jax.Array, tap: Tap | None = None) -> jax.Array:
        return jnp.take_along_axis(captum_cases.cnn(p, x, tap), target[:, None], 1)[:, 0]

    cam = jnp.maximum(weighted(*at_site(lambda tap: logit(x, tap), "relu2")), 0)[..., None]
    guided = guided_gradient(logit, x)
    large = jax.image.resize(cam, (*x.shape[:3], 1), "bilinear")
    return {"cnn/cam": cam, "cnn/guided": guided, "cnn/guided_cam": large * guided}


def errors() -> dict[str, float]:
    return captum_cases.errors(computed())
