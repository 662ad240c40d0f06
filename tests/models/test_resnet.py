from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tower_cases import abstract_variables, identity, quick_jit, random_variables, run

from vision.models.resnet import ResidualBlock, ResNet
from vision.parallel.mesh import Mesh, batch_sharding
from vision.run.compile import collectives
from vision.train.precision import Precision
from vision.train.tower import Tap, count_params, forward

SHAPE = (16, 16, 12, 3)
CLASSES = 5
Tiny = functools.partial(
    ResNet, depth=18, stem="cifar", width_multiplier=0.125, num_classes=CLASSES
)


@pytest.fixture(scope="module")
def images():
    return 2 + jax.random.normal(jax.random.key(1), SHAPE)


@pytest.fixture(scope="module")
def variables():
    return random_variables(Tiny(), SHAPE)


@pytest.fixture(scope="module")
def plain(variables, images):
    return run(Tiny(), variables, images)


def test_vocabulary(plain):
    shapes = {"stem": (16, 16, 12, 8)}
    for i in range(8):
        shapes[f"block{i:02d}"] = (16, 16 >> i // 2, -(-12 >> i // 2) or 1, 8 << i // 2)
    shapes |= {f"block0{i}": (16, 2, 2, 64) for i in (6, 7)}
    shapes |= {"tokens": (16, 4, 64), "map": (16, 2, 2, 64), "pooled": (16, 64)}
    shapes |= {"embedding": (16, 64), "logits": (16, CLASSES)}
    assert {k: v.shape for k, v in plain.items()} == shapes
    np.testing.assert_allclose(plain["pooled"], plain["map"].mean((1, 2)), atol=1e-5)
    np.testing.assert_array_equal(plain["map"], plain["block07"])


def test_identity_tap_is_the_same_program(variables, images):
    def text(tap):
        def apply(variables):
            return forward(Tiny(), *variables, images, train=False, tap=tap)[1]

        return jax.jit(apply).lower(variables).as_text()

    assert text(None) == text(Tap(identity))


def test_gradient_at_the_map_is_the_heads_kernel(variables, images):
    """What Grad-CAM reads: pooling and head are linear."""
    params, state = variables

    def logit(zero):
        tap = Tap(lambda name, x: x + zero, "map")
        out = forward(Tiny(), params, state, images, train=False, tap=tap)[1]
        return out["logits"][:, 3].sum()

    gradient = quick_jit(jax.grad(logit))(jnp.zeros((16, 2, 2, 64)))
    expected = params["head"]["kernel"][:, 3] / 4
    np.testing.assert_allclose(gradient, np.broadcast_to(expected, gradient.shape), atol=1e-6)


def test_edit_reaches_what_follows(variables, images, plain):
    edited = run(Tiny(), variables, images, tap=Tap(lambda name, x: 2 * x, "block06"))
    np.testing.assert_allclose(edited["block05"], plain["block05"], atol=1e-5)
    np.testing.assert_allclose(edited["block06"], 2 * plain["block06"], atol=1e-4)
    assert np.abs(edited["logits"] - plain["logits"]).max() > 0.1
    block = ResidualBlock(64, 1, False, True, Precision())
    params, state = (tree["block07"] for tree in (variables[0], variables[1]["batch_stats"]))
    apply = quick_jit(lambda x: block.apply({"params": params, "batch_stats": state}, x, False))
    x = apply(edited["block06"])
    np.testing.assert_allclose(edited["block07"], x, atol=1e-4)


def test_batch_norm_of_a_batch_on_eight_devices(variables, images):
    """Statistics are those of the whole batch, not of a device's share."""
    params, state = variables
    state = jax.tree.map(jnp.zeros_like, state)

    def train(images):
        _, out, new_state = forward(Tiny(), params, state, images, train=True)
        return new_state, out["logits"], out["stem"]

    mesh = Mesh().build(jax.devices()[:8])
    assert mesh.size == 8
    sharding = batch_sharding(mesh)
    one, logits, _ = quick_jit(train)(images)
    with jax.set_mesh(mesh):
        eight, logits_of_eight, stem = quick_jit(train)(jax.device_put(images, sharding))
    assert stem.sharding.is_equivalent_to(sharding, stem.ndim)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, eight)
    np.testing.assert_allclose(logits, logits_of_eight, rtol=1e-4, atol=1e-4)

    # A tenth of the mean and (biased) variance of the stem's convolution.
    convolved = jax.lax.conv_general_dilated(
        images,
        params["stem_conv"]["kernel"],
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    stats = eight["batch_stats"]["stem_norm"]
    np.testing.assert_allclose(stats["mean"], 0.1 * convolved.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.1 * convolved.var((0, 1, 2)), rtol=1e-4)


def test_rows_that_are_normalised_together(images):
    """As if every group of rows were a batch; the same on devices that hold whole groups, which
    exchange running statistics alone."""
    together, alone = Tiny(depth=10, norm_rows=2), Tiny(depth=10)
    params, state = random_variables(alone, SHAPE)

    def train(images, tower=together):
        _, out, new_state = forward(tower, params, state, images, train=True)
        return out["map"], new_state["batch_stats"]["block03"]

    maps, stats = quick_jit(train)(images)
    by_group = quick_jit(jax.vmap(functools.partial(train, tower=alone)))
    expected, expected_stats = by_group(images.reshape(8, 2, *SHAPE[1:]))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(maps, expected.reshape(maps.shape), rtol=1e-4, atol=1e-5 * scale)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b.mean(0), rtol=1e-4, atol=1e-5 * scale),
        stats,
        expected_stats,
    )
    with pytest.raises(ValueError, match="norm_rows=3 do not divide the 16 rows"):
        jax.eval_shape(functools.partial(train, tower=Tiny(depth=10, norm_rows=3)), images)

    # The gradient with respect to the images needs no device to know of another.
    mesh = Mesh().build(jax.devices()[:8])

    def gradient(images, tower):
        def loss(images):
            return forward(tower, params, state, images, train=True)[1]["map"].var()

        return jax.grad(loss)(images)

    def exchanges(tower):
        with jax.set_mesh(mesh):
            placed = jax.device_put(images, batch_sharding(mesh))
            compiled = quick_jit(functools.partial(gradient, tower=tower)).lower(placed).compile()
        return sum(collectives(compiled).values())

    assert exchanges(together) <= 3 < exchanges(alone)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_zero_initialisation(bottleneck):
    """With the last scale at zero, a block that keeps the shape is the identity."""
    x = np.abs(np.random.default_rng(0).standard_normal((1, 4, 4, 8), np.float32))
    for zero_init in (True, False):
        channels = 2 if bottleneck else 8
        block = ResidualBlock(channels, 1, bottleneck, zero_init, Precision())
        variables = quick_jit(lambda b=block: b.init(jax.random.key(0), x, False))()
        y = quick_jit(lambda v, b=block: b.apply(v, x, False))(variables)
        assert np.array_equal(x, y) == zero_init


def test_bfloat16(variables, images, plain):
    out = run(Tiny(precision=Precision(compute="bfloat16")), variables, images)
    assert out["block00"].dtype == out["map"].dtype == jnp.bfloat16
    for name in ("pooled", "embedding", "logits"):
        assert out[name].dtype == jnp.float32
        np.testing.assert_allclose(out[name], plain[name], atol=0.05 * np.abs(plain[name]).max())


def test_imagenet_stem_and_v1_5_strides():
    """The stem reduces by 4; the 3x3 convolution of a bottleneck has the stride."""
    tower = ResNet(depth=50, num_classes=0)
    variables = abstract_variables(tower, (1, 224, 224, 3))
    x = jnp.zeros((1, 224, 224, 3))
    trace = jax.make_jaxpr(lambda v: forward(tower, *v, x, train=False)[1], return_shape=True)
    # On one CPU device not every convolution is one to lax: see vision.models.convolution.
    with jax.set_mesh(jax.make_mesh((2,), ("replica",))):
        jaxpr, out = trace(variables)
    assert out["stem"].shape == (1, 56, 56, 64)
    assert out["block02"].shape == (1, 56, 56, 256)
    assert out["map"].shape == (1, 7, 7, 2048)
    assert "logits" not in out
    strided = [
        eqn.invars[1].aval.shape[:2]
        for eqn in jaxpr.eqns
        if eqn.primitive.name == "conv_general_dilated" and eqn.params["window_strides"] == (2, 2)
    ]
    assert strided == [(7, 7), *[(3, 3), (1, 1)] * 3]


# timm's, which count no running statistics.
@pytest.mark.parametrize(
    ("depth", "count"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_parameter_counts(depth, count):
    params, _ = abstract_variables(ResNet(depth=depth, num_classes=1000), (1, 64, 64, 3))
    assert count_params(params) == count


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 20}, "depth is 20, expected one of 10, 14, 18, 26, 34, 50, 101, 152"),
        ({"stem": "mnist"}, "stem is 'mnist'.*'imagenet', 'cifar', 'deep'"),
        ({"width_multiplier": 0.0}, "width_multiplier is 0.0, expected a number > 0"),
        ({"width_multiplier": 0.33}, "width_multiplier is 0.33, .* 64 times it a whole number"),
        ({"num_classes": -2}, "num_classes is -2, expected"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**fields)
