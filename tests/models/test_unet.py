"""U-Net: sizes, sites, what an untrained one says, what it reads; the objective that trains it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_cases import quick_jit

from vision.blocks.diffusion import Diffusion
from vision.models.unet import UNet, folded, time_embedding, unfolded
from vision.objectives.denoise import Denoise
from vision.train.objective import Context, Variables
from vision.train.tower import Tap, count_params, forward

TINY = UNet(width=4, multipliers=(1, 2), depth=1, attention=(1,), groups=2)
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
TIME = jnp.array([3, 70])


OBJECTIVE = Denoise(TINY, Diffusion(100))


@pytest.fixture(scope="module")
def fresh():
    return quick_jit(OBJECTIVE.init)(jax.random.key(0), {"image": IMAGE}).params["model"]


@pytest.fixture(scope="module")
def params(fresh):
    rng = np.random.default_rng(1)
    # What starts at zero would hide what is not read.
    return jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), fresh)


@pytest.fixture(scope="module")
def run():
    def apply(params, image, time, shift):
        tap = Tap(lambda name, x: x + shift, sites="block01")
        return forward(TINY, params, {}, image, time, train=False, tap=tap)[1]

    return quick_jit(apply)


def test_imagenet_sizes_and_the_order_of_blocks():
    tower = UNet(width=256, multipliers=(1, 1, 2, 2, 4, 4), depth=2, attention=(3, 4, 5), heads=4)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    time = jax.ShapeDtypeStruct((1,), jnp.int32)
    (_, out), variables = jax.eval_shape(
        lambda x, t: tower.init_with_output({"params": jax.random.key(0)}, x, t), image, time
    )
    # ADM has 553.8 million: it changes sides by residual blocks, and tells variances too.
    assert 4.5e8 < count_params(variables["params"]) < 6e8
    blocks = [out[name].shape[1:] for name in sorted(out) if name.startswith("block")]
    assert len(blocks) == 12 + 1 + 18
    assert blocks[0] == (256, 256, 256)
    assert blocks[12] == blocks[13] == (8, 8, 1024)
    assert blocks[18] == (16, 16, 1024)
    assert blocks[30] == out["map"].shape[1:] == (256, 256, 256)
    assert out["noise"].shape == (1, 256, 256, 3)


def test_rows_are_independent_and_time_matters(params, run):
    out = run(params, IMAGE, TIME, 0.0)
    assert out["block01"].shape == (2, 4, 4, 8)
    assert out["block02"].shape == (2, 4, 4, 8)
    assert out["block06"].shape == out["map"].shape == (2, 8, 8, 4)
    np.testing.assert_allclose(out["embedding"], out["map"].mean((1, 2)), atol=1e-6)
    turned = run(params, IMAGE[::-1], TIME[::-1], 0.0)["noise"]
    np.testing.assert_allclose(turned[::-1], out["noise"], atol=1e-5)
    later = run(params, IMAGE, TIME.at[1].set(71), 0.0)["noise"]
    np.testing.assert_allclose(later[0], out["noise"][0], atol=1e-6)
    assert np.abs(later[1] - out["noise"][1]).max() > 1e-4


def test_tap_edits_reach_the_decoder(params, run):
    plain, shifted = run(params, IMAGE, TIME, 0.0), run(params, IMAGE, TIME, 1.0)
    np.testing.assert_array_equal(plain["block00"], shifted["block00"])
    np.testing.assert_allclose(plain["block01"] + 1, shifted["block01"], atol=1e-6)
    assert np.abs(plain["noise"] - shifted["noise"]).max() > 1e-3


@pytest.mark.slow
def test_remat_changes_no_gradient(params):
    @functools.partial(quick_jit, static_argnums=1)
    def gradient(params, tower):
        def loss(params):
            out = forward(tower, params, {}, IMAGE, TIME, train=True)[1]
            return (out["noise"] ** 2).mean()

        return jax.grad(loss)(params)

    plain = gradient(params, TINY)
    for remat in ("dots", "full"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            gradient(params, TINY.clone(remat=remat)),
            plain,
        )


def test_remat_leaves_names_alone_and_computes_blocks_again():
    def program(tower):
        variables = jax.eval_shape(tower.init, jax.random.key(0), IMAGE, TIME)
        grad = jax.grad(lambda v: tower.apply(v, IMAGE, TIME)[1]["noise"].sum())
        return jax.tree.structure(variables), str(jax.make_jaxpr(grad)(variables))

    (names, plain), (same, again) = program(TINY), program(TINY.clone(remat="full"))
    assert names == same
    assert again.count("conv_general_dilated") > plain.count("conv_general_dilated")


def test_patches_fold_and_unfold():
    tower = UNet(width=4, multipliers=(1,), depth=1, patch=2, attention=(), groups=2)
    shapes = jax.eval_shape(
        lambda: tower.init_with_output({"params": jax.random.key(0)}, IMAGE, TIME)[0][1]
    )
    assert shapes["block00"].shape == (2, 4, 4, 4)
    assert shapes["noise"].shape == (2, 8, 8, 1)
    places = folded(IMAGE, 2)
    np.testing.assert_array_equal(places[0, 1, 2], IMAGE[0, 2:4, 4:6, 0].reshape(-1))
    np.testing.assert_array_equal(unfolded(places, 2), IMAGE)


def test_time_embeddings_differ_between_steps():
    actual = time_embedding(jnp.arange(1000), 16)
    gaps = np.linalg.norm(np.asarray(actual)[:, None] - np.asarray(actual)[None], axis=-1)
    assert gaps[~np.eye(1000, dtype=bool)].min() > 0.05


def test_errors_of_sizes():
    with pytest.raises(ValueError, match="width=6"):
        UNet(width=6, groups=4)
    with pytest.raises(ValueError, match="multipliers"):
        UNet(multipliers=())
    with pytest.raises(ValueError, match="no level 7"):
        UNet(attention=(7,))
    with pytest.raises(ValueError, match="patch is 0"):
        UNet(patch=0)
    with pytest.raises(ValueError, match="multiples of 2"):
        jax.eval_shape(TINY.init, jax.random.key(0), jnp.zeros((1, 7, 8, 1)), TIME[:1])


def test_initial_prediction_is_zero_and_masked_rows_do_not_count(fresh, params):
    batch = {"image": IMAGE, "_mask": jnp.array([True, False])}
    ctx = Context(jnp.int32(0), 1, train=True, key=jax.random.key(5))

    @quick_jit
    def loss(params, batch):
        return OBJECTIVE.loss(Variables({"model": params}, {"model": {}}, {}), batch, ctx)[0]

    noise = jax.random.normal(ctx.rng("noise"), IMAGE.shape)
    np.testing.assert_allclose(loss(fresh, batch), (noise[0] ** 2).mean(), rtol=1e-5)
    other = {**batch, "image": IMAGE.at[1].set(9.0)}
    np.testing.assert_allclose(loss(params, batch), loss(params, other), rtol=1e-6)
    assert abs(loss(params, batch) - loss(fresh, batch)) > 1e-3
