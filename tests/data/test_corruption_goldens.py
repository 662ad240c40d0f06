"""ImageNet-C's corruptions beside those of imagecorruptions (bench/goldens/corruptions.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vision.data.ops.corruptions import CORRUPTIONS, corrupt

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "corruptions.npz")
PHOTO = GOLDEN["photo"]
KEPT = slice(None, None, 13)
ELASTIC = (
    (2, 0.7, 0.1),
    (2, 0.08, 0.2),
    (0.05, 0.01, 0.02),
    (0.07, 0.01, 0.02),
    (0.12, 0.01, 0.02),
)


class Legacy:
    """The generator that the golden was drawn with, under the names of today's."""

    def __init__(self, seed: int) -> None:
        old = np.random.RandomState(seed)
        self.normal, self.poisson, self.uniform = old.normal, old.poisson, old.uniform
        self.random, self.integers = old.random_sample, old.randint


def ours(name: str, severity: int, seed: int = 0) -> np.ndarray:
    return corrupt(PHOTO, name, severity, Legacy(seed))  # pyright: ignore[reportArgumentType]


def change(image: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, and mean absolute value of what was added, in 0..255."""
    added = image.astype(np.float64) - PHOTO
    return np.array([added.mean(), added.std(), np.abs(added).mean()])


DRAWN_ALIKE = sorted(set(CORRUPTIONS) - {"impulse_noise", "frost", "elastic_transform"})


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DRAWN_ALIKE)
def test_pixels_are_the_peers(name, severity):
    found, expected = ours(name, severity)[KEPT, KEPT].astype(int), GOLDEN[f"{name}/{severity}"]
    apart = np.abs(found - expected)
    if (name, severity) == ("pixelate", 3):
        # A magnification by 2.5: the peer takes the nearest pixel where ImageNet-C averages two.
        assert 0.05 < (apart > 1).mean() < 0.2
    else:
        assert apart.max() <= 1


@pytest.mark.parametrize("name", ["impulse_noise", "frost"])
def test_harm_is_the_peers(name):
    for severity in (1, 2, 3, 4, 5):
        found = np.mean([change(ours(name, severity, seed)) for seed in range(8)], axis=0)
        expected = GOLDEN[f"{name}/{severity}/change"]
        tolerance = 0.02 if name == "impulse_noise" else 0.12
        np.testing.assert_allclose(found[1:], expected[1:], rtol=tolerance)
        assert found[0] == pytest.approx(expected[0], rel=tolerance, abs=0.5)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_elastic_transform_is_opencvs(severity):
    """The peer has other constants than ImageNet-C, so its steps are taken again in OpenCV."""
    cv2 = pytest.importorskip("cv2")
    alpha, sigma, affine = (244 * np.array(three) for three in ELASTIC[severity - 1])
    rng, side = np.random.RandomState(severity), len(PHOTO)
    corners = np.float32(side // 2 + side // 3 * np.array([[1, 1], [1, -1], [-1, -1]]))
    moved = corners + np.float32(rng.uniform(-affine, affine, (3, 2)))
    matrix = cv2.getAffineTransform(corners, moved)
    warped = cv2.warpAffine(PHOTO, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    dx, dy = (
        alpha * ndimage.gaussian_filter(rng.uniform(-1, 1, (side, side)), sigma, truncate=3)
        for _ in range(2)
    )
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    where = [np.float32(columns + dx), np.float32(rows + dy)]
    expected = cv2.remap(warped, *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    apart = np.abs(ours("elastic_transform", severity, severity).astype(float) - expected)
    assert apart.mean() < 1.5
    assert np.abs(PHOTO.astype(float) - expected).mean() > 5
