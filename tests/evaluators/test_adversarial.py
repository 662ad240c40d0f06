"""Attacks on a linear classifier, whose distances to the border are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.evaluators.linear_dual import data
from vision.blocks.attack_rules import APGD, PGD, CarliniWagner, fgsm
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.evaluate.evaluator import evaluate
from vision.evaluate.figures import Curve
from vision.evaluators.features.store import FeatureStore, identity
from vision.evaluators.robustness import attacks as attacked
from vision.evaluators.robustness.adversarial import Adversarial
from vision.evaluators.robustness.square import Square
from vision.metrics.arrays import MetricError
from vision.parallel.mesh import Mesh
from vision.run.workdir import WorkdirError
from vision.train.objective import Variables

COUNT, PIXELS = 21, 12
RNG = np.random.default_rng(0)
SLOPE = RNG.normal(size=(PIXELS, 2)).astype(np.float32)
PLACES = RNG.uniform(0.35, 0.65, size=(COUNT, PIXELS)).astype(np.float32)
PLACES[5] = np.nan
SCORES = (PLACES - 0.5) @ SLOPE
LABELS = np.where(np.isnan(SCORES[:, 0]), 0, SCORES.argmax(1)).astype(np.int32)
LABELS[3] = 1 - LABELS[3]  # wrong before any attack
LABELS[8] = -1
LEAD = np.where(np.arange(COUNT) == 3, 0, np.abs(SCORES[:, 1] - SCORES[:, 0]))
SPAN = SLOPE[:, 1] - SLOPE[:, 0]
LINF, L2 = LEAD / np.abs(SPAN).sum(), LEAD / np.linalg.norm(SPAN)
KNOWN = (LABELS >= 0) & np.isfinite(LEAD)
RIGHT = KNOWN & (LEAD > 0)
EPS = float(np.sort(LINF[RIGHT])[8:10].mean())  # half of them are nearer


def predict(variables: Variables, batch: Mapping[str, Any]) -> dict[str, Any]:
    """A linear classifier of images in -1..1, and one whose probabilities have no gradient."""
    image = batch["image"].reshape(len(batch["image"]), -1)
    logits = image / 2 @ variables.params["slope"]
    return {"logits": logits, "hard": 1e5 * logits}


def images(**changes: Any) -> Any:
    given = {"image": 2 * PLACES - 1, "label": LABELS, **changes}
    return data(batch_size=8, **given)


def adversarial(*names: str, **changes: Any) -> Adversarial:
    attacks = {
        "fgsm": fgsm(EPS),
        "pgd_l2": PGD(EPS, "l2", steps=12, restarts=2),
        "apgd": APGD(EPS, steps=10),
        "square": Square(EPS, queries=20),
        "cw": CarliniWagner(steps=30, searches=4, learning_rate=0.01, first_c=0.1),
    }
    chosen = {name: attacks[name] for name in names}
    given: Any = {"data": images(), "attacks": chosen, "mean": (0.5,), "std": (0.5,), **changes}
    return Adversarial(**given)


def measured(evaluator: Adversarial, devices: int = 1, root: Path | None = None) -> dict[str, Any]:
    variables = Variables({"slope": SLOPE}, {}, {})
    mesh = Mesh().build(jax.devices()[:devices])
    store = None if root is None else FeatureStore(root, predict, identity(variables, "linear"))
    numbers, figures = evaluate(evaluator, predict, variables, 1, mesh, store=store)
    return {**numbers, **figures}


def test_numbers_are_those_of_a_linear_model():
    got = measured(adversarial("fgsm", "pgd_l2", "square", "cw", epsilons=(0.0, 0.9 * EPS)))
    count = (LABELS >= 0).sum()
    assert (got["examples"], got["unlabelled"], got["nonfinite"]) == (count, 1, 1)
    assert got["accuracy"] == pytest.approx(RIGHT.sum() / count)
    assert got["fgsm_accuracy"] == pytest.approx((RIGHT & (LINF > EPS)).sum() / count)
    assert 0 < got["fgsm_success"] == pytest.approx((LINF < EPS)[RIGHT].mean())
    assert got["fgsm_linf"] == pytest.approx(EPS, rel=1e-4)
    assert got["pgd_l2_accuracy"] == pytest.approx((RIGHT & (L2 > EPS)).sum() / count)
    assert got["pgd_l2_l2"] <= EPS * (1 + 1e-5)
    assert got["square_accuracy"] >= got["fgsm_accuracy"]
    assert (got["cw_success"], got["cw_accuracy"]) == (1, 0)
    assert 1 <= got["cw_l2"] / L2[RIGHT].mean() < 1.1
    # The nearest ones fall to all of them: with its own radius no attack is stronger than FGSM.
    assert got["worst_case_accuracy"] == got["fgsm_accuracy"]
    assert got["zero_gradient"] == 0
    assert (got["fgsm_0_success"], got["fgsm_0_accuracy"]) == (0, got["accuracy"])
    assert np.isnan(got["fgsm_0_linf"])
    assert "cw_0_success" not in got
    curve = got["accuracy_by_radius"]
    assert isinstance(curve, Curve)
    assert [line.name for line in curve.lines] == ["fgsm", "pgd_l2", "square"]
    assert curve.lines[0].x == pytest.approx([0, 0.9 * EPS, EPS])
    near = (RIGHT & (LINF > 0.9 * EPS)).sum() / count
    assert curve.lines[0].y == pytest.approx([got["accuracy"], near, got["fgsm_accuracy"]])


@pytest.mark.slow
def test_eight_devices_measure_the_same():
    on_one, on_eight = (measured(adversarial("apgd", "square"), devices) for devices in (1, 8))
    assert on_one.keys() == on_eight.keys()
    for name, value in on_one.items():
        assert on_eight[name] == pytest.approx(value, abs=1e-6), name


def test_only_the_first_records_and_no_gradient():
    got = measured(adversarial("fgsm", examples=11, logits="hard"))
    assert (got["examples"], got["unlabelled"]) == (10, 1)
    assert got["accuracy"] == pytest.approx(RIGHT[:11].sum() / 10)
    # Saturated: all probability is on one class, and on the right one there is nothing to win.
    assert got["zero_gradient"] == pytest.approx(RIGHT[:11].sum() / 10)
    assert (got["fgsm_success"], got["fgsm_accuracy"]) == (0, got["accuracy"])


def test_targeted_attacks_want_the_class_they_are_told():
    attacks = {"fgsm": fgsm(EPS, targeted=True)}
    got = measured(adversarial(attacks=attacks))
    # Of two classes the other one is the target.
    assert got["fgsm_success"] == pytest.approx((LINF < EPS)[RIGHT].mean())


@pytest.mark.slow
def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluator = adversarial("apgd", "square")
    undisturbed = measured(evaluator, 8)
    root, written = tmp_path / "features", []
    replace_file = attacked.replace_file

    def full(path: Path, **options: Any) -> Any:
        written.append(path.name)
        if len(written) == fails:
            raise OSError(28, "No space left on device")
        return replace_file(path, **options)

    # A disk that is full at the n-th file: in the midst of the first attack, then of a later one.
    monkeypatch.setattr(attacked, "replace_file", full)
    for limit in (4, 9):
        fails = limit
        with pytest.raises(WorkdirError, match="No space left on device; free some space"):
            measured(evaluator, 8, root)
    assert written[:3] == ["running.npz"] * 3
    # The three states of before are not made again: nine remain of ten, less those.
    assert written[4:].index(next(x for x in written[4:] if x != "running.npz")) < 9
    fails = 0
    assert measured(evaluator, 8, root) == pytest.approx(undisturbed, abs=0)
    count = len(written)
    assert measured(evaluator, 8, root) == pytest.approx(undisturbed, abs=0)
    assert len(written) == count
    # Another attack is made anew; what is there of the others is taken.
    more = dataclasses.replace(evaluator, attacks={**evaluator.attacks, "fgsm": fgsm(EPS)})
    got = measured(more, 8, root)
    assert {name: got[name] for name in undisturbed if name != "worst_case_accuracy"} == {
        name: x for name, x in undisturbed.items() if name != "worst_case_accuracy"
    }
    assert len(written) > count
    # A damaged file is made again, and another seed is another matter.
    count = len(written)
    finished = next(root.rglob("000001-*.npz"))
    finished.write_bytes(finished.read_bytes()[:100])
    assert measured(more, 8, root) == got
    assert finished.name in written[count:]
    count = len(written)
    measured(dataclasses.replace(more, seed=1), 8, root)
    assert len(written) > count + 3


def test_bad_data_is_named():
    with pytest.raises(DataError, match="pixels reach from -"):
        measured(adversarial("fgsm", mean=(0.0,), std=(1.0,)))
    with pytest.raises(MetricError, match="labels of made: 1 of 8 are out of range"):
        measured(adversarial("fgsm", data=images(label=np.where(LABELS == -1, 2, LABELS))))
    with pytest.raises(DataError, match="no labelled records"):
        measured(adversarial("fgsm", data=images(label=np.full(COUNT, -1, np.int32))))
    with pytest.raises(ValueError, match="attacks need 'labels' in a batch; it has _index"):
        measured(adversarial("fgsm", label="labels"))
    with pytest.raises(
        ValueError, match="need 'scores' from the objective's predict; it gives hard"
    ):
        measured(adversarial("fgsm", logits="scores"))
    with pytest.raises(ValueError, match="mean and std have 3 numbers and images 1 channels"):
        measured(adversarial("fgsm", mean=(0.5,) * 3, std=(0.5,) * 3))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"attacks is {}, .*not empty"):
        adversarial()
    with pytest.raises(ValueError, match=r"std\[0\] is 0.0, expected a number > 0"):
        adversarial("fgsm", std=(0.0,))
    with pytest.raises(ValueError, match="none of cw has a radius"):
        adversarial("cw", epsilons=(0.1,))
    with pytest.raises(ValueError, match="is what epsilons call"):
        Adversarial(images(), {"fgsm": fgsm(0.1), "fgsm_0.1": fgsm(0.1)}, epsilons=(0.1,))
    with pytest.raises(ValueError, match="target is 'all'"):
        adversarial("fgsm", target="all")
    with pytest.raises(ValueError, match="examples is 0"):
        adversarial("fgsm", examples=0)


def test_mean_and_std_that_ops_contradict_are_refused() -> None:
    """They are known from the ops; a wrong pair would attack other images than the model sees."""
    source = images().source
    half = EvalData(source, 8, ops=(ops.ValueRange(-1, 1),), threads=0)
    attacks = {"fgsm": fgsm(0.1)}
    Adversarial(half, attacks, mean=(0.5,), std=(0.5,))
    Adversarial(half, attacks, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    wrong: Any
    for wrong in ({}, {"mean": (0.5,)}, {"mean": (0.5,), "std": (0.25,)}):
        with pytest.raises(ValueError, match=r"data\.ops normalise with mean=\(0\.5,\)"):
            Adversarial(half, attacks, **wrong)
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    three = EvalData(source, 8, ops=(ops.ValueRange(), ops.Normalize(*imagenet)), threads=0)
    Adversarial(three, attacks, mean=imagenet[0], std=imagenet[1])
    with pytest.raises(ValueError, match="set these"):
        Adversarial(three, attacks, mean=(0.5,), std=(0.25,))


@pytest.mark.parametrize("make", [fgsm, PGD, APGD, Square])
def test_a_radius_on_the_scale_of_bytes_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"eps=8: pixels are in 0\.\.1.*8 / 255"):
        make(eps=8)


def test_an_epsilon_on_the_scale_of_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pixels are in 0\.\.1"):
        Adversarial(images(), {"fgsm": fgsm(0.1)}, epsilons=(8.0,))
