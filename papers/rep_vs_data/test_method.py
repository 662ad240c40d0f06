"""The identities of rotated networks, the universal rule by hand and beside PGD, the evaluator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.rep_vs_data import evaluator as module
from papers.rep_vs_data.evaluator import Transfer
from papers.rep_vs_data.method import aligned, channels, perturbation, perturbed, transported
from papers.rep_vs_data.universal import Universal
from vision.blocks.attack import init, run, updates
from vision.blocks.attack_rules import PGD
from vision.blocks.sites import SiteError
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables
from vision.train.tower import Tap, apply_tap

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, (6, 2, 3, 1)).astype(np.float32)
FIRST = RNG.normal(size=(6, 5)).astype(np.float32)
HEAD = RNG.normal(size=(5, 4)).astype(np.float32)
TURN = np.linalg.qr(RNG.normal(size=(5, 5)))[0].astype(np.float32)


def network(first: Any, head: Any) -> Any:
    def call(pixels: jax.Array, tap: Tap | None) -> jax.Array:
        hidden = apply_tap(tap, "hidden", jnp.tanh(pixels.reshape(len(pixels), -1) @ FIRST) @ first)
        return hidden @ head

    return call


PLAIN, TURNED = network(np.eye(5, dtype=np.float32), HEAD), network(TURN, TURN.T @ HEAD)


def test_data_transfer_to_a_rotated_network_and_representations_where_they_are_rotated():
    delta = jnp.asarray(RNG.normal(size=(2, 3, 1)) / 5, jnp.float32)
    hidden = 2 * HEAD[:, 0]

    @jax.jit
    def both(pixels: jax.Array) -> Any:
        data = [perturbed(call, pixels, delta) for call in (PLAIN, TURNED)]
        moved = [perturbed(call, pixels, jnp.asarray(hidden), "hidden") for call in (PLAIN, TURNED)]
        rotated = jnp.asarray(hidden @ TURN)
        return *data, *moved, perturbed(TURNED, pixels, rotated, "hidden")

    data, data_turned, at_home, elsewhere, rotated = jax.device_get(both(IMAGES))
    np.testing.assert_allclose(data, data_turned, atol=1e-5)
    np.testing.assert_allclose(at_home, rotated, atol=1e-5)
    assert np.abs(at_home - elsewhere).max() > 1


def test_the_map_between_rotated_networks_is_their_rotation():
    source = RNG.normal(size=(40, 5)) + 3
    for how in ("rotation", "least_squares"):
        found = aligned(source, source @ TURN - 2, how)
        np.testing.assert_allclose(found, TURN, atol=1e-5)
    matrix = RNG.normal(size=(5, 3))
    np.testing.assert_allclose(aligned(source, source @ matrix, "least_squares"), matrix, atol=1e-6)
    assert np.abs(TURN.T @ TURN - np.eye(5)).max() < 1e-5
    np.testing.assert_allclose(transported(np.eye(5), matrix), matrix, rtol=1e-5)
    assert channels(np.zeros((2, 3, 4, 5))).shape == (24, 5)
    with pytest.raises(ValueError, match=r"\[40, 5\] and \[40, 3\]; .* as many channels"):
        aligned(source, source @ matrix, "rotation")
    with pytest.raises(ValueError, match=r"\[40, 5\] and \[39, 5\]"):
        aligned(source, source[1:], "least_squares")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_one_image_it_is_pgd(norm: Any):
    fields: Any = {"eps": 0.2, "norm": norm, "steps": 4, "step_size": 0.3, "targeted": True}

    @jax.jit
    def both(pixels: jax.Array) -> Any:
        delta = perturbation(Universal(**fields), PLAIN, pixels, jnp.asarray(2))
        attack = PGD(**fields, random_start=False)
        state = init(attack, jax.random.key(0), pixels, jnp.asarray([2]))
        end = run(attack, lambda x: PLAIN(x, None), state, updates(attack))
        return delta, end.at - end.image

    delta, pgd = jax.device_get(both(IMAGES[:1]))
    np.testing.assert_allclose(delta, pgd[0], atol=1e-6)
    assert np.abs(delta).max() > 0.05


def test_the_universal_rule_by_hand():
    """Three steps on activations in float64; the last image does not count."""
    rule, attacked = Universal(0.5, "l2", 3, 0.4, pixels=False), np.arange(6) < 5
    found = jax.jit(
        lambda x: perturbation(rule, PLAIN, x, jnp.asarray(1), jnp.asarray(attacked), "hidden")
    )
    hidden = np.tanh(IMAGES.reshape(6, -1).astype(np.float64) @ FIRST)
    radius, delta = 0.5 * np.linalg.norm(hidden, axis=1).mean(), np.zeros(5)
    for _ in range(3):
        z = (hidden + delta) @ HEAD
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope = ((np.eye(4)[1] - p) @ HEAD.T)[attacked].sum(0)
        delta = delta + 0.4 * radius * slope / np.linalg.norm(slope)
        delta *= min(1, radius / np.linalg.norm(delta))
    np.testing.assert_allclose(np.asarray(found(IMAGES)), delta, rtol=1e-3)
    assert np.linalg.norm(delta) == pytest.approx(radius)


def test_rules_of_the_other_kind_and_sites_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="site='hidden' and a rule with pixels=True"):
        perturbation(Universal(), PLAIN, jnp.asarray(IMAGES), jnp.asarray(0), site="hidden")
    rule = Universal(0.5, "l2", pixels=False)
    with pytest.raises(SiteError, match="site='block07', but the tower has hidden"):
        perturbation(rule, PLAIN, jnp.asarray(IMAGES), jnp.asarray(0), site="block07")
    with pytest.raises(ValueError, match="norm='linf': the radius in activations is of 'l2'"):
        Universal(0.5, "linf", pixels=False)
    with pytest.raises(ValueError, match="eps is 0"):
        Universal(0.0)
    with pytest.raises(ValueError, match=r"eps=8: pixels are in 0\.\.1"):
        Universal(8)


PIXELS = RNG.random((12, 2, 3, 1)).astype(np.float32)
LABELS = np.arange(12) % 3
STRONG = Universal(3.0, "l2", steps=8, step_size=0.4, pixels=False)
ASKED = {"targets": (0, 2), "sites": ("hidden",), "examples": 9, "activations": STRONG}


def variables(first: Any, head: Any) -> Variables:
    return Variables({"first": first, "head": head}, {}, {})


HOME = variables(np.eye(5, dtype=np.float32), HEAD)


def predict(of: Variables, batch: Any, tap: Any = None) -> dict[str, jax.Array]:
    return {"logits": network(of.params["first"], of.params["head"])(batch["image"], tap)}


def data(image: Any = PIXELS, label: Any = LABELS) -> EvalData:
    return EvalData(Arrays({"image": image, "label": label}, "made"), batch_size=8, threads=0)


def transfer(monkeypatch: Any, other: Variables = HOME, **fields: Any) -> dict[str, Any]:
    """Numbers of the evaluator on HOME, where the run w/1 has other variables."""
    monkeypatch.setattr(module, "load_run", lambda folder: SimpleNamespace(variables=other))
    given: Any = {**ASKED, "learned": data(), "data": data(), "others": {"1": "w/1"}} | fields
    mesh = Mesh().build(jax.devices()[:1])
    return evaluate(Transfer(**given), predict, HOME, 0, mesh)[0]


def test_to_a_rotated_network_pixels_transfer_and_activations_after_the_map(monkeypatch: Any):
    got = transfer(monkeypatch, variables(TURN, TURN.T @ HEAD))
    assert got["pixels_transfer"] == got["pixels_source"]
    assert got["hidden_source"] == 1
    assert got["hidden_transfer"] < 1
    assert got["hidden_aligned"] == 1
    assert got["unperturbed"] < 1
    assert got["examples"] == 12
    assert transfer(monkeypatch, align="rotation")["hidden_transfer"] == 1


def test_faults_are_named(monkeypatch: Any):
    with pytest.raises(ValueError, match=r"others: w/1 is a run of another tower; \['head'\]"):
        transfer(monkeypatch, variables(HOME.params["first"], HEAD[:, :3]))
    with pytest.raises(ValueError, match=r"targets=\(4,\), but classes are 0\.\.3"):
        transfer(monkeypatch, targets=(4,))
    with pytest.raises(DataError, match="made: all images are of the target 0 by 'label'"):
        transfer(monkeypatch, learned=data(label=0 * LABELS))
    with pytest.raises(DataError, match=r"pixels reach from .* and not from 0 to 1"):
        transfer(monkeypatch, data=data(image=PIXELS - 1))
    with pytest.raises(SiteError, match="site='block09', but the tower has hidden"):
        transfer(monkeypatch, sites=("block09",))
    with pytest.raises(ValueError, match="others"):
        Transfer(data(), data(), {})
    with pytest.raises(ValueError, match="set targeted=True"):
        Transfer(data(), data(), {"1": "w"}, pixels=Universal(targeted=False))
