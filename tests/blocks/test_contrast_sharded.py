"""Contrast over eight devices is contrast on one, with its gradients, in less memory."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.blocks.contrast import Ranking, Sigmoid, Softmax, contrast
from vision.blocks.sharded_contrast import Modality, compare, pairs_of
from vision.blocks.similarity import BestPart, ContrastError, Dot, LateInteraction, unit
from vision.parallel.mesh import BATCH_AXES, Mesh

ROWS = 32
MESHES = {
    "data 8": Mesh(data=8),
    "data 4 x fsdp 2": Mesh(data=4, fsdp=2),
    "replica 2 x data 2 x tensor 2": Mesh(replica=2, data=2, tensor=2),
}


def batch(name: str, rows: int = ROWS):
    """Features of both sides and the rest: labels, some rows masked, some captions repeated."""
    rng = np.random.default_rng(0)
    shape = (rows, 3, 8) if name == "tokens" else (rows, 8)
    image, text = (np.asarray(unit(jnp.asarray(rng.normal(size=shape)))) for _ in range(2))
    rest = {
        "key": rng.integers(0, rows // 2, rows),
        "valid": rng.random(rows) > 0.2,
        "twin": rng.integers(0, rows // 2, (rows, 1, 2)) // np.array([1, rows]),
    }
    return image, text, jax.tree.map(jnp.asarray, rest)


def sides(name: str, image, text, rest) -> tuple[Modality, Modality]:
    return Modality({name: image}, **rest), Modality({name: text}, **rest)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def step(loss, similarity, name, groups, params, data):
    """Everything that a comparison gives, and its gradients."""

    def f(params, image, text):
        actual = compare(
            *(loss, similarity, loss.coefficients(params)),
            *sides(name, image, text, data[2]),
            groups=groups,
        )
        return actual.loss, actual

    return jax.value_and_grad(f, (0, 1, 2), has_aux=True)(params, *data[:2])


def run(loss, similarity, name, data, mesh: Mesh | None = None, groups: int = 1):
    params = {k: jnp.float32(v) for k, v in loss.parameters().items()}
    if mesh is None:
        return step(loss, similarity, name, groups, params, data)
    built = mesh.build()
    with jax.set_mesh(built):
        data = jax.device_put(data, NamedSharding(built, P(BATCH_AXES)))
        return step(loss, similarity, name, groups, params, data)


def close(a, b) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


CASES = [
    (Softmax(), Dot(), "embedding", "data 8"),
    (Sigmoid(), Dot(), "embedding", "data 4 x fsdp 2"),
    (Sigmoid(), BestPart(), "embedding", "data 8"),
    (Ranking(reduce="hardest"), Dot(), "embedding", "data 4 x fsdp 2"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            (Softmax(label_smoothing=0.1), Dot(chunk=3), "embedding", "data 4 x fsdp 2"),
            (Softmax(), LateInteraction(chunk=2), "tokens", "data 8"),
            (Softmax(), Dot(), "embedding", "replica 2 x data 2 x tensor 2"),
        )
    ),
]


@pytest.mark.parametrize(("loss", "similarity", "name", "mesh"), CASES)
def test_a_ring_gives_the_loss_and_gradients_of_one_matrix(loss, similarity, name, mesh):
    data = batch(name)

    def plain(params, image, text):
        # Normalising tokens is part of late interaction, and of its gradient.
        features = similarity.prepare({name: image}, {name: text})
        images, texts = (Modality(side, **data[2]) for side in features)
        actual = contrast(loss, params, pairs_of(similarity, images, texts))
        return actual.loss, actual

    params = {k: jnp.float32(v) for k, v in loss.parameters().items()}
    expected = jax.jit(jax.value_and_grad(plain, (0, 1, 2), has_aux=True))(params, *data[:2])
    actual = run(loss, similarity, name, data, MESHES[mesh])
    close(actual, expected)
    assert float(expected[0][0]) > 0
    assert np.any(expected[1][1])


@pytest.mark.parametrize("groups", [2, 16])
def test_groups_are_separate_batches(groups: int):
    image, text, rest = batch("embedding")
    rest["valid"] = jnp.ones(ROWS, bool)
    data = (image, text, rest)
    parts = [jax.tree.map(lambda x, i=i: jnp.split(x, groups)[i], data) for i in range(groups)]
    alone = [run(Softmax(), Dot(), "embedding", part) for part in parts[:: groups // 2]]
    actual = run(Softmax(), Dot(), "embedding", data, MESHES["data 4 x fsdp 2"], groups)
    here = run(Softmax(), Dot(), "embedding", data, None, groups)
    close(actual, here)
    d_image = np.split(np.asarray(actual[1][1]), groups)[:: groups // 2]
    for gradient, part in zip(d_image, alone, strict=True):
        np.testing.assert_allclose(gradient * groups, part[1][1], rtol=2e-5, atol=2e-6)
    if groups == 2:
        np.testing.assert_allclose(actual[0][0], np.mean([part[0][0] for part in alone]), rtol=2e-5)
        unsharded = run(Softmax(), Dot(), "embedding", data)
        assert abs(float(actual[0][0] - unsharded[0][0])) > 0.1


def test_no_device_holds_the_matrix_of_all_pairs():
    rows = 512
    data = batch("embedding", rows)
    mesh = MESHES["data 4 x fsdp 2"].build()
    split = NamedSharding(mesh, P(BATCH_AXES))
    image, text = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split) for x in data[:2])

    def f(image, text):
        coefficients = Softmax().coefficients({"log_scale": 1.0})
        both = sides("embedding", image, text, data[2])
        return compare(Softmax(), Dot(), coefficients, *both).loss

    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(f, (0, 1))).lower(image, text).compile()
    plan: Any = compiled.memory_analysis()
    assert plan.temp_size_in_bytes < rows * rows * 4 / 4


@pytest.mark.parametrize("groups", [0, 3, 5, 64])
def test_groups_that_do_not_divide_are_refused(groups: int):
    with pytest.raises(ContrastError, match="groups"):
        run(Softmax(), Dot(), "embedding", batch("embedding"), MESHES["data 8"], groups)
