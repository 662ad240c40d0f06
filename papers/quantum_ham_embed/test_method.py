"""The simulated quantum classifier: unitary, beside matrix exponentials, real parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from papers.quantum_ham_embed.gates import brick_wall, evolve, su4
from papers.quantum_ham_embed.method import HamiltonianEmbedding
from tests.models.tower_cases import quick_jit, random_variables
from vision.train.tower import Tap, forward

TOWER = HamiltonianEmbedding(layers=3, num_classes=6)
SHAPE = (4, 8, 8, 1)


@pytest.fixture(scope="module")
def variables() -> Any:
    return random_variables(TOWER, SHAPE)


def image() -> Any:
    return np.random.default_rng(1).random(SHAPE).astype(np.float32)


@quick_jit
def call(params: Any, x: jax.Array) -> Any:
    return forward(TOWER, params, {}, x, train=False)[1]


def test_probabilities_are_those_of_matrix_exponentials(variables: Any):
    params, state = variables
    assert not state
    out = call(params, image())
    np.testing.assert_allclose(out["pooled"].sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(out["logits"], out["pooled"][:, :6])

    sigma = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    words = [np.kron(a, b) for a in sigma for b in sigma][1:]
    theta, time = np.asarray(params["theta"], float), np.asarray(params["time"], float)
    assert theta.shape == (3, 2, 15)
    for row, picture in enumerate(image()[..., 0].astype(float)):
        psi = np.full(8, 8**-0.5, complex)
        for i in range(3):
            psi = scipy.linalg.expm(-0.5j * time[i] * (picture + picture.T) / 2) @ psi
            first, second = (
                scipy.linalg.expm(1j * np.tensordot(each, words, 1)) for each in theta[i]
            )
            psi = np.kron(np.eye(2), second) @ (np.kron(first, np.eye(2)) @ psi)
            np.testing.assert_allclose(out[f"block{i:02d}"][row], psi, atol=2e-5)
        np.testing.assert_allclose(out["pooled"][row], np.abs(psi) ** 2, atol=2e-5)


def test_gates_are_unitary_and_cover_neighbours():
    gates = np.asarray(su4(jnp.asarray(np.random.default_rng(0).normal(size=(5, 15)))))
    np.testing.assert_allclose(gates.conj().mT @ gates, np.tile(np.eye(4), (5, 1, 1)), atol=2e-6)
    assert brick_wall(3) == (0, 1)
    assert brick_wall(5) == (0, 2, 1, 3)


def test_no_time_to_see_the_image_and_answers_do_not_depend_on_it(variables: Any):
    params = variables[0]
    blind = call({**params, "time": jnp.zeros(3)}, image())["logits"]
    np.testing.assert_allclose(blind, np.broadcast_to(blind[:1], blind.shape), atol=1e-6)
    assert float(call(params, image())["logits"].std(0).min()) > 1e-3


def test_gradients_of_parameters_and_of_images_whose_eigenvalues_coincide(variables: Any):
    params = variables[0]
    x = image()
    x[0] = 0  # all eigenvalues are equal
    x[1] = np.diag(np.r_[1, 1, 1, 2, 2, 0, 0, 0])[..., None]

    def score(params: Any, x: jax.Array) -> jax.Array:
        out = forward(TOWER, params, {}, x, train=False)[1]
        return jnp.sum(out["logits"] * jnp.arange(24.0).reshape(4, 6))

    of_params, of_image = quick_jit(jax.grad(score, (0, 1)))(params, x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(of_params))
    rng = np.random.default_rng(2)
    along = rng.normal(size=SHAPE).astype(np.float32)
    way = {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in params.items()}
    value = quick_jit(score)
    step = 1e-2

    def slope(params_step: float, image_step: float) -> float:
        def at(sign: float) -> float:
            moved = {k: params[k] + sign * params_step * way[k] for k in params}
            return float(value(moved, x + sign * image_step * along))

        return (at(1) - at(-1)) / (2 * step)

    assert float(jnp.vdot(of_image, along)) == pytest.approx(slope(0, step), rel=5e-3)
    derivative = sum(float(jnp.vdot(of_params[k], way[k])) for k in way)
    assert derivative == pytest.approx(slope(step, 0), rel=2e-2)


def test_evolution_is_a_rotation_in_time():
    rng = np.random.default_rng(3)
    h = rng.normal(size=(2, 4, 4)).astype(np.float32)
    h = h + h.mT
    values, vectors = np.linalg.eigh(h)
    psi = (rng.normal(size=(2, 4)) + 1j * rng.normal(size=(2, 4))).astype(np.complex64)
    evolved = evolve(h, values, vectors, jnp.float32(0.7), psi)
    back = evolve(h, values, vectors, jnp.float32(-0.7), evolved)
    np.testing.assert_allclose(back, psi, atol=1e-5)


def test_one_upload_and_shared_gates_and_odd_sizes():
    once = HamiltonianEmbedding(layers=2, uploads=1, shared_gates=True, num_classes=3)
    params, _ = random_variables(once, (2, 3, 5, 3))
    assert params["theta"].shape == (2, 1, 15)
    shapes = {}

    def look(name: str, x: jax.Array) -> jax.Array:
        shapes[name] = x.shape
        return x

    def out(params: Any) -> Any:
        x = np.random.default_rng(0).random((2, 3, 5, 3)).astype(np.float32)
        return forward(once, params, {}, x, train=False, tap=Tap(look))[1]["logits"]

    quick = quick_jit(out)
    later = {**params, "time": params["time"].at[1].add(1.0)}
    np.testing.assert_array_equal(quick(params), quick(later))
    assert set(shapes) == {"stem", "block00", "block01", "pooled", "embedding", "logits"}
    assert shapes["stem"] == (2, 8, 8)
    with pytest.raises(ValueError, match="have 4 states"):
        forward(
            HamiltonianEmbedding(num_classes=5), params, {}, jnp.zeros((1, 4, 4, 1)), train=False
        )
    with pytest.raises(ValueError, match="uploads=9"):
        HamiltonianEmbedding(layers=2, uploads=9)
