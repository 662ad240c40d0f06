"""Records without a label have weight 0 in every target; labels beyond the classes are refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.data.batch_ops import NO_LABEL, CutMix, Mixup, MixupCutMix, soft_labels
from vision.data.mixture import Mixture, MixturePart
from vision.data.ops.values import Keep
from vision.data.pipeline import EvalData, TrainData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.objectives.classify import cross_entropy, to_targets
from vision.train.objective import averaged

B, K = 6, 4
LABELS = np.array([1, -1, 3, 0, -1, 2], np.int32)


def batch(labels=LABELS, valid=(True,) * 5 + (False,)):
    rng = np.random.default_rng(0)
    image = rng.random((B, 4, 4, 1), np.float32)
    return {"image": jnp.asarray(image), "label": jnp.asarray(labels), "_mask": jnp.asarray(valid)}


@pytest.mark.parametrize("op", [Mixup(K), CutMix(K), MixupCutMix(K), Mixup(K, probability=0.0)])
@pytest.mark.parametrize("soft", [False, True])
def test_unlabelled_rows_stay_unlabelled_and_unmixed(op, soft):
    labels = np.array(soft_labels(jnp.asarray(LABELS), K)[0])
    labels[LABELS < 0] = NO_LABEL
    before = batch(labels if soft else LABELS)
    for seed in range(3):
        out = op(before, jax.random.key(seed))
        np.testing.assert_array_equal(out["label"][LABELS < 0], NO_LABEL)
        labelled = out["label"][np.flatnonzero(LABELS >= 0)]
        np.testing.assert_allclose(labelled.sum(1), 1, rtol=1e-6)
        # Neither they nor the rows after them take pixels of another.
        alone = [0, 1, 2, 4, 5]
        np.testing.assert_array_equal(
            out["image"][np.array(alone)], before["image"][np.array(alone)]
        )


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_the_mean_over_labelled_rows(kind, smoothing, mixed):
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(B, K)), jnp.float32)
    rows = batch(valid=(True,) * B)
    if mixed:
        rows = Mixup(K, probability=0.0)(rows, jax.random.key(0))
    targets, labelled = to_targets(rows["label"], K)
    loss, aux = averaged(cross_entropy(logits, targets, kind, smoothing), labelled)
    keep = np.flatnonzero(LABELS >= 0)
    known = jnp.asarray(np.eye(K, dtype=np.float32)[LABELS[keep]])
    expected = cross_entropy(logits[keep], known, kind, smoothing).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert np.asarray(aux.weight) == len(keep)


def test_labels_beyond_the_classes_have_no_weight_inside_the_step():
    labels = jnp.asarray([0, 3, 4, 9, -1, 2])
    for targets, labelled in (to_targets(labels, K), soft_labels(labels, K)):
        assert labelled.tolist() == [True, True, False, False, False, True]
        assert targets.sum(1).tolist() == [1, 1, 0, 0, 0, 1]


def source(labels, names=("a", "b", "c", "d")):
    labels = np.asarray(labels)
    images = np.zeros((len(labels), 4, 4, 1), np.float32)
    return Arrays({"image": images, "label": labels}, "set", names)


@pytest.mark.parametrize("ops", [(), (Keep(("image", "label")),)])
@pytest.mark.parametrize("label", [4, 255, -2])
def test_a_label_beyond_the_classes_is_refused_where_it_is_read(ops, label):
    records = source([0, 1, label, -1])
    with (
        EvalData(records, 4, ops, threads=0).loader() as loader,
        pytest.raises(DataError, match=rf"set/2: label {label} is no class: there are 4, 0..3"),
    ):
        next(loader)
    with EvalData(records, 4, ops, on_error="mask", threads=0).loader() as loader:
        assert next(loader)["_mask"].tolist() == [True, True, False, True]
        assert [record.key for record in loader.take_bad()] == ["set/2"]


def test_batch_ops_say_how_many_classes_there_are_where_the_source_does_not():
    data = TrainData(source([0, 9, 1], ()), 3, batch_ops=(Mixup(num_classes=5),), threads=0)
    with (
        data.loader(seed=0) as loader,
        pytest.raises(DataError, match="set/1: label 9 is no class"),
    ):
        next(loader)
    parts = (MixturePart(source([0, 9, 1], ())),)
    data = Mixture(parts, 3, batch_ops=(Mixup(num_classes=5),), threads=0)
    with (
        data.loader(seed=0) as loader,
        pytest.raises(DataError, match="set/1: label 9 is no class"),
    ):
        next(loader)


def test_several_labels_and_sources_without_names_pass():
    several = source(np.array([[0, 9], [5, 7]]))
    with EvalData(several, 2, threads=0).loader() as loader:
        assert next(loader)["label"].tolist() == [[0, 9], [5, 7]]
    with EvalData(source([7, 900], ()), 2, threads=0).loader() as loader:
        assert next(loader)["label"].tolist() == [7, 900]
