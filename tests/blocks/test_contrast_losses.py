"""Contrastive losses against papers' formulas and open_clip, and on degenerate batches."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.contrast import (
    Pairs,
    Ranking,
    Sigmoid,
    Softmax,
    affinities,
    contrast,
)
from vision.blocks.scale import Scale, clamp

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "contrast" / "open_clip.npz"
SIZES = ("1x4", "2x8", "7x16", "32x64", "96x24")
compiled = jax.jit(contrast, static_argnums=0)
FREE = Scale(1.0, None, learned=False)


def pairs(scores, affinity=None, keep=None, to_image=None) -> Pairs:
    scores = jnp.asarray(scores, jnp.float32)
    keep = jnp.ones(scores.shape, bool) if keep is None else jnp.asarray(keep)
    affinity = jnp.eye(len(scores)) if affinity is None else jnp.asarray(affinity, jnp.float32)
    to_image = scores if to_image is None else jnp.asarray(to_image, jnp.float32)
    return Pairs(scores, to_image, jnp.where(keep, affinity, 0.0), keep)


def scores(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, rows))


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def value(loss, p: Pairs, params=None) -> float:
    return float(compiled(loss, params or {}, p).loss)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["softmax", "softmax_hot", "sigmoid", "sigmoid_unbiased"])
def test_losses_and_gradients_equal_open_clips(name: str, size: str):
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {k: file[f"{size}/{name}/{k}"] for k in ("loss", "d_image", "d_text")}
        params = {"log_scale": file[f"{size}/{name}/log_scale"]}
        d_params = {"log_scale": file[f"{size}/{name}/d_log_scale"]}
        if name.startswith("sigmoid"):
            params["bias"] = file[f"{size}/{name}/bias"]
            d_params["bias"] = file[f"{size}/{name}/d_bias"]
        image, text = file[f"{size}/image"], file[f"{size}/text"]
    loss = Softmax() if name.startswith("softmax") else Sigmoid()

    def ours(params, image, text):
        return contrast(loss, params, pairs(image @ text.T)).loss

    actual, grads = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(params, image, text)
    expected = (d_params, golden["d_image"], golden["d_text"])
    np.testing.assert_allclose(actual, golden["loss"], rtol=1e-5, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), grads, expected
    )


def test_softmax_with_soft_targets_smoothing_and_two_matrices_is_the_written_formula():
    rng = np.random.default_rng(1)
    s, back = scores(6), scores(6, 2)
    affinity = rng.random((6, 6))
    by_row = 0.9 * affinity / affinity.sum(1, keepdims=True) + 0.1 / 6
    by_column = 0.9 * affinity / affinity.sum(0, keepdims=True) + 0.1 / 6
    to_text = -(by_row * log_softmax(s, 1)).sum(1).mean()
    to_image = -(by_column * log_softmax(back, 0)).sum(0).mean()
    loss = Softmax(FREE, label_smoothing=0.1, weights=(1.0, 0.25))
    actual = value(loss, pairs(s, affinity, to_image=back))
    assert actual == pytest.approx(to_text + 0.25 * to_image, rel=1e-5)


def test_same_label_targets_are_unicl_and_unique_labels_are_clip():
    s = scores(5)
    labels = jnp.array([3, 1, 3, 0, 3])
    logs = log_softmax(s, 1), log_softmax(s, 0).T
    total = 0.0
    for log in logs:
        for i in range(5):
            same = [k for k in range(5) if labels[k] == labels[i]]
            total -= sum(log[i, k] for k in same) / len(same) / 5 / 2
    assert value(Softmax(FREE), pairs(s, affinities(labels, labels))) == pytest.approx(
        total, rel=1e-5
    )
    unique = jnp.arange(5)
    clip = -(np.diag(logs[0]).mean() + np.diag(logs[1]).mean()) / 2
    assert value(Softmax(FREE), pairs(s, affinities(unique, unique))) == pytest.approx(
        clip, rel=1e-5
    )


def test_soft_labels_match_by_their_inner_product():
    actual = affinities(jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[0.2, 0.8], [-1.0, 0.0]]))
    np.testing.assert_allclose(actual, [[0.2, 0.0], [0.5, 0.0]], atol=1e-6)


LOSSES = [
    Softmax(FREE),
    Softmax(FREE, label_smoothing=0.1),
    Sigmoid(FREE, None),
    Ranking(),
    Ranking(reduce="hardest"),
]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_masked_rows_change_nothing(loss):
    s, some = scores(6), np.array([0, 2, 5])
    valid = np.isin(np.arange(6), some)

    def masked(s):
        return contrast(loss, {}, pairs(s, keep=valid[:, None] & valid[None])).loss

    actual, gradient = jax.jit(jax.value_and_grad(masked))(jnp.asarray(s, jnp.float32))
    assert float(actual) == pytest.approx(value(loss, pairs(s[np.ix_(some, some)])), rel=1e-5)
    assert not np.any(np.asarray(gradient)[~valid])
    assert not np.any(np.asarray(gradient)[:, ~valid])
    assert np.any(gradient)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_degenerate_batches_have_defined_values(loss):
    @jax.jit
    @jax.grad
    def gradient_of(s, affinity, keep):
        return contrast(loss, {}, Pairs(s, s, affinity, keep)).loss

    def run(p: Pairs):
        result = compiled(loss, {}, p)
        gradient = gradient_of(p.to_text, p.affinity, p.keep)
        assert np.all(np.isfinite(gradient))
        assert np.all(np.isfinite(jax.tree.leaves(result)))
        return result, np.asarray(gradient)

    s = scores(4)
    nothing, gradient = run(pairs(s, keep=np.zeros((4, 4), bool)))
    assert all(float(x) == 0 for x in jax.tree.leaves(nothing))
    assert not gradient.any()

    alone, _ = run(pairs(s[:1, :1]))
    first = float(np.log1p(np.exp(-s[0, 0]))) if isinstance(loss, Sigmoid) else 0.0
    assert float(alone.loss) == pytest.approx(first, abs=1e-6)
    assert float(alone.rows) == 1

    one_class, gradient = run(pairs(s, np.ones((4, 4))))
    if isinstance(loss, Softmax):
        assert float(one_class.loss) >= math.log(4)
    if isinstance(loss, Ranking):
        assert float(one_class.loss) == 0
        assert not gradient.any()
    assert float(one_class.to_text) == 1


def test_ranking_is_the_written_formula_for_every_choice_of_negatives():
    s = scores(5)
    hinge = np.maximum(0.0, 0.3 - np.diag(s)[:, None] + s) * (1 - np.eye(5))
    back = np.maximum(0.0, 0.3 - np.diag(s)[None] + s) * (1 - np.eye(5))
    mean = {"text": hinge.sum() / 20, "image": back.sum() / 20}
    hardest = {"text": hinge.max(1).mean(), "image": back.max(0).mean()}
    for reduce, expected in (("mean", mean), ("hardest", hardest)):
        expected["both"] = expected["text"] + expected["image"]
        for negatives, number in expected.items():
            loss = Ranking(0.3, negatives, reduce)  # pyright: ignore[reportArgumentType]
            assert value(loss, pairs(s)) == pytest.approx(number, rel=1e-5)


def test_ranking_is_zero_exactly_when_every_margin_is_kept():
    s = np.full((4, 4), 0.1) + 0.25 * np.eye(4)
    assert value(Ranking(0.24), pairs(s)) == 0
    assert value(Ranking(0.26), pairs(s)) > 0


def test_accuracy_needs_a_positive_above_every_negative():
    s = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    actual = compiled(Softmax(FREE), {}, pairs(s))
    assert float(actual.to_text) == pytest.approx(2 / 3)  # a tie is a miss
    assert float(actual.to_image) == 1
    assert float(actual.own) == pytest.approx(2.0)


def test_scale_is_bounded_and_can_decrease_again():
    scale = Scale()
    assert float(scale.value(scale.parameters())) == pytest.approx(1 / 0.07, rel=1e-6)
    for a in (math.log(100), 4.7, 30.0, 1000.0):
        assert float(scale.value({"log_scale": a})) <= 100
    up = jax.grad(lambda a: -scale.value({"log_scale": a}))
    down = jax.grad(lambda a: scale.value({"log_scale": a}))
    assert float(up(5.0)) == 0
    assert float(down(5.0)) == pytest.approx(100, rel=1e-5)
    assert float(down(math.log(100))) == pytest.approx(100, rel=1e-5)
    assert float(up(2.0)) == pytest.approx(-math.exp(2), rel=1e-5)
    assert float(jax.grad(clamp)(-3.0, -1.0, 1.0)) == 0
    assert float(jax.grad(lambda x: -clamp(x, -1.0, 1.0))(-3.0)) == -1


def test_temperature_parameterisation():
    scale = Scale(1.0, 50.0, form="temperature")
    assert scale.parameters() == {"temperature": 1.0}
    assert float(scale.value({"temperature": 0.25})) == 4
    assert float(scale.value({"temperature": -1.0})) == pytest.approx(50)
    assert float(jax.grad(lambda t: scale.value({"temperature": t}))(0.5)) == pytest.approx(-4)
    fixed = Scale(7.0, learned=False)
    assert fixed.parameters() == {}
    assert float(fixed.value({})) == 7


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", ["log_scale", "temperature"])
def test_nonfinite_parameters_give_a_nonfinite_loss(bad: float, form):
    loss = Softmax(Scale(1.0, 100.0, form=form))
    assert math.isnan(value(loss, pairs(scores(3)), {form: bad}))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Scale(math.nan), "initial"),
        (lambda: Scale(0.0), "initial"),
        (lambda: Scale(200.0, 100.0), "maximum"),
        (lambda: Scale(1.0, None, form="temperature"), "maximum"),
        (lambda: Scale(form="log"), "form"),  # pyright: ignore[reportArgumentType]
        (lambda: Softmax(label_smoothing=1.0), "label_smoothing"),
        (lambda: Softmax(weights=(0.0, 0.0)), "weights"),
        (lambda: Sigmoid(bias=math.inf), "bias"),
        (lambda: Ranking(margin=0.0), "margin"),
        (lambda: Ranking(negatives="none"), "negatives"),  # pyright: ignore[reportArgumentType]
        (lambda: Ranking(reduce="sum"), "reduce"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_values_are_checked(make, name: str):
    with pytest.raises(ValueError, match=name):
        make()
