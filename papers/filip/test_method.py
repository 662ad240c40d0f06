"""Late interaction at test: both matrices, prompts, words that point, and the evaluator."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from papers.filip.method import (
    LateRetrieval,
    class_scores,
    point,
    scores,
    target_rank,
)
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

RNG = np.random.default_rng(0)


def unit(*shape: int) -> np.ndarray:
    x = RNG.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


PATCHES, WORDS = unit(5, 4, 3), unit(6, 7, 3)
MASK = np.arange(7) < RNG.integers(1, 8, (6, 1))


def test_scores_are_the_written_formula_in_blocks_of_any_size():
    products = np.einsum("npd,mtd->nmpt", PATCHES, WORDS)
    known = np.where(MASK[None, :, None, :], products, -np.inf)
    to_text = known.max(3).mean(2)
    best = np.where(MASK[None], products.max(2), 0.0)
    to_image = best.sum(2) / MASK.sum(1)
    for block in (2, 64):
        computed = scores(PATCHES, WORDS, MASK, block)
        np.testing.assert_allclose(computed[0], to_text, atol=1e-6)
        np.testing.assert_allclose(computed[1], to_image, atol=1e-6)


def test_classes_are_the_mean_over_their_prompts():
    computed = class_scores(PATCHES, WORDS, MASK, templates=3)
    every = scores(PATCHES, WORDS, MASK)[0]
    np.testing.assert_allclose(computed, np.stack([every[:, :3].mean(1), every[:, 3:].mean(1)], 1))


def test_words_point_at_the_patch_that_is_most_like_them():
    chosen = RNG.integers(0, 4, (5, 7))
    words = np.take_along_axis(PATCHES, chosen[:, :, None], 1) + 0.01 * unit(5, 7, 3)
    np.testing.assert_array_equal(point(3 * PATCHES, words), chosen)


def test_equal_scores_go_to_the_earlier():
    assert target_rank(np.zeros((3, 3))).tolist() == [0, 1, 2]
    assert target_rank(np.eye(3)).tolist() == [0, 0, 0]


def test_the_evaluator_counts_what_is_found():
    # Texts are the patches of their images, but those of images 0 and 1 are exchanged.
    patches = unit(12, 4, 8)
    words = patches[[1, 0, *range(2, 12)]]
    data = EvalData(Arrays({"image": patches, "text": words}), batch_size=8, threads=0)

    def predict(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        mask = jax.numpy.ones(batch["text"].shape[:2])
        return {"image/tokens": batch["image"], "text/tokens": batch["text"], "text/mask": mask}

    mesh = Mesh().build(jax.devices()[:1])
    metrics = evaluate(LateRetrieval(data, block=5), predict, Variables({}, {}, {}), 0, mesh)[0]
    assert metrics["images"] == 12
    for way in ("image_to_text", "text_to_image"):
        assert metrics[f"{way}_r1"] == pytest.approx(10 / 12)
        assert metrics[f"{way}_r10"] >= metrics[f"{way}_r5"] >= metrics[f"{way}_r1"]

    def pooled(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        return {"image/embedding": batch["image"][:, 0]}

    with pytest.raises(ValueError, match="image/tokens"):
        evaluate(LateRetrieval(data), pooled, Variables({}, {}, {}), 0, mesh)
    with pytest.raises(ValueError, match="block"):
        LateRetrieval(data, block=0)
