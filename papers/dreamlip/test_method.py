"""Pixels that take the class of the text which is most like their patch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.dreamlip.evaluator import PatchSegmentation, intersection_over_union, segment
from papers.dreamlip.method import Painted
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.data.sources.scenes import Scenes
from vision.data.tokenizers import WordTokenizer
from vision.evaluate.evaluator import evaluate
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

BANK = np.eye(3, dtype=np.float32)


def test_a_pixel_takes_the_class_of_its_patch():
    classes = np.array([[0, 1, 2, 1]])
    segmentation = segment(5 * BANK[classes], BANK, (4, 6))
    assert segmentation.shape == (1, 4, 6)
    np.testing.assert_array_equal(segmentation[0], np.kron([[0, 1], [2, 1]], np.ones((2, 3))))
    with pytest.raises(ValueError, match="no square grid"):
        segment(BANK[classes], BANK, (5, 6))
    with pytest.raises(ValueError, match="prefix"):
        segment(BANK[classes[:, :3]], BANK, (4, 6))


def test_intersection_over_union():
    predicted, true = np.array([[[0, 0, 1, 1, 1]]]), np.array([[[0, 1, 1, 1, -1]]])
    ious = intersection_over_union(predicted, true, ("a", "b", "c"))
    np.testing.assert_allclose(ious, [1 / 2, 2 / 3, np.nan])
    with pytest.raises(DataError, match=r"outside -1\.\.2"):
        intersection_over_union(predicted, true + 2, ("a", "b", "c"))


def test_scenes_are_painted_by_ground_and_colour():
    features = ("image", "instances", "attributes", "background", "masks")
    source = Scenes(features=features, num_examples=4, image_size=16, num_objects=(2, 2))
    op = Painted()
    for i in range(4):
        scene, example = source.scene(i), source[i]
        segmentation = op(example, np.random.default_rng(0))["segmentation"]
        for mask, thing in zip(example["masks"], scene.objects, strict=True):
            assert (
                segmentation[mask] == len(op.backgrounds) + op.colours.index(thing.colour)
            ).all()
        rest = segmentation[~example["masks"].any(0)]
        assert (rest == op.backgrounds.index(scene.background.kind)).all()
    alone = Painted(backgrounds=(), colours=("red",))(source[0], np.random.default_rng(0))
    assert set(np.unique(alone["segmentation"])) <= {-1, 0}
    with pytest.raises(ValueError, match="'instances'"):
        op({"image": example["image"]}, np.random.default_rng(0))


def test_the_evaluator_names_pixels():
    classes = np.array([[0, 1, 2, 1], [2, 2, 0, 1]])
    true = classes.reshape(2, 2, 2).repeat(2, 1).repeat(2, 2).astype(np.int32)
    true[0, 0, 0] = 1  # one of 32 pixels is otherwise
    tokens = WordTokenizer(words=("a", "b", "c"), length=4)
    arrays = {"image": BANK[classes], "segmentation": true}
    data = EvalData(Arrays(arrays), batch_size=2, threads=0)
    evaluator = PatchSegmentation(data, tokens, texts=("a", "b", "c"), prefix=1)

    def predict(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        if "text" in batch:
            return {"text/embedding": jnp.asarray(BANK)[batch["text"][:, 1] - 4]}
        first = jnp.zeros_like(batch["image"][:, :1])
        return {"image/tokens": jnp.concatenate([first, batch["image"]], 1)}

    mesh = Mesh().build(jax.devices()[:1])
    metrics = evaluate(evaluator, predict, Variables({}, {}, {}), 0, mesh)[0]
    assert metrics["pixels"] == pytest.approx(31 / 32)
    assert metrics["iou/a"] == pytest.approx(7 / 8)
    assert metrics["iou/b"] == pytest.approx(12 / 13)
    assert metrics["miou"] == pytest.approx((7 / 8 + 12 / 13 + 1) / 3)
    with pytest.raises(ValueError, match=r"texts is .* at least 2"):
        PatchSegmentation(data, tokens, texts=("a",))
