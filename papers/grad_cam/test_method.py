"""Grad-CAM: CAM where there is one, captum's numbers, sites of towers, guided gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.grad_cam.method import GradCam
from tests import captum_cases as captum
from tests.tiny import drawn
from vision.blocks.activation_maps import as_maps, weighted
from vision.blocks.sites import SiteError, at_site
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.train.objective import Variables
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import Tap, Tapped, forward, initialise

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 12, 3)), jnp.float32)
ABOUT = jnp.asarray([2, 0, 1])
VIT: Any = ViT(width=8, depth=1, heads=2, patch=4, pool="mean", num_classes=3)


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(functools.partial(initialise, VIT), IMAGES)


def asked_of(variables: Any) -> Any:
    def asked(images: jax.Array, tap: Tap | None = None) -> jax.Array:
        logits = forward(VIT, *variables, images, train=False, tap=tap)[1]["logits"]
        return jnp.take_along_axis(logits, ABOUT[:, None], 1)[:, 0]

    return asked


def test_with_a_linear_head_on_means_it_is_cam(variables: Any):
    """Global average pooling and a linear head: alpha_k = w_kc / (h w)."""

    @jax.jit
    def explanations(images: jax.Array) -> tuple[jax.Array, ...]:
        asked = asked_of(variables)
        maps, slopes = at_site(lambda tap: asked(images, tap), "map")
        given = (GradCam(), GradCam(counterfactual=True))
        return maps, weighted(maps, slopes), *(each(asked, images) for each in given)

    maps, cam, heat, against = map(np.asarray, explanations(IMAGES))
    assert maps.shape == (3, 2, 3, 8)
    head = np.asarray(variables[0]["head"]["kernel"])[:, np.asarray(ABOUT)]
    np.testing.assert_allclose(cam, np.einsum("bhwk,kb->bhw", maps, head) / 6, rtol=1e-5, atol=1e-7)
    assert heat.shape == against.shape == (3, 8, 12)
    for each, sign in ((heat, 1), (against, -1)):
        positive = np.maximum(sign * cam, 0)
        # 1 up to the rounding of a division, or 0 everywhere.
        np.testing.assert_allclose(each.max((1, 2)), positive.max((1, 2)) > 0, atol=1e-6)
        # The middle of a patch's own pixels is nearest to it.
        coarse = each.reshape(3, 2, 4, 3, 4)[:, :, 1:3, :, 1:3].mean((2, 4))
        for i in np.flatnonzero(positive.max((1, 2)) > 0):
            assert coarse[i].argmax() == positive[i].argmax()


def test_sites_of_a_transformer(variables: Any):
    asked = asked_of(variables)
    inside = np.asarray(jax.jit(lambda x: GradCam("block00", prefix=0)(asked, x))(IMAGES))
    assert inside.shape == (3, 8, 12)
    assert inside.max() == pytest.approx(1, abs=1e-6)
    with pytest.raises(SiteError, match=r"site='block07'.*block00"):
        jax.eval_shape(lambda x: GradCam("block07")(asked, x), IMAGES)
    with pytest.raises(SiteError, match="no tower with sites"):
        jax.eval_shape(lambda x: GradCam()(lambda images, tap=None: asked(images), x), IMAGES)
    with pytest.raises(ValueError, match="no grid"):
        as_maps(jnp.zeros((1, 7, 4)), (8, 12))


def test_the_map_is_scaled_and_guided():
    p = captum.golden()
    images = jnp.asarray(captum.last(p["cnn/x"]))
    target = p["cnn/target"]

    def asked(x: jax.Array, tap: Tap | None = None) -> jax.Array:
        return jnp.take_along_axis(captum.cnn(p, x, tap), target[:, None], 1)[:, 0]

    heat = np.asarray(jax.jit(lambda x: GradCam("relu2", guided=True)(asked, x))(images))
    largest = np.abs(captum.last(p["cnn/guided_cam"])).max(-1)
    expected = largest / largest.max((1, 2), keepdims=True)
    np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_a_runs_predict_takes_a_tap(variables: Any):
    """Also where the objective hands one of its own, which comes first."""
    step = Step(Classify(VIT), Optimizer(method=adamw(), learning_rate=0.1), TrainLength(4, 2, 1))
    params, state = variables
    everything = Variables({"model": params}, {"model": state}, {})
    batch = {"image": IMAGES}
    doubled = Tap(lambda name, x: 2 * x, "map")
    more: Any = Tapped(VIT, Tap(lambda name, x: x + 1, "map|pooled"))

    @jax.jit
    def predictions(everything: Variables) -> tuple[jax.Array, ...]:
        given = (*variables, batch["image"])
        plain = step.predict(everything, batch)["logits"]
        edited = step.predict(everything, batch, doubled)["logits"]
        both = forward(more, *given, train=False, tap=doubled)[1]["map"]
        return plain, edited, both, forward(VIT, *given, train=False)[1]["map"]

    plain, edited, both, alone = map(np.asarray, predictions(everything))
    bias = np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(edited - bias, 2 * (plain - bias), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(both, 2 * alone + 1, rtol=1e-5)
