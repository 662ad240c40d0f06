"""Attacks: identities, exact answers on linear models, and going on from a saved state."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vision.blocks.attack import (
    AttackState,
    Randomised,
    fooled,
    init,
    margins,
    run,
    update,
    updates,
)
from vision.blocks.attack_rules import (
    APGD,
    PGD,
    CarliniWagner,
    cross_entropy,
    difference_of_logits_ratio,
    fgsm,
)
from vision.evaluators.robustness.square import Square, _pyramids

COUNT, SHAPE, CLASSES = 12, (8, 7, 2), 5
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(size=(COUNT, *SHAPE)), jnp.float32)
IMAGES = IMAGES.at[0, :3].set(0.0).at[1, :3].set(1.0)
FIRST = jnp.asarray(RNG.normal(size=(np.prod(SHAPE), 16)) / 4, jnp.float32)
SECOND = jnp.asarray(RNG.normal(size=(16, CLASSES)), jnp.float32)
MASK = jnp.arange(COUNT) % 4 != 3


def network(images: jax.Array) -> jax.Array:
    return jnp.tanh((images - 0.5).reshape(len(images), -1) @ FIRST) @ SECOND


LABELS = jnp.argmax(network(IMAGES), -1)
WANTED = jnp.argmin(network(IMAGES), -1)
ATTACKS = {
    "fgsm": fgsm(0.1),
    "pgd": PGD(0.1, steps=5, restarts=2),
    "pgd_l2": PGD(0.6, "l2", steps=5),
    "apgd": APGD(0.1, steps=12, restarts=2),
    "apgd_dlr": APGD(0.1, loss_type="dlr", steps=12),
    "apgd_l2": APGD(0.6, "l2", steps=12),
    "square": Square(0.1, queries=30, restarts=2),
    "square_l2": Square(0.6, "l2", queries=30),
    "cw": CarliniWagner(steps=12, searches=4, first_c=0.1, learning_rate=0.05),
}


@functools.partial(jax.jit, static_argnums=(0, 1))
def go(attack: Any, logits_fn: Any, state: AttackState, until: int) -> AttackState:
    return run(attack, logits_fn, state, until)


begin = jax.jit(init, static_argnums=0)


def run_attack(attack: Any, logits_fn: Any = network, **arguments: Any) -> AttackState:
    given: Any = {"image": IMAGES, "label": LABELS, **arguments}
    return go(attack, logits_fn, begin(attack, jax.random.key(1), **given), updates(attack))


def distances(state: AttackState) -> dict[str, np.ndarray]:
    delta = np.asarray(state.best - state.image, np.float64).reshape(len(state.best), -1)
    return {"linf": np.abs(delta).max(1), "l2": np.linalg.norm(delta, axis=1)}


@pytest.mark.parametrize("name", ATTACKS)
def test_adversarial_images_and_resuming(name: str, tmp_path: Path):
    attack = ATTACKS[name]
    start = begin(attack, jax.random.key(1), IMAGES, LABELS, MASK)
    end = go(attack, network, start, updates(attack))
    actual = np.asarray(end.found)
    assert actual.sum() >= 3
    assert not actual[~MASK].any()
    assert np.array_equal(end.best[~actual], IMAGES[~actual])
    assert np.asarray(fooled(network(end.best), LABELS, False))[actual].all()
    assert (np.asarray(end.best) >= 0).all()
    assert (np.asarray(end.best) <= 1).all()
    if not isinstance(attack, CarliniWagner):
        assert (distances(end)[attack.norm] <= attack.eps + 1e-6).all()
        margin = margins(network(end.best), LABELS, False)
        assert np.allclose(end.score[actual], margin[actual], atol=1e-4)
    assert not end.nonfinite.any()
    # Stopped, written, read, and gone on with: every bit of the state is the same.
    path = tmp_path / "state.npz"
    for until in (1, updates(attack) // 2):
        leaves, tree = jax.tree.flatten(go(attack, network, start, until))
        np.savez(path, *map(np.asarray, leaves), allow_pickle=False)
        with np.load(path, allow_pickle=False) as kept:
            start = jax.tree.unflatten(tree, [kept[f"arr_{i}"] for i in range(len(leaves))])
    again = go(attack, network, start, updates(attack))
    for first, second in zip(jax.tree.leaves(again), jax.tree.leaves(end), strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("name", ["fgsm", "pgd_l2", "apgd", "square_l2"])
def test_zero_radius_changes_nothing(name: str):
    end = run_attack(dataclasses.replace(ATTACKS[name], eps=0.0))
    assert not end.found.any()
    assert np.array_equal(end.best, IMAGES)
    assert np.allclose(end.at, IMAGES, atol=1e-7)


def test_fgsm_is_one_step_of_pgd():
    eps = 0.1

    def loss(images: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(network(images))[jnp.arange(COUNT), LABELS].sum()

    by_hand = jnp.clip(IMAGES + eps * jnp.sign(jax.grad(loss)(IMAGES)), 0, 1)
    start = init(fgsm(eps), jax.random.key(0), IMAGES, LABELS)
    moved = update(fgsm(eps), network, start)
    assert np.allclose(moved.at, by_hand, atol=1e-6)
    pgd = PGD(eps, steps=1, step_size=1.0, random_start=False)
    assert np.allclose(update(pgd, network, start).at, moved.at, atol=1e-6)
    wrong = np.asarray(fooled(network(by_hand), LABELS, False))
    assert np.array_equal(run_attack(fgsm(eps)).found, wrong)
    targeted = fgsm(eps, targeted=True)
    back = jnp.clip(IMAGES - eps * jnp.sign(jax.grad(loss)(IMAGES)), 0, 1)
    assert np.allclose(update(targeted, network, start).at, back, atol=1e-6)


def test_noise_of_an_image_does_not_depend_on_its_batch():
    attack = ATTACKS["square"]
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(3)))(jnp.arange(COUNT))
    both = [
        go(attack, network, init(attack, keys[order], IMAGES[order], LABELS[order]), 60)
        for order in (np.arange(COUNT), np.arange(COUNT)[::-1])
    ]
    assert np.allclose(both[0].best, both[1].best[::-1], atol=1e-6)
    assert both[0].found.any()


SLOPE = jnp.asarray(RNG.normal(size=np.prod(SHAPE)), jnp.float32)


def line(images: jax.Array) -> jax.Array:
    score = (images - 0.5).reshape(len(images), -1) @ SLOPE
    return jnp.stack([-score / 2, score / 2], -1)


def noisy(images: jax.Array, keys: jax.Array) -> jax.Array:
    """The network on images with noise, whose first number is told as a class of its own."""
    noise = jax.vmap(lambda key: jax.random.normal(key, SHAPE))(keys)
    first = noise[:, 0, 0, :1]
    return jnp.concatenate([network(images + 0.1 * noise), first - 100], 1)


def test_a_network_that_draws_draws_anew_in_every_update_and_for_every_image():
    attack, drawing = PGD(0.1, steps=2, random_start=False), Randomised(noisy)
    seen = []

    def heard(images: jax.Array, keys: jax.Array) -> jax.Array:
        logits = noisy(images, keys)
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), logits[:, -1])
        return logits

    whole = run_attack(attack, Randomised(heard))
    jax.effects_barrier()
    assert len({float(x) for draws in seen for x in draws}) == updates(attack) * COUNT
    state = begin(attack, jax.random.key(1), IMAGES, LABELS)
    for until in (1, 2, updates(attack)):
        state = go(attack, drawing, state, until)
    np.testing.assert_allclose(whole.at, state.at, atol=1e-6)
    half = run_attack(attack, drawing, image=IMAGES[:5], label=LABELS[:5])
    np.testing.assert_allclose(whole.at[:5], half.at, atol=1e-5)


def test_linear_model_in_closed_form():
    inner = 0.3 + 0.4 * IMAGES  # no pixel meets the end of its range
    label = jnp.argmax(line(inner), -1)
    lead = np.abs(line(inner)[:, 1] - line(inner)[:, 0])
    slope = np.asarray(SLOPE, np.float64)
    eps, radius = 0.02, 0.05
    exact = {"linf": lead / np.abs(slope).sum(), "l2": lead / np.linalg.norm(slope)}
    for attack in (PGD(eps, steps=10), APGD(radius, "l2", steps=10), Square(eps, queries=20)):
        reached = exact[attack.norm] < attack.eps
        assert 0 < reached.sum() < COUNT
        actual = run_attack(attack, line, image=inner, label=label).found
        assert not actual[~reached].any()
        assert isinstance(attack, Square) or actual[reached].all()
    nearest = CarliniWagner(steps=100, searches=10, learning_rate=0.005, confidence=0.5)
    end = run_attack(nearest, line, image=inner, label=label)
    assert end.found.all()
    least = distances(end)["l2"] / ((lead + 0.5) / np.linalg.norm(slope))
    assert (least > 1 - 1e-4).all()
    assert least.max() < 1.05


@pytest.mark.parametrize(
    "attack",
    [
        PGD(0.4, targeted=True),
        APGD(0.4, loss_type="dlr", steps=20, targeted=True),
        CarliniWagner(steps=20, searches=3, first_c=1.0, learning_rate=0.1, targeted=True),
    ],
    ids=["pgd", "apgd_dlr", "cw"],
)
def test_a_target_is_reached(attack: Any):
    end = run_attack(attack, label=WANTED)
    assert end.found.mean() > 0.7
    reached = np.argmax(network(end.best), -1) == WANTED
    assert np.array_equal(reached, end.found)


def test_losses_and_checkpoints_are_those_of_the_paper():
    logits = jnp.asarray(RNG.normal(size=(20, 6)), jnp.float32)
    label = jnp.asarray(RNG.integers(0, 6, 20))
    exact, aimed = [], []
    for z, y in zip(np.asarray(logits, np.float64), np.asarray(label), strict=True):
        top, runner_up = np.sort(z)[::-1], np.delete(z, y).max()
        exact.append(-(z[y] - runner_up) / (top[0] - top[2]))
        aimed.append((z[y] - runner_up) / (top[0] - (top[2] + top[3]) / 2))
    assert np.allclose(difference_of_logits_ratio(logits, label, False), exact, rtol=1e-4)
    assert np.allclose(difference_of_logits_ratio(logits, label, True), aimed, rtol=1e-4)
    assert np.allclose(difference_of_logits_ratio(7 * logits, label, False), exact, rtol=1e-4)
    ordinary = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    assert np.allclose(cross_entropy(logits, label, False), ordinary, rtol=1e-5)
    assert np.allclose(cross_entropy(logits, label, True), -ordinary, rtol=1e-5)
    # Where 1 - p rounds to zero the gradient is still right, and then it is zero.
    slopes = jax.grad(lambda z: cross_entropy(z, jnp.zeros(2, int), False).sum())(
        jnp.asarray([[60.0, 0.0], [300.0, 0.0]])
    )
    assert np.allclose(slopes[0], [-np.exp(-60), np.exp(-60)], rtol=1e-4, atol=0)
    assert not slopes[1].any()
    # p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), of 100 steps.
    windows = APGD(steps=100).checkpoints()
    assert np.flatnonzero(windows).tolist() == [22, 41, 57, 70, 80, 87, 93, 99]
    with pytest.raises(ValueError, match="'dlr' needs 3 classes and the model has 2"):
        run_attack(APGD(loss_type="dlr"), line)


@pytest.mark.parametrize("side", [1, 3, 4, 7])
def test_pyramids_are_those_of_the_authors(side: int):
    def one(tall: int, wide: int) -> np.ndarray:
        pyramid = np.zeros((tall, wide))
        for n in range(max(tall // 2, wide // 2) + 1):
            row, column = tall // 2 - n, wide // 2 - n
            pyramid[max(row, 0) : row + 2 * n + 1, max(column, 0) : column + 2 * n + 1] += (
                1 / (n + 1) ** 2
            )
        return pyramid / max(np.linalg.norm(pyramid), 1e-12)

    expected = np.concatenate([one(side // 2, side), -one(side - side // 2, side)])
    place = jnp.arange(9) - 1
    got = np.asarray(_pyramids(place[:, None], place, jnp.asarray(side)))
    assert np.allclose(got[1 : side + 1, 1 : side + 1], expected, atol=1e-6)
    rest = got.copy()
    rest[1 : side + 1, 1 : side + 1] = 0
    assert not rest.any()


def test_squares_shrink_and_fit():
    sides = Square(queries=1000).sides(32, 20)
    assert sides[0] == 20
    assert sides[-1] == round((0.8 / 512 * 640) ** 0.5) == 1
    assert (np.diff(sides) <= 0).all()
    odd = Square(norm="l2", queries=1000).sides(32, 20)
    assert (odd % 2 == 1).all()
    assert odd.min() == 3


def test_nonfinite_logits_are_flagged_and_never_adversarial():
    def broken(images: jax.Array) -> jax.Array:
        logits = network(images)
        return logits.at[0].set(jnp.nan).at[1].set(jnp.where(logits[1] > 0, jnp.inf, logits[1]))

    for name in ("pgd", "square"):
        end = run_attack(ATTACKS[name], broken)
        assert np.flatnonzero(end.nonfinite).tolist() == [0, 1], name
        assert not end.found[:2].any(), name
        assert end.found[2:].any(), name


def test_bad_arguments():
    with pytest.raises(ValueError, match="norm is 'l1', expected one of 'linf', 'l2'"):
        PGD(norm="l1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="eps is -1"):
        Square(eps=-1)
    with pytest.raises(ValueError, match="loss_type is 'hinge'"):
        APGD(loss_type="hinge")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="searches is 0, expected a whole number >= 1"):
        CarliniWagner(searches=0)
    with pytest.raises(ValueError, match="step_size is 0"):
        PGD(step_size=0)
    with pytest.raises(ValueError, match="area is 2"):
        Square(area=2)
    with pytest.raises(ValueError, match="images are uint8"):
        init(PGD(), jax.random.key(0), jnp.zeros((2, 3, 3, 1), jnp.uint8), jnp.zeros(2, int))
    with pytest.raises(ValueError, match=r"labels are float32 \(12, 1\)"):
        init(PGD(), jax.random.key(0), IMAGES, jnp.zeros((12, 1)))
