"""MLP-Mixer, Swin V2, XCiT, MaxViT; their numbers are in tests/weights/test_families.py."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tower_cases import assert_same, random_variables, run
from vision.models.maxvit import MaxVit
from vision.models.mixer import Mixer
from vision.models.swin_v2 import SwinV2, log_offsets
from vision.models.transformer import layer_of
from vision.models.xcit import Xcit
from vision.train.tower import Tap, forward, initialise

Tiny = functools.partial(Mixer, width=16, depth=2, patch=4, mix_dim=8, mlp_dim=32, num_classes=3)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 8, 12, 3)), jnp.float32)


def test_scanned_unrolled_and_tapped():
    params, state = random_variables(Tiny(), IMAGES.shape)
    plain = run(Tiny(), (params, state), IMAGES)
    blocks = {f"block{i:02d}": layer_of(params["blocks"], i) for i in range(2)}
    unrolled = {k: x for k, x in params.items() if k != "blocks"} | blocks
    assert_same(plain, run(Tiny(scan=False), (unrolled, state), IMAGES))
    assert plain["block01/mix"].shape == (2, 6, 16)
    tap = Tap(lambda name, x: jnp.zeros_like(x), "block01/mix")
    tapped = forward(Tiny(), params, state, IMAGES, train=False, tap=tap)[1]
    np.testing.assert_allclose(tapped["block00"], plain["block00"], atol=2e-6)
    assert np.abs(tapped["logits"] - plain["logits"]).max() > 0.01


def test_another_size_is_refused():
    params, state = random_variables(Tiny(), IMAGES.shape)
    with pytest.raises(ValueError, match="have 8 patches, and the parameters are of 6"):
        jax.eval_shape(
            functools.partial(forward, Tiny(), train=False), params, state, jnp.zeros((1, 8, 16, 3))
        )


def test_offsets_on_a_scale_of_logarithms():
    """Liu et al., 2022, equation 4, with offsets from -8 to 8 at the ends of the trained window."""
    offsets = log_offsets((3, 2), 0).reshape(5, 3, 2)
    np.testing.assert_allclose(offsets[:, 0, 0], np.log2([9, 5, 1, 5, 9]) / 3 * [-1, -1, 0, 1, 1])
    np.testing.assert_allclose(offsets[0, :, 1], np.log2([9, 1, 9]) / 3 * [-1, 0, 1])
    assert log_offsets((5, 5), 3).max() == pytest.approx(np.log2(17) / 3)


def test_windows_of_training_are_as_many_as_stages():
    with pytest.raises(ValueError, match=r"trained_windows=\(2, 2\), but there are 4"):
        SwinV2(variant="T", trained_windows=(2, 2))


TRAINED = {
    "xcit": Xcit(width=16, depth=1, heads=2, class_depth=1, patch=8, drop_path=0.1, remat="full"),
    "maxvit": MaxVit(
        widths=(8, 16), depths=(1, 1), head_width=8, window=(2, 2), drop_path=0.1, remat="full"
    ),
    "swin_v2": SwinV2(width=8, depths=(1, 1), heads=(1, 2), window=2, drop_path=0.1, remat="full"),
}


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_reach_every_parameter(name):
    """In training, through rematerialised blocks, and with a tap on attention; shapes alone."""
    tower, images = TRAINED[name], jnp.zeros((2, 32, 32, 3))
    params, state = jax.eval_shape(
        functools.partial(forward_init, tower), jax.random.key(0), images
    )

    def loss(params, state):
        tap = Tap(lambda site, x: x, r"block.*attention")
        out = forward(tower, params, state, images, train=True, key=jax.random.key(0), tap=tap)[1]
        assert any(site.endswith("attention") for site in out)
        return jnp.sum(out["embedding"])

    gradients = jax.eval_shape(jax.grad(loss), params, state)
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)
    for path in params:
        assert tower.layers_above((path,)) is not None


def forward_init(tower, key, images):
    params, state = initialise(tower, key, images)
    return params, dict(state)


def test_windows_that_do_not_divide_the_images():
    tower = TRAINED["maxvit"]
    with pytest.raises(ValueError, match=r"not divided by windows of 2x2.*multiples of 16"):
        jax.eval_shape(
            functools.partial(forward_init, tower), jax.random.key(0), jnp.zeros((1, 32, 40, 3))
        )
