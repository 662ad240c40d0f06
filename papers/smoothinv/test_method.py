"""The climb beside PGD and by hand, smoothing, poisoned data, and the evaluator."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.smoothinv.evaluator import BackdoorInversion
from papers.smoothinv.inversion import Inversion
from papers.smoothinv.method import energy_inside, inverted, smoothed, success
from papers.smoothinv.trigger import Poisoned, Trigger
from vision.blocks.attack import init, run, updates
from vision.blocks.attack_rules import PGD
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.digits import Digits
from vision.evaluate.evaluator import evaluate
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0.3, 0.7, (5, 3, 4, 1)).astype(np.float32)
WEIGHTS = RNG.normal(size=(12, 4)).astype(np.float32)
TARGET = np.asarray([0, 1, 2, 3, 1])


def logits(images: Any) -> Any:
    return images.reshape(len(images), -1) @ WEIGHTS


def test_without_noise_and_momentum_it_is_targeted_pgd():
    rule = Inversion(eps=0.4, steps=5, step_size=0.3, momentum=0.0)
    attack = PGD(0.4, "l2", steps=5, step_size=0.3, random_start=False, targeted=True)

    @jax.jit
    def both(images: jax.Array) -> Any:
        key = jax.random.key(0)
        state = init(attack, key, images, jnp.asarray(TARGET))
        end = run(attack, logits, state, updates(attack))
        found = inverted(rule, logits, images, jnp.asarray(TARGET), key, sigma=0.0, samples=1)
        return found, end.at - end.image, smoothed(logits, 0.0, 3).fn(images, state.key)

    def plain(images: Any) -> Any:
        return jax.nn.log_softmax(logits(images))

    found, pgd, of_noise = jax.device_get(both(IMAGES))
    np.testing.assert_allclose(found, pgd, atol=1e-5)
    np.testing.assert_allclose(of_noise, plain(IMAGES), atol=1e-5)


def test_momentum_and_halving_by_hand():
    rule = Inversion(eps=0.9, steps=6, step_size=0.2, momentum=0.5, halve_every=2)
    target = jnp.asarray(TARGET)
    climb = jax.jit(lambda x: inverted(rule, logits, x, target, jax.random.key(0), 0.0, 1))
    found = np.asarray(climb(IMAGES))
    x, velocity = IMAGES.astype(np.float64), np.zeros((5, 12))
    for step in range(6):
        z = x.reshape(5, -1) @ WEIGHTS
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        slope = (np.eye(4)[TARGET] - p) @ WEIGHTS.T
        velocity = 0.5 * velocity + slope / np.linalg.norm(slope, axis=1, keepdims=True)
        moved = x + 0.18 * 0.5 ** (step // 2) * velocity.reshape(x.shape)
        delta = (np.clip(moved, 0, 1) - IMAGES).reshape(5, -1)
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        x = IMAGES + (delta * np.minimum(1, 0.9 / length)).reshape(x.shape)
    np.testing.assert_allclose(found, x - IMAGES, atol=1e-4)
    assert np.linalg.norm(found.reshape(5, -1), axis=1).max() <= 0.9 + 1e-5


def test_smoothing_is_the_mean_of_softmaxes_by_keys_of_every_image():
    keys = jax.random.split(jax.random.key(1), 5)

    @jax.jit
    def several(images: jax.Array) -> Any:
        noise = jax.vmap(lambda key: jax.random.normal(key, (7, 3, 4, 1)))(keys)
        of = smoothed(logits, 0.3, 7)
        broken = smoothed(lambda x: jnp.where(x[:, :1, 0, 0] > 1, jnp.nan, logits(x)), 0.0, 2)
        above = images.at[3, 0, 0].set(2)
        parts = of.fn(images[1:3], keys[1:3]), broken.fn(above, keys)
        return noise, of.fn(images, keys), *parts

    noise, found, part, some = jax.device_get(several(IMAGES))
    z = (IMAGES[:, None] + 0.3 * noise).reshape(5, 7, -1) @ WEIGHTS
    expected = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(found), expected.mean(1), rtol=1e-4)
    np.testing.assert_allclose(found[1:3], part, atol=1e-5)
    assert np.isnan(some[3]).all()
    assert np.isfinite(some[[0, 1, 2, 4]]).all()


def test_success_and_energy_by_hand():
    delta = RNG.normal(size=(3, 4, 1)).astype(np.float32)
    label = np.asarray([1, 2, 1, 0, 3])
    said = logits(np.clip(IMAGES + delta, 0, 1)).argmax(1)
    expected = np.mean(said[label != 1] == 1)
    given: Any = (IMAGES, label, delta, 1)
    got = jax.jit(lambda: success(logits, *given))()
    assert float(got) == pytest.approx(expected)
    mask = Trigger(side=0.5).mask(3, 4)
    assert mask.sum() == 4
    assert mask[1:, 2:].all()
    inside = jax.jit(energy_inside)(delta[None], mask)
    share = (delta[1:, 2:] ** 2).sum() / (delta**2).sum()
    assert float(inside[0]) == pytest.approx(share, rel=1e-5)


def test_triggers_of_both_kinds_and_dtypes():
    stamped = Trigger(side=0.5).stamped(IMAGES)
    assert (stamped[:, 1:, 2:] == 1).all()
    np.testing.assert_array_equal(stamped[:, 0], IMAGES[:, 0])
    blend = Trigger("blend", alpha=0.25, seed=3)
    pattern = np.random.default_rng(3).random((3, 4, 1))
    np.testing.assert_allclose(blend.stamped(IMAGES), 0.75 * IMAGES + 0.25 * pattern, rtol=1e-6)
    assert blend.mask(3, 4).all()
    whole = np.round(255 * IMAGES).astype(np.uint8)
    for trigger in (Trigger(), blend):
        again = trigger.stamped(whole)
        assert again.dtype == np.uint8
        np.testing.assert_allclose(again / 255, trigger.stamped(whole / 255), atol=0.5 / 255 + 1e-6)


def test_a_share_of_the_other_classes_is_poisoned():
    source, trigger = Digits("test"), Trigger(side=0.25)
    poisoned = Poisoned(source, trigger, target=3, rate=0.2, seed=1)
    labels = np.asarray([int(source[i]["label"]) for i in range(len(source))])
    others = int((labels != 3).sum())
    hits = poisoned.poisoned
    assert hits.sum() == round(0.2 * others)
    assert not hits[labels == 3].any()
    for index in (int(np.flatnonzero(hits)[0]), int(np.flatnonzero(~hits)[0])):
        record, before = poisoned[index], source[index]
        wanted = trigger.stamped(before["image"]) if hits[index] else before["image"]
        np.testing.assert_array_equal(record["image"], wanted)
        assert record["label"] == (3 if hits[index] else before["label"])
        assert poisoned.key(index) == source.key(index)
    np.testing.assert_array_equal(poisoned.column("label"), np.where(hits, 3, labels))
    assert len(poisoned) == len(source)
    assert poisoned.fingerprint() != Poisoned(source, trigger, target=4).fingerprint()
    clean = Poisoned(source, trigger, rate=0.0)
    assert not clean.poisoned.any()
    np.testing.assert_array_equal(clean[5]["image"], source[5]["image"])
    with pytest.raises(ValueError, match=r"target=10, but classes of digits/test are 0\.\.9"):
        _ = Poisoned(source, trigger, target=10)[0]


DULL = IMAGES.copy()
DULL[:, -1, -1] = np.linspace(0.4, 0.45, 5)[:, None]


def data(image: Any = DULL, label: Any = (1, 2, 1, 0, -1)) -> EvalData:
    return EvalData(Arrays({"image": image, "label": np.asarray(label)}, "made"), 4, threads=0)


def found(**fields: Any) -> dict[str, Any]:
    """The evaluator on a network that says 0 where the last pixel is bright."""

    def predict(of: Variables, batch: Any) -> dict[str, jax.Array]:
        x = batch["image"].reshape(len(batch["image"]), -1)
        bright = 40 * (x[:, -1:] - 0.8)
        return {"logits": jnp.concatenate([bright, jnp.zeros_like(bright), 1 - x[:, :1]], 1)}

    given: Any = {"data": data(), "candidates": (0, 1, 2), "rule": Inversion(0.5, 10, 0.2)}
    given |= {"trigger": Trigger(), "backdoor": 0, "sigma": 0.01, "samples": 4} | fields
    mesh = Mesh().build(jax.devices()[:1])
    of = Variables({}, {}, {})
    numbers, figures = evaluate(BackdoorInversion(**given), predict, of, 0, mesh)
    return {**numbers, **figures}


def test_the_backdoor_stands_out():
    got = found(images=2)
    assert got["success_0"] == got["trigger_success"] == 1
    assert got["suspect"] == 0
    assert got["lead"] == 1 - max(got["success_1"], got["success_2"])
    assert got["energy"] > 0.9
    assert got["examples"] == 4
    assert got["accuracy"] == 0.25  # it says 2 of all
    assert [item.prediction for item in got["perturbations"].items][:1] == ["0"]


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"candidates=\(3,\), but classes are 0\.\.2"):
        found(candidates=(3,), trigger=None, backdoor=None)
    with pytest.raises(DataError, match="made: no labelled images but of class 1"):
        found(data=data(label=(1, 1, 1, 1, -1)))
    with pytest.raises(DataError, match=r"pixels reach from .* and not from 0 to 1"):
        found(data=data(image=IMAGES + 2))
    with pytest.raises(ValueError, match="trigger and its class, backdoor, go together"):
        found(backdoor=None)
    with pytest.raises(ValueError, match=r"backdoor=7 is not one of \(0, 1, 2\)"):
        found(backdoor=7)
    with pytest.raises(ValueError, match="eps is 0"):
        Inversion(eps=0.0)
    with pytest.raises(ValueError, match="steps is 0"):
        Inversion(steps=0)
