"""Gates and evolution of quantum states that are simulated exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def _pauli_words() -> np.ndarray:
    """(15, 4, 4) complex64: products of two Pauli matrices, without the identity."""
    pauli = np.array(
        [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], np.complex64
    )
    return np.stack([np.kron(a, b) for a, b in itertools.product(pauli, pauli)][1:])


def su4(theta: jax.Array) -> jax.Array:
    """Real angles (..., 15) to unitary matrices (..., 4, 4), complex64."""
    generator = jnp.einsum("...w,wij->...ij", theta.astype(jnp.complex64), _pauli_words())
    return jax.scipy.linalg.expm(1j * generator)


def brick_wall(qubits: int) -> tuple[int, ...]:
    """First qubits of the gates of a layer: even pairs, then odd pairs."""
    return (*range(0, qubits - 1, 2), *range(1, qubits - 1, 2))


def apply_gate(psi: jax.Array, gate: jax.Array, qubit: int, qubits: int) -> jax.Array:
    """Applies a gate (4, 4) to ``qubit`` and the next one of states (B, 2^n).

    Qubit 0 is the most significant bit of the state's index.
    """
    parts = psi.reshape(len(psi), 2**qubit, 4, 2 ** (qubits - qubit - 2))
    return jnp.einsum("ij,bajc->baic", gate, parts).reshape(psi.shape)


@jax.custom_jvp
def evolve(
    h: jax.Array, values: jax.Array, vectors: jax.Array, time: jax.Array, psi: jax.Array
) -> jax.Array:
    """``exp(-i/2 time h) psi``, given the eigenvalues and eigenvectors of ``h``.

    Its derivative with respect to ``h`` is that of the exponential (Daleckii and Krein), which
    exists where eigenvalues coincide too; those of ``values`` and ``vectors`` are taken as zero.

    Args:
      h: (B, d, d) real and symmetric.
      values: (B, d).
      vectors: (B, d, d), in columns.
      time: scalar.
      psi: (B, d) complex64.
    """
    phase = jnp.exp(-0.5j * time * values)
    return _times(vectors, phase * _times(vectors.mT, psi))


@evolve.defjvp
def _evolve_jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[jax.Array, jax.Array]:
    h, values, vectors, time, psi = primals
    dh, _, _, dtime, dpsi = tangents
    phase = jnp.exp(-0.5j * time * values)
    in_eigenbasis = _times(vectors.mT, psi)
    # (f(a) - f(b)) / (a - b) of f(w) = exp(-i/2 time w), without the division.
    half = time * values / 4
    sums, gaps = half[:, :, None] + half[:, None, :], half[:, :, None] - half[:, None, :]
    slope = -0.5j * time * jnp.exp(-1j * sums) * jnp.sinc(gaps / jnp.pi)
    dh_eigenbasis = vectors.mT @ dh @ vectors
    tangent = _times(slope * dh_eigenbasis, in_eigenbasis) + phase * _times(vectors.mT, dpsi)
    tangent = tangent - 0.5j * dtime * values * phase * in_eigenbasis
    return evolve(h, values, vectors, time, psi), _times(vectors, tangent)


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.einsum("bij,bj->bi", matrix, vector)
