"""Every column of a table before every loss and every evaluator that reads labels.

The columns, losses and evaluators of ``USES`` are walked in all pairs, over a real table: a pair
either gives the number that a few lines of numpy or scikit-learn give, or is refused with a
message. docs/data.md prints the same table; the last test compares them.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from vision.config.errors import UserError
from vision.data import ops
from vision.data.columns import (
    ClassLabel,
    Group,
    Metadata,
    MultiLabel,
    Number,
    PartialLabels,
    SoftLabel,
)
from vision.data.descriptions import Attributes, Captions, HierarchyText, Text
from vision.data.pipeline import EvalData, TrainData
from vision.data.regions import Boxes, Masks
from vision.data.samplers import InOrder
from vision.data.sources.manifest import Manifest
from vision.evaluate.evaluator import context
from vision.evaluators.accuracy.annotators import AnnotatorAgreement
from vision.evaluators.accuracy.calibration import Calibration
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.accuracy.groups import GroupedAccuracy, LongTail
from vision.evaluators.accuracy.hierarchy import Hierarchical
from vision.evaluators.accuracy.label_sets import LabelSets
from vision.evaluators.accuracy.mistakes import Mistakes
from vision.evaluators.accuracy.multilabel import MultiLabelClassification
from vision.evaluators.accuracy.multitask import MultiTaskAccuracy
from vision.evaluators.accuracy.ordinal import Ordinal, Regression
from vision.evaluators.features.few_shot import FewShot
from vision.evaluators.features.linear_heads import FindingsProbe
from vision.evaluators.features.probe import LinearProbe, NearestNeighbours, RidgeProbe
from vision.objectives.classify import Classify
from vision.objectives.contrast import SameKey, SoftLabels
from vision.objectives.multitask import MultiTask
from vision.parallel.mesh import Mesh
from vision.train.objective import Context, Variables

NAMES = ("ant", "bee", "cat")
ROWS, K = 48, 3
RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (ROWS, K), dtype=np.uint8)
CLASS = RNG.integers(0, K, ROWS)
SETS = (RNG.random((ROWS, K)) < 0.5).astype(int)
SETS[0], SETS[1] = (1, 1, 0), (0, 0, 0)
KNOWN = RNG.random((ROWS, K)) < 0.7
KNOWN[0] = True
SOFT = RNG.dirichlet(np.ones(K), ROWS).round(3)
SOFT[:, 2] = 1 - SOFT[:, :2].sum(1)
GROUP = np.arange(ROWS) % K
AGE = RNG.normal(size=ROWS).round(3)
LOGITS = PIXELS / np.float32(64)

COLUMNS: dict[str, Any] = {
    "ClassLabel": ClassLabel(NAMES, optional=True),
    "MultiLabel": MultiLabel(NAMES),
    "PartialLabels": PartialLabels(NAMES),
    "SoftLabel": SoftLabel(NAMES),
    "Number": Number(optional=True),
    "Group": Group(),
    "HierarchyText": HierarchyText(levels=2),
    "Attributes": Attributes({"size": ("big", "small"), "hue": ("red", "blue", "grey")}),
    "Boxes": Boxes(max_boxes=1),
    "Masks": Masks(max_masks=1),
    "Text": Text(),
    "Captions": Captions(),
    "Metadata": Metadata(),
}


def cell(column: str, i: int) -> Any:
    """What the table holds in row ``i``."""
    return {
        "ClassLabel": NAMES[CLASS[i]] if i != 5 else None,
        "MultiLabel": [name for name, there in zip(NAMES, SETS[i], strict=True) if there],
        "PartialLabels": {n: int(SETS[i, k]) for k, n in enumerate(NAMES) if KNOWN[i, k]},
        "SoftLabel": SOFT[i].tolist(),
        "Number": AGE[i] if i != 5 else None,
        "Group": f"patient {GROUP[i]}",
        "HierarchyText": ("animal/cat", "animal/dog", "plant/rose")[i % 3],
        "Attributes": {"size": "big", "hue": ("red", "blue", "grey")[i % 3]},
        "Boxes": [[0, 0, 2, 2]],
        "Masks": [[[0, 0, 3, 0, 3, 3, 0, 3]]],
        "Text": "a cat",
        "Captions": ["a cat", "one cat"],
        "Metadata": {"camera": "k"},
    }[column]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("uses")
    for i in range(ROWS):
        Image.fromarray(np.tile(PIXELS[i], (3, 1))).save(root / f"{i}.png")
    rows = (
        {
            "image": f"{i}.png",
            "one": NAMES[CLASS[i]],
            "patient": str(GROUP[i]),
            **{column: cell(column, i) for column in COLUMNS},
        }
        for i in range(ROWS)
    )
    (root / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "table.jsonl"


READ = (ops.Decode(mode="grey"), ops.ValueRange(low=0, high=255 / 64))


def source(table: Path, column: str) -> Manifest:
    """The column under ``label``, a class under ``one`` and a group under ``patient``."""
    typed = COLUMNS[column].__class__(**{**COLUMNS[column].__dict__, "column": column})
    columns = {"label": typed, "one": ClassLabel(NAMES), "patient": Group()}
    return Manifest(str(table), columns)


class Pixels(nn.Module):
    """Logits are the first row of pixels."""

    num_classes: int = K

    @nn.compact
    def __call__(self, x, train=False, tap=None):
        logits = x[:, 0, :, 0]
        return logits, {"logits": logits}


LABELLED = np.arange(ROWS) != 5
LOG = jax.nn.log_softmax(LOGITS)
ONE_HOT = np.eye(K)[CLASS]


ONE_GROUP = np.eye(K)[GROUP]


def loss_of(objective: Any, batch: Any) -> float:
    variables = Variables({"model": {}}, {}, {})
    ctx = Context(jnp.zeros((), jnp.int32), 1, train=True, key=jax.random.key(0))
    return float(objective.loss(variables, batch, ctx)[0])


def sigmoid(targets: np.ndarray, known: Any = 1) -> np.ndarray:
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    return -((targets * np.log(p) + (1 - targets) * np.log(1 - p)) * known).sum(1)


LOSSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "Classify": (
        Classify(Pixels()),
        {
            "ClassLabel": -(LOG * ONE_HOT).sum(1)[LABELLED].mean(),
            "Group": -(LOG * ONE_GROUP).sum(1).mean(),
            "SoftLabel": -(LOG * SOFT).sum(1).mean(),
        },
    ),
    "Classify, sigmoid": (
        Classify(Pixels(), loss_type="sigmoid"),
        {
            "ClassLabel": sigmoid(ONE_HOT)[LABELLED].mean(),
            "Group": sigmoid(ONE_GROUP).mean(),
            "SoftLabel": sigmoid(SOFT).mean(),
            "MultiLabel": sigmoid(SETS).mean(),
            "PartialLabels": sigmoid(SETS, KNOWN)[KNOWN.any(1)].mean(),
        },
    ),
    "MultiTask": (
        MultiTask(Pixels(), tasks={"label": K}),
        {
            "ClassLabel": -(LOG * ONE_HOT).sum(1)[LABELLED].mean(),
            "Group": -(LOG * ONE_GROUP).sum(1).mean(),
        },
    ),
    "Contrast, SameKey": (
        SameKey(),
        {"ClassLabel": np.where(LABELLED, CLASS, -6), "Group": GROUP},
    ),
    "Contrast, SoftLabels": (SoftLabels(), {"SoftLabel": SOFT, "MultiLabel": SETS}),
}


def class_labels() -> dict[str, Any]:
    return {
        "ClassLabel": (LOGITS.argmax(1) == CLASS)[LABELLED].mean(),
        "Group": (LOGITS.argmax(1) == GROUP).mean(),
    }


def mean_average_precision(known: np.ndarray) -> float:
    return float(
        np.mean(
            [
                average_precision_score(SETS[known[:, k], k], LOGITS[known[:, k], k])
                for k in range(K)
            ]
        )
    )


RIGHT = LOGITS.argmax(1) == CLASS


def hits(truth: np.ndarray) -> np.ndarray:
    return truth[np.arange(ROWS), LOGITS.argmax(1)]


# A refusal names the feature it is about, or the record.
ABOUT = r"label|jsonl"
PATHS = dict.fromkeys((*NAMES, *(f"patient {i}" for i in range(K))), ())
COUNTS = {"ClassLabel": ROWS - 1, "Group": ROWS}
# Evaluator -> (how it is made, the number, column -> its value).
EVALUATORS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "Classification": (
        lambda d: Classification(d, mistakes=0),
        "top1",
        {**class_labels(), "SoftLabel": hits(SOFT.max(1, keepdims=True) == SOFT).mean()},
    ),
    "Calibration": (Calibration, "nll", LOSSES["MultiTask"][1]),
    "GroupedAccuracy": (
        lambda d: GroupedAccuracy(d, group="patient", mistakes=0), "top1", class_labels(),
    ),
    "GroupedAccuracy, group": (
        lambda d: GroupedAccuracy(d, group="label", label="one", mistakes=0),
        "worst",
        {
            "ClassLabel": min(RIGHT[(k == CLASS) & LABELLED].mean() for k in range(K)),
            "Group": min(RIGHT[k == GROUP].mean() for k in range(K)),
        },
    ),
    "LongTail": (lambda d: LongTail(d, d.source), "top1", class_labels()),
    "Hierarchical": (
        lambda d: Hierarchical(d, PATHS), "top1", class_labels(),
    ),
    "Ordinal": (Ordinal, "top1", class_labels()),
    "MultiTaskAccuracy": (
        lambda d: MultiTaskAccuracy(d, ("label",)),
        "label_accuracy",
        class_labels(),
    ),
    "LinearProbe": (lambda d: LinearProbe(d, d), "examples", COUNTS),
    "RidgeProbe": (lambda d: RidgeProbe(d, d), "examples", COUNTS),
    "NearestNeighbours": (
        lambda d: NearestNeighbours(d, d, k=(1,)), "examples", COUNTS,
    ),
    "FewShot": (
        lambda d: FewShot(d, ways=2, shots=(1,), queries=1, episodes=2),
        "examples",
        COUNTS,
    ),
    "AnnotatorAgreement": (
        lambda d: AnnotatorAgreement(d, k=(1,), weights="label"),
        "soft_nll",
        {"SoftLabel": -(LOG * SOFT).sum(1).mean()},
    ),
    "MultiLabelClassification": (
        lambda d: MultiLabelClassification(d, labels="label"),
        "map",
        {
            "MultiLabel": mean_average_precision(np.ones_like(KNOWN)),
            "PartialLabels": mean_average_precision(KNOWN),
        },
    ),
    "LabelSets": (
        lambda d: LabelSets(d, labels="label", label="one"),
        "real",
        {"MultiLabel": hits(SETS)[SETS.any(1)].mean()},
    ),
    "Mistakes": (
        lambda d: Mistakes(d, label="one", correct="label"),
        "accuracy",
        {"MultiLabel": hits(SETS).mean()},
    ),
    "FindingsProbe": (
        lambda d: FindingsProbe(d, d, label="label"),
        "examples",
        {"MultiLabel": ROWS, "PartialLabels": ROWS},
    ),
    "Regression": (
        lambda d: Regression(d, prediction="first", target="label"),
        "mae",
        {"Number": np.abs(LOGITS[:, 0] - AGE)[LABELLED].mean()},
    ),
}  # fmt: skip


class Rows:
    """A store that reads a table once and says what ``Pixels`` says; nothing is compiled."""

    def __init__(self, table: Path, column: str) -> None:
        self.read = functools.partial(read_all, table, column)

    def folder(self, predict: Any, data: Any) -> None:
        return None

    def rows(self, predict: Any, data: Any, required: Any, optional: Any, read: Any) -> Any:
        rows = dict(self.read())
        x = rows["image"][:, 0, :, 0]
        rows |= {"logits": x, "logits/label": x, "embedding": x, "first": x[:, 0]}
        if missing := [name for name in required if name not in rows]:
            raise ValueError(f"no {missing[0]!r}")
        return {name: rows[name] for name in (*required, *optional, "_index") if name in rows}


@functools.cache
def read_all(table: Path, column: str) -> dict[str, np.ndarray]:
    with EvalData(source(table, column), ROWS, READ, threads=0).loader() as loader:
        return next(loader)


def predict(variables: Any, batch: Any) -> dict[str, Any]:
    logits = batch["image"][:, 0, :, 0]
    return {"logits": logits, "log_probabilities": jax.nn.log_softmax(logits)}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_before_every_loss(table, column, loss):
    objective, values = LOSSES[loss]
    kinds = getattr(objective, "label_kinds", {})

    def result() -> Any:
        data = TrainData(
            source(table, column), ROWS, READ, sampler=InOrder(), threads=0, labels=kinds
        )
        with data.loader(seed=0) as loader:
            batch = {name: jnp.asarray(x) for name, x in next(loader).items()}
        if hasattr(objective, "keys"):
            return objective.keys(batch)
        return loss_of(objective, batch)

    if column in values:
        np.testing.assert_allclose(result(), values[column], rtol=2e-5, atol=1e-6)
    else:
        with pytest.raises((UserError, ValueError), match=ABOUT):
            result()


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_before_every_evaluator(table, column, evaluator):
    make, name, values = EVALUATORS[evaluator]

    def result() -> Any:
        data = EvalData(source(table, column), ROWS, READ, threads=0)
        mesh = Mesh().build()
        ctx = context(Variables({}, {}, {}), 0, mesh, store=Rows(table, column))
        with jax.set_mesh(mesh):
            return dict(make(data).run(predict, ctx))

    if column in values:
        assert result()[name] == pytest.approx(float(values[column]), rel=1e-5)
    else:
        with pytest.raises((UserError, ValueError), match=ABOUT):
            result()


def test_documented_uses():
    """docs/data.md says which losses and evaluators take a column, as the pairs above do."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE))
    for column in COLUMNS:
        losses, evaluators = (set(re.findall(r"`([^`]+)`", x)) for x in rows[column].split("|")[:2])
        assert losses == {name for name, (_, values) in LOSSES.items() if column in values}, column
        taken = {name for name, (*_, values) in EVALUATORS.items() if column in values}
        assert evaluators == taken, column
