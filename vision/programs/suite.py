"""What people ask of a classifier, put together from the data that a run's config names.

A suite needs no config of its own: the data of the config's first ``Classification`` is what is
measured, and the training source, read with that evaluator's ops, is what is fitted where a
member fits something. Members that need more (groups, hierarchies, outside sets that mean
something) are evaluators of the config, which run beside the suite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.blocks.attack_rules import APGD, PGD, fgsm
from vision.config.errors import UserError
from vision.config.schema import ConfigError, nearest
from vision.config.specs import build
from vision.data.ops.geometry import CenterCrop
from vision.data.ops.values import Normalize, UniformNoise, ValueRange
from vision.data.pipeline import EvalData
from vision.evaluate.evaluator import Evaluator
from vision.evaluators.accuracy.calibration import Calibration
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.accuracy.groups import LongTail
from vision.evaluators.cost import Cost
from vision.evaluators.features.probe import LinearProbe, NearestNeighbours, RidgeProbe
from vision.evaluators.features.representation import Representation
from vision.evaluators.robustness.adversarial import Adversarial
from vision.evaluators.robustness.corruptions import Corruptions
from vision.evaluators.robustness.out_of_distribution import OutOfDistribution
from vision.evaluators.robustness.perturbed import last_uint8, with_op
from vision.evaluators.robustness.severity import Severity
from vision.evaluators.robustness.translation import Translation
from vision.run.restore import Run

_OF_LOGITS = ("msp", "max_logit", "energy")
_OF_FEATURES = ("mahalanobis", "knn")


@dataclasses.dataclass(frozen=True)
class Missing:
    """A member that cannot run.

    Attributes:
      reason: what it lacks and the way out.
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Material:
    """What members are made of.

    Attributes:
      test: the evaluation data, with its ops.
      train: the training source with the same ops; None where it is not there.
      label: name of the labels.
      image: name of the images.
      why: what is wrong with the training source.
    """

    test: EvalData
    train: EvalData | None
    label: str
    image: str
    why: str = ""


Make = Callable[[Material], Evaluator]


def _train(material: Material) -> EvalData:
    if material.train is None:
        raise ConfigError(f"it fits on training data, and config.data.source: {material.why}")
    return material.train


def _far(m: Material) -> EvalData:
    """Noise of the shape of the test images: the least that a model should tell."""
    return with_op(m.test, UniformNoise(), last_uint8(m.test))


def _outside(m: Material) -> Evaluator:
    scores = (*_OF_LOGITS, *(_OF_FEATURES if m.train is not None else ()))
    return OutOfDistribution(
        m.test, {"noise": _far(m)}, fit_on=m.train, scores=scores, label=m.label
    )


def _translation(m: Material) -> Evaluator:
    """Of the crop in a larger picture; of the picture's own edges joined where there is no crop."""
    crops = any(isinstance(op, CenterCrop) for op in m.test.ops)
    return Translation(m.test, cyclic=not crops, label=m.label)


def _attacks(m: Material) -> Evaluator:
    mean, std = normalisation(m.test.ops)
    attacks = {"fgsm": fgsm(), "pgd": PGD(steps=20), "apgd_ce": APGD(steps=20)}
    return Adversarial(m.test, attacks, mean, std, examples=512, label=m.label)


_MEMBERS: Mapping[str, Make] = {
    "accuracy": lambda m: Classification(m.test, label=m.label, image=m.image, mistakes=200),
    "calibration": lambda m: Calibration(m.test, label=m.label),
    "cost": lambda m: Cost(m.test),
    "long_tail": lambda m: LongTail(m.test, _train(m).source, label=m.label),
    "linear_probe": lambda m: LinearProbe(_train(m), m.test, label=m.label),
    "ridge_probe": lambda m: RidgeProbe(_train(m), m.test, label=m.label),
    "neighbours": lambda m: NearestNeighbours(_train(m), m.test, label=m.label),
    "representation": lambda m: Representation(m.test),
    "outside": _outside,
    "corruptions": lambda m: Corruptions(m.test, label=m.label),
    "nuisances": lambda m: Severity(m.test, label=m.label),
    "translation": _translation,
    "attacks": _attacks,
}
SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": ("calibration", "cost"),
    "full": tuple(_MEMBERS),
}


def normalisation(applied: Sequence[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of what ops do to images in 0..1.

    Raises:
      ConfigError: ops that end otherwise than ``ValueRange`` and, perhaps, ``Normalize``.
    """
    ranges = [op for op in applied if isinstance(op, ValueRange)]
    scaled = [op for op in applied if isinstance(op, Normalize)]
    if len(ranges) != 1 or len(scaled) > 1:
        raise ConfigError(
            "attacks change images in 0..1 and need to know how the data's ops take them to what "
            "the model reads: one ValueRange and at most one Normalize"
        )
    low, span = ranges[0].low, ranges[0].high - ranges[0].low
    mean, std = (scaled[0].mean, scaled[0].std) if scaled else ((0.0,), (1.0,))
    return tuple((m - low) / span for m in mean), tuple(s / span for s in std)


def members(suite: str, run: Run, workdir: Path) -> dict[str, Evaluator | Missing]:
    """The members of a suite for a run; a name that the config has already is the config's.

    Raises:
      ConfigError: no suite of that name, or a config without a ``Classification``.
    """
    if suite not in SUITES:
        raise ConfigError(
            f"--suite={suite}: suites are {', '.join(SUITES)}{nearest(suite, [*SUITES])}"
        )
    material = _material(run, workdir)
    found: dict[str, Evaluator | Missing] = {}
    for name in SUITES[suite]:
        if name in (run.experiment.evaluators or {}):
            continue
        try:
            found[name] = _MEMBERS[name](material)
        except (UserError, ValueError) as error:
            found[name] = Missing(str(error))
    return found


def _material(run: Run, workdir: Path) -> Material:
    every = (run.experiment.evaluators or {}).values()
    first = next((evaluator for evaluator in every if isinstance(evaluator, Classification)), None)
    if first is None or not isinstance(first.data, EvalData):
        raise ConfigError(
            f"the config in {workdir} has no Classification, whose data a suite measures"
        )
    train, why = None, "there is none: training data of several parts is not read"
    data: Any = run.config.data
    if "source" in data:
        try:
            train = dataclasses.replace(first.data, source=build(data.source))
        except (UserError, OSError) as error:
            why = str(error)
    return Material(first.data, train, first.label, first.image, why)
