"""Aggregation, mutual scores and re-scoring against numpy written out, and the evaluator."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from papers.musc.defects import Defects
from papers.musc.evaluator import MutualScoring
from papers.musc.method import aggregated, enlarged, kept, mutual_scores, rescored
from tests.block_tower import BlockTower
from tests.tiny import untrained
from vision.blocks.sites import SiteError
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import evaluate
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.train.objective import Context
from vision.train.tower import Tapped

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(7, 3, 4, 5)).astype(np.float32)
MAPS[6] = MAPS[2]


@jax.jit
def scored(maps: jax.Array) -> Any:
    z = aggregated(maps, 3)
    return z, mutual_scores(z, 0.4)


def by_hand(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells (N, M, C) and scores (N, M) with loops."""
    count, height, width, channels = maps.shape
    z = np.zeros((count, height, width, channels))
    for i, x in enumerate(maps.astype(np.float64)):
        x = np.pad((x - x.mean()) / np.sqrt(x.var() + 1e-5), ((1, 1), (1, 1), (0, 0)))
        for row in range(height):
            for column in range(width):
                # Channels first, then rows and columns, and an adaptive mean of nine to one.
                flat = x[row : row + 3, column : column + 3].transpose(2, 0, 1).ravel()
                cell = flat.reshape(channels, 9).mean(1)
                z[i, row, column] = cell / np.linalg.norm(cell)
    z = z.reshape(count, -1, channels)
    scores = np.zeros(z.shape[:2])
    for i in range(count):
        for m in range(z.shape[1]):
            nearest = [np.linalg.norm(z[i, m] - z[j], axis=1).min() for j in range(count) if j != i]
            scores[i, m] = np.mean(sorted(nearest)[: int(0.4 * (count - 1))])
    return z, scores


def test_cells_and_scores_are_those_written_out():
    z, scores = jax.device_get(scored(MAPS))
    expected_z, expected = by_hand(MAPS)
    np.testing.assert_allclose(z, expected_z, atol=1e-5)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores[0].min() > 0.01


def test_order_does_not_matter_and_equal_images_are_not_odd():
    order = RNG.permutation(7)
    _, scores = jax.device_get(scored(MAPS))
    _, moved = jax.device_get(scored(MAPS[order]))
    np.testing.assert_allclose(moved, scores[order], atol=1e-5)
    _, equal = jax.device_get(scored(np.repeat(MAPS[:1], 7, 0)))
    assert np.abs(equal).max() < 1e-6


def test_too_few_images_and_even_neighbourhoods_are_refused():
    assert kept(11, 0.3) == 3
    with pytest.raises(ValueError, match=r"4 images and share=0.3: .* at least 5 images"):
        kept(4, 0.3)
    assert kept(5, 0.3) == 1
    with pytest.raises(ValueError, match="neighbourhood=2; it must be odd"):
        aggregated(jnp.asarray(MAPS), 2)


def test_rescoring_is_a_mean_over_those_that_are_alike():
    scores, x = RNG.random(6) + 3, RNG.random((6, 4))
    s = (scores - scores.min()) / np.ptp(scores)
    np.testing.assert_allclose(rescored(scores, x, (1,)), s)
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    w = unit @ unit.T
    expected = np.zeros(6)
    for i in range(6):
        for k in (1, 3):
            best = np.argsort(-w[i])[:k]
            expected[i] += (w[i, best] @ s[best]) / w[i, best].sum() / 2
    np.testing.assert_allclose(rescored(scores, x, (1, 3)), expected)
    assert (rescored(np.ones(6), x) == 0).all()
    with pytest.raises(ValueError, match=r"neighbours=\(7,\): each must be 1..6"):
        rescored(scores, x, (7,))


def test_maps_are_enlarged_with_corners_on_corners():
    x = np.arange(6.0).reshape(1, 2, 3)
    large = enlarged(x, (3, 5))
    np.testing.assert_allclose(large[0, 1], [1.5, 2, 2.5, 3, 3.5])
    np.testing.assert_allclose(large[0][::2, ::2], x[0])
    assert (enlarged(np.full((1, 1, 1), 2.0), (3, 3)) == 2).all()


def made(**changes: Any) -> EvalData:
    rows = [Defects(seed=1, num_examples=8, image_size=16)[i] for i in range(8)]
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    arrays["image"] = arrays["image"].astype(np.float32) / 255
    return EvalData(Arrays(arrays | changes, "drawn"), batch_size=8, threads=0)


def run(evaluator: MutualScoring, tower: Any) -> dict[str, float]:
    batch = {"image": np.zeros((1, 16, 16, 3), np.float32)}
    of = untrained(Classify(tower), batch | {"label": np.zeros(1, int), "_mask": np.ones(1, bool)})

    def predict(variables: Any, batch: Any, tap: Any = None) -> Any:
        seen: Any = tower if tap is None else Tapped(tower, tap)
        objective = Classify(seen)
        return objective.predict(variables, batch, Context.evaluation())

    return evaluate(evaluator, predict, of.variables, 0, of.mesh)[0]


def test_an_image_with_a_defect_stands_out():
    data = made()
    records = [data.source[i] for i in range(8)]
    image, mask = (np.stack([each[name] for each in records]) for name in ("image", "masks"))
    image[mask] = 8 * RNG.normal(size=(int(mask.sum()), 3))
    tower = BlockTower(num_classes=2)
    got = run(MutualScoring(made(image=image), sites=("stem", "block01"), prefix=1), tower)
    assert got["examples"] == 8
    assert got["anomalous"] == sum(each["label"] for each in records)
    assert got["image_auroc"] > 0.6
    assert got["pixel_auroc"] > 0.85
    assert 0 < got["pixel_ap"] <= 1
    assert 0 < got["pro"] <= 1
    with pytest.raises(SiteError, match="site='block09', but the tower has stem"):
        run(MutualScoring(data, sites=("block09",)), tower)
    for label, kind in ((0, "normal"), (1, "anomalous")):
        one = made(label=np.full(8, label))
        with pytest.raises(DataError, match=f"all 8 images are {kind} by 'label'"):
            run(MutualScoring(one, sites=("stem",), prefix=1), tower)


@pytest.mark.parametrize(
    ("tower", "site", "prefix"),
    [
        (ViT(width=8, depth=1, heads=1, patch=4, num_classes=2), "block00", 1),
        (ResNet(depth=10, stem="cifar", width_multiplier=0.125, num_classes=2), "block01", 0),
        (ConvNeXt(dims=(8, 8), depths=(1, 1), num_classes=2), "block00", 0),
    ],
    ids=["vit", "resnet", "convnext"],
)
@pytest.mark.slow
def test_towers_of_any_kind(tower: Any, site: str, prefix: int):
    got = run(MutualScoring(made(), sites=(site,), prefix=prefix, neighbourhoods=(1, 3)), tower)
    assert 0 <= got["pixel_auroc"] <= 1
