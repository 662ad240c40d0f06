"""Weights of classes, focal and asymmetric losses against their formulas in numpy, regression."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.test_classify import Given
from vision.data.source import DataError, SourceInfo
from vision.objectives.classify import Classify, cross_entropy
from vision.objectives.imbalance import Asymmetric, BalancedWeights, FixedWeights, Focal
from vision.objectives.regress import Regress
from vision.train.objective import Context, Variables

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 4)).astype(np.float32) * 3
LABEL = np.asarray([0, 3, 3, 1, 2])
SEVERAL = (RNG.random((5, 4)) < 0.4).astype(np.float32)
P = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
WEIGHTS = np.asarray([1.0, 0.5, 2.0, 4.0])
HOT = np.eye(4)[LABEL]


def soft(p: Any) -> Any:
    odds = np.exp(p - p.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


Q = soft(LOGITS.astype(np.float64))
CASES: dict[str, tuple[str, Any, Any, Any]] = {
    "weighted softmax": ("softmax", None, WEIGHTS, -HOT * np.log(Q) * WEIGHTS),
    "focal softmax": ("softmax", Focal(1.5), None, -HOT * np.log(Q) * (1 - Q) ** 1.5),
    "focal sigmoid": ("sigmoid", Focal(2.0), None, -(SEVERAL * np.log(P) * (1 - P) ** 2
                                                    + (1 - SEVERAL) * np.log(1 - P) * P**2)),
    "weighted sigmoid": ("sigmoid", None, WEIGHTS, -(SEVERAL * np.log(P)
                                                     + (1 - SEVERAL) * np.log(1 - P)) * WEIGHTS),
    "asymmetric": ("sigmoid", Asymmetric(1.0, 3.0, 0.1), None,
                   -(SEVERAL * np.log(P) * (1 - P)
                     + (1 - SEVERAL) * np.log(1 - np.maximum(P - 0.1, 0))
                     * np.maximum(P - 0.1, 0) ** 3)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_losses_are_their_formulas(case: str):
    kind, focus, weights, terms = CASES[case]
    targets = jnp.asarray(HOT if kind == "softmax" else SEVERAL, jnp.float32)
    w = None if weights is None else weights.astype(np.float32)
    found = cross_entropy(jnp.asarray(LOGITS), targets, kind, 0.0, None, focus, w)
    np.testing.assert_allclose(found, terms.sum(-1), rtol=2e-5)
    known = jnp.asarray(RNG.random((5, 4)) < 0.5)
    if kind == "sigmoid":
        found = cross_entropy(jnp.asarray(LOGITS), targets, kind, 0.0, known, focus, w)
        np.testing.assert_allclose(found, np.where(known, terms, 0).sum(-1), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_without_gamma_focal_is_the_cross_entropy(kind: str):
    targets = jnp.asarray(HOT if kind == "softmax" else SEVERAL, jnp.float32)
    plain = cross_entropy(jnp.asarray(LOGITS), targets, kind, 0.1)
    focal = cross_entropy(jnp.asarray(LOGITS), targets, kind, 0.1, None, Focal(0.0))
    np.testing.assert_allclose(plain, focal, rtol=1e-5)


@pytest.mark.parametrize("focus", [Focal(0.5), Focal(3.0), Asymmetric(), Asymmetric(0.5, 0.5, 0)])
def test_gradients_are_finite_where_logits_are_extreme(focus: Any):
    logits = jnp.asarray([[120.0, -120, 30, -30], [-120, 120, 0, 0]])
    targets = jnp.asarray([[1.0, 0, 0, 1], [1, 0, 0, 1]])
    kinds = ("sigmoid",) if isinstance(focus, Asymmetric) else ("sigmoid", "softmax")
    for kind in kinds:
        goal = targets if kind == "sigmoid" else jnp.eye(4)[jnp.asarray([1, 0])]
        slope = jax.grad(lambda x: cross_entropy(x, goal, kind, 0.0, None, focus).sum())(logits)  # noqa: B023
        assert np.isfinite(slope).all(), kind
        assert np.abs(slope).max() > 1e-3


class Labels:
    """A source of labels alone."""

    def __init__(self, labels: Any):
        self.labels = labels
        self.info = SourceInfo("labels", len(labels), ())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"label": self.labels[index]}

    def key(self, index: int) -> str:
        return str(index)


def test_balanced_weights():
    """Every class weighs the same in all, and the mean over examples is 1."""
    labels = np.asarray([0] * 8 + [1] * 4 + [3] * 4 + [-1])
    source: Any = Labels(labels)
    weights = BalancedWeights(source).of(4)
    np.testing.assert_allclose(weights, [2 / 3, 4 / 3, 0, 4 / 3], rtol=1e-6)
    assert weights[labels[:-1]].mean() == pytest.approx(1)
    np.testing.assert_allclose(BalancedWeights(source, power=0.0).of(4), [1, 1, 0, 1])
    half = BalancedWeights(source, power=0.5).of(4)
    assert half[1] / half[0] == pytest.approx(2**0.5)
    several: Any = Labels(np.asarray([[1, 0], [1, 1], [1, 0]], np.float32))
    np.testing.assert_allclose(BalancedWeights(several).of(2), [2 / 3, 2], rtol=1e-6)
    with pytest.raises(DataError, match="class 3, and the model has 3"):
        BalancedWeights(source).of(3)
    with pytest.raises(DataError, match="2 values, and the model 3"):
        FixedWeights((1.0, 2.0)).of(3)


def loss_of(objective: Any, batch: dict[str, Any], variables: Variables) -> Any:
    return objective.loss(variables, batch, Context(jnp.int32(0), 1, train=True))


def test_classify_weighs_rows_by_their_class():
    batch = {"image": jnp.asarray(LOGITS), "label": jnp.asarray(LABEL), "_mask": jnp.ones(5, bool)}
    variables = Variables({"model": {}}, {"model": {}}, {})
    weights = FixedWeights(tuple(WEIGHTS.tolist()))
    found, _ = loss_of(Classify(Given(), class_weights=weights), batch, variables)
    expected = (-np.log(Q[np.arange(5), LABEL]) * WEIGHTS[LABEL]).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="independent classes"):
        Classify(Given(), focus=Asymmetric())


@pytest.mark.parametrize("error", ["squared", "absolute", "huber"])
def test_regression(error: Any):
    outputs = jnp.asarray([[0.5], [-2.0], [1.0], [3.0]])
    targets = jnp.asarray([10.0, 20.0, 30.0, 1e6])
    batch: dict[str, Any] = {"image": outputs, "target": targets, "_mask": jnp.ones(4, bool)}
    batch["target_known"] = jnp.asarray([True, True, True, False])
    objective = Regress(Given(), error=error)
    start = objective.init(jax.random.key(0), batch)
    variables = objective.init_from_batch(start, batch, jax.random.key(0))
    mean, std = 20.0, np.std([10, 20, 30])
    assert float(variables.extra_state["target"]["mean"][0]) == pytest.approx(mean)
    assert float(variables.extra_state["target"]["std"][0]) == pytest.approx(std)
    e = np.asarray([0.5, -2, 1]) - (np.asarray([10, 20, 30]) - mean) / std
    huber = np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5)
    expected = {"squared": e**2, "absolute": np.abs(e), "huber": huber}[error].mean()
    loss, aux = loss_of(objective, batch, variables)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(aux.metrics["mae"]) == pytest.approx(np.abs(e).mean() * std, rel=1e-5)
    predicted = objective.predict(variables, batch, Context.evaluation())["prediction"]
    np.testing.assert_allclose(predicted, outputs[:, 0] * std + mean, rtol=1e-5)


def test_regression_refuses_what_is_no_number():
    image = jnp.zeros((2, 3))
    batch = {"image": image, "target": jnp.asarray([1, 2]), "_mask": jnp.ones(2, bool)}
    with pytest.raises(ValueError, match="read the column as a Number"):
        Regress(Given()).init(jax.random.key(0), batch)
    batch["target"] = jnp.asarray([1.0, 2.0])
    variables = Regress(Given()).init(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"config\.model\.num_classes=1"):
        loss_of(Regress(Given()), batch, variables)
