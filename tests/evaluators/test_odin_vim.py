"""ODIN and ViM against their definitions, on a classifier whose gradient is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluators.linear_dual import data
from vision.data.source import DataError
from vision.evaluate.evaluator import evaluate
from vision.evaluators.robustness.odin import MOVED, Moved, Odin
from vision.evaluators.robustness.out_of_distribution import OutOfDistribution
from vision.metrics.detection import auroc
from vision.metrics.out_of_distribution import fit_virtual_logit, max_softmax
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)
FIRST = RNG.normal(size=(12, 8)).astype(np.float32)
KERNEL = RNG.normal(size=(8, 4)).astype(np.float32)
BIAS = (0.1 * RNG.normal(size=4)).astype(np.float32)
PARAMS = {"model": {"first": FIRST, "head": {"kernel": KERNEL, "bias": BIAS}}}


def predict(variables: Variables, batch: Mapping[str, Any]) -> dict[str, Any]:
    model = variables.params["model"]
    x = jnp.tanh(batch["image"].reshape(len(batch["image"]), -1) @ model["first"] / 3)
    logits = x @ model["head"]["kernel"] + model["head"]["bias"]
    return {"logits": logits, "embedding": x, "twice": 2 * x}


def measured(evaluator: OutOfDistribution, devices: int = 1, params: Any = None) -> dict[str, Any]:
    mesh = Mesh().build(jax.devices()[:devices])
    variables = Variables(PARAMS if params is None else params, {}, {})
    return evaluate(evaluator, predict, variables, 1, mesh)[0]


def images(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32)


INSIDE, NEAR, FAR = images(37, 1), images(21, 2, 0.7), images(19, 3, 0.2)
LABEL = RNG.integers(0, 4, 37).astype(np.int32)
SETS = {"near": data(image=NEAR), "far": data(image=FAR)}


def told(image: np.ndarray) -> dict[str, np.ndarray]:
    outputs = predict(Variables(PARAMS, {}, {}), {"image": jnp.asarray(image)})
    return {name: np.asarray(x) for name, x in outputs.items()}


def by_differences(image: np.ndarray, odin: Odin) -> np.ndarray:
    """The score in float64, its gradient from the chain rule written out in numpy."""

    def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hidden = np.tanh(x @ FIRST.astype(np.float64) / 3)
        z = (hidden @ KERNEL + BIAS) / odin.temperature
        z -= z.max(1, keepdims=True)
        return hidden, np.exp(z) / np.exp(z).sum(1, keepdims=True)

    hidden, p = forward(image.astype(np.float64))
    one_hot = np.eye(4)[p.argmax(1)]
    slope = (((one_hot - p) @ KERNEL.T) * (1 - hidden**2)) @ FIRST.T
    return forward(image + odin.epsilon * np.sign(slope))[1].max(1)


@pytest.mark.parametrize("odin", [Odin(1000.0, 0.05), Odin(2.0, 0.3)])
def test_odin_is_its_definition(odin: Odin):
    got = measured(
        OutOfDistribution(data(image=INSIDE, label=LABEL), SETS, None, ("odin",), 5, odin)
    )
    known = by_differences(INSIDE, odin)
    for name, image in (("near", NEAR), ("far", FAR)):
        exact = auroc(known, by_differences(image, odin))
        assert got[f"{name}_odin_auroc"] == pytest.approx(exact, abs=1e-6)
    assert got["near_odin_auroc"] != got["far_odin_auroc"]


def test_without_a_step_and_a_temperature_odin_is_the_largest_probability():
    scores = ("msp", "odin")
    inside = data(image=INSIDE, label=LABEL)
    got = measured(OutOfDistribution(inside, SETS, scores=scores, odin=Odin(1.0, 0.0)), 8)
    for number in ("auroc", "aupr_in", "aupr_out", "fpr95", "oscr"):
        assert got[f"far_odin_{number}"] == got[f"far_msp_{number}"]
    moved = measured(OutOfDistribution(inside, SETS, scores=scores, odin=Odin(1.0, 0.3)), 8)
    assert moved["far_odin_auroc"] != moved["far_msp_auroc"] == got["far_msp_auroc"]


def test_a_step_raises_the_largest_probability_of_every_image():
    variables = Variables(PARAMS, {}, {})
    batch = {"image": jnp.asarray(INSIDE)}
    outputs = Moved(predict, Odin(1.0, 0.01), "logits")(variables, batch)
    after, before = max_softmax(np.asarray(outputs[MOVED])), max_softmax(told(INSIDE)["logits"])
    assert (after > before).all()
    with pytest.raises(ValueError, match=r"'image' is uint8: put ops\.ValueRange"):
        Moved(predict, Odin(), "logits")(variables, {"image": jnp.zeros((2, 12), np.uint8)})
    with pytest.raises(ValueError, match="'scores' from the objective's predict; it gives embed"):
        Moved(predict, Odin(), "scores")(variables, batch)
    with pytest.raises(ValueError, match="odin needs 'image' in a batch; it has text"):
        Moved(predict, Odin(), "logits")(variables, {"text": jnp.zeros(2)})
    for arguments in ({"temperature": 0.0}, {"epsilon": -1.0}, {"epsilon": np.inf}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Odin(**arguments)


@pytest.mark.parametrize("principal", [None, 6])
def test_vim_takes_the_head_from_the_parameters(principal: int | None):
    fit_on = data(image=images(90, 4), label=np.zeros(90, np.int32))
    inside = data(image=INSIDE, label=LABEL)
    evaluator = OutOfDistribution(inside, SETS, fit_on, ("vim", "knn"), principal=principal)
    got = measured(evaluator, 8)
    fitted = fit_virtual_logit(told(images(90, 4))["embedding"], KERNEL, BIAS, principal)
    known, *others = (
        fitted.score(x["embedding"], x["logits"]) for x in map(told, (INSIDE, NEAR, FAR))
    )
    for name, unknown in zip(("near", "far"), others, strict=True):
        assert got[f"{name}_vim_auroc"] == pytest.approx(auroc(known, unknown), abs=1e-6)


def test_a_head_that_is_not_there_or_not_the_head():
    fit_on = inside = data(image=INSIDE, label=LABEL)

    def vim(**changes: Any) -> OutOfDistribution:
        return OutOfDistribution(inside, SETS, fit_on, ("vim",), **changes)

    with pytest.raises(ValueError, match=r"head='model/top': no layer .* have model/head"):
        measured(vim(head="model/top"))
    with pytest.raises(ValueError, match="does not make logits of twice: they differ"):
        measured(vim(features="twice"))
    wide = {"model": {"first": FIRST, "head": {"kernel": KERNEL, "bias": BIAS}}}
    wide["model"]["other"] = {"kernel": np.zeros((8, 5)), "bias": np.zeros(5)}
    with pytest.raises(ValueError, match=r"its kernel is \(8, 5\), but embedding is \(37, 8\)"):
        measured(vim(head="model/other"), params=wide)
    with pytest.raises(ValueError, match="vim are fitted on training records: set fit_on"):
        OutOfDistribution(inside, SETS, scores=("vim",))


def test_odin_counts_images_that_are_not_finite():
    broken = NEAR.copy()
    broken[4, 0] = np.nan
    evaluator = OutOfDistribution(
        data(image=INSIDE, label=LABEL), {"near": data(image=broken)}, scores=("odin",)
    )
    got = measured(evaluator)
    assert (got["nonfinite"], got["examples_near"], got["examples"]) == (1, 20, 37)
    broken[:] = np.inf
    with pytest.raises(DataError, match="finite logits and odin/logits"):
        measured(evaluator)
