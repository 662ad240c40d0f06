"""What a loss takes for a label; the data of a run refuse the rest by the record's name."""

from __future__ import annotations

import re

import numpy as np
import pytest

from vision.config.specs import spec
from vision.data.batch_ops import Mixup
from vision.data.mixture import Mixture, MixturePart
from vision.data.ops import ValueRange
from vision.data.pipeline import TrainData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.npz import Npz
from vision.models.resnet import ResNet
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.run.prepare import prepare
from vision.train.labels import LabelKind
from vision.train.optim import Optimizer, adamw

NAN = float("nan")
VALID = [
    ("class", [0, 2, -1]),
    ("distribution", [0, 2, -1]),
    ("distribution", [[0.5, 0.5, 0], [0, 0, 1], [-1, -1, -1]]),
    ("distribution", [[1, 0, 0]]),
    ("independent", [1, -1]),
    ("independent", [[1, 1, 0], [0, 0, 0], [0.2, 1, 0.7], [-1, 1, 0], [-1, -1, -1]]),
]
WRONG = [
    ("class", [0, 3], "3 is no class: the model has 3, 0..2"),
    ("class", [-2], "-2 is no class"),
    ("class", [0.0, 1.0], "is float64, but classes are integers"),
    ("class", [[0, 1, 0]], "one integer per record"),
    ("distribution", [[0, 1]], "the model has 3 classes"),
    ("distribution", [[1, 1, 0]], "weights of sum 2.*loss_type='sigmoid'"),
    ("distribution", [[0, 0, 0]], "weights of sum 0"),
    ("distribution", [[1.5, -0.5, 0]], "weights of sum 1"),
    ("distribution", [[NAN, 0, 1]], "weights of sum nan"),
    ("independent", [4], "4 is no class"),
    ("independent", [[0, 2, 0]], "has 2 for a class"),
    ("independent", [[0, NAN, 0]], "has nan for a class"),
    ("independent", [[-2, 0, 0]], "has -2 for a class"),
]


@pytest.mark.parametrize(("form", "label"), VALID)
def test_valid_labels(form, label):
    assert LabelKind(3, form).problem(np.asarray(label)) == ""


@pytest.mark.parametrize(("form", "label", "reason"), WRONG)
def test_wrong_labels(form, label, reason):
    assert re.search(reason, LabelKind(3, form).problem(np.asarray(label)))


def test_known_in_part():
    sets = np.asarray([[1, 0, 0]], np.float32)
    assert "known in part" in LabelKind(3, "distribution").problem(sets, known=True)
    assert LabelKind(3, "independent").problem(sets, known=True) == ""


@pytest.mark.parametrize("ops", [(), (lambda example, rng: example,)])
def test_a_label_beyond_the_model_is_refused_by_record(ops):
    """Sources without class names: the model alone knows how many there are."""
    label = np.asarray([0, 3, 9, 10, 12], np.int32)
    source = Arrays({"image": np.zeros((5, 8, 8, 1), np.float32), "label": label}, "toy")
    kinds = Classify(ResNet(num_classes=10)).label_kinds
    for data in (
        TrainData(source, 5, ops, threads=0, labels=kinds),
        Mixture((MixturePart(source, 1.0, ops),), 5, threads=0, labels=kinds),
    ):
        with (
            data.loader(seed=0) as loader,
            pytest.raises(DataError, match=r"toy/[34]: label 1[02] is no class: the model has 10"),
        ):
            next(loader)
    masked = TrainData(source, 5, ops, threads=0, labels=kinds, on_error="mask")
    with masked.loader(seed=0) as loader:
        assert next(loader)["_mask"].sum() == 3
        assert sorted(bad.key for bad in loader.take_bad()) == ["toy/3", "toy/4"]


def test_a_source_with_more_classes_than_an_op_is_refused_at_the_start():
    source = Arrays({"label": np.zeros(4, np.int32)}, "toy", ("a", "b", "c"))
    for data in (
        TrainData(source, 4, batch_ops=(Mixup(num_classes=2),), threads=0),
        Mixture((MixturePart(source),), 4, batch_ops=(Mixup(num_classes=2),), threads=0),
    ):
        with pytest.raises(DataError, match=r"toy has 3 classes, but an op of batch_ops .* 2"):
            data.loader(seed=0)
    # Some of the classes that a source names may be all that is there.
    data = TrainData(source, 4, threads=0, labels={"label": LabelKind(2)})
    with data.loader(seed=0) as loader:
        assert next(loader)["label"].tolist() == [0, 0, 0, 0]


def test_a_run_hands_them_to_its_data(tmp_path):
    np.savez(
        tmp_path / "toy.npz",
        image=np.zeros((4, 8, 8, 1), np.uint8),
        label=np.asarray([0, 1, 2, 7]),
    )
    experiment = spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(Npz, path=str(tmp_path / "toy.npz")),
            batch_size=4,
            ops=[spec(ValueRange)],
            threads=0,
        ),
        model=spec(ResNet, num_classes=5),
        objective=spec(Classify),
        optimizer=spec(Optimizer, method=spec(adamw), learning_rate=1e-2),
        total="1 steps",
    )
    data = prepare(experiment).experiment.data
    loader = data.loader(seed=0, first_batch=0, process_index=0, process_count=1)
    with pytest.raises(DataError, match="label 7 is no class: the model has 5"):
        next(loader)
    loader.close()
