"""ImageNet-C's 15 corruptions at 5 severities.

Constants and definitions are the published ones, in pixels of 224x224 images; other sizes work,
and are affected more or less strongly. They differ from the published files in that

    frost   the published textures are photographs; ours are drawn (ridged fractal noise) with
            their brightness, tint and contrast
    motion  ImageMagick's motion blur is written out: a half-Gaussian along the angle
    elastic, fog, blurs    run at the image's own size, in numpy and SciPy instead of OpenCV

so results on images corrupted here differ slightly from results on the published files.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, 2019.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import ModuleType
from typing import Annotated

import numpy as np
from PIL import Image

from vision.config.ranges import Ge, Le, checked, one_of
from vision.data.ops.auto import pillow_of, unpillow
from vision.data.ops.base import Example, noted
from vision.data.ops.colour import through_jpeg
from vision.data.source import DataError

Rng = np.random.Generator


def corrupt(image: np.ndarray, name: str, severity: int, rng: Rng) -> np.ndarray:
    """uint8 [H, W, C] after corruption ``name``; values are cut, not rounded, as published."""
    out = CORRUPTIONS[name](image.astype(np.float64) / 255, severity - 1, rng)
    return (np.clip(out, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    return x + rng.normal(scale=(0.08, 0.12, 0.18, 0.26, 0.38)[s], size=x.shape)


def _shot_noise(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    photons = (60, 25, 12, 5, 3)[s]
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    hit = rng.random(x.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[s]
    return np.where(hit, rng.random(x.shape) < 0.5, x)


def _defocus_blur(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    radius, softness = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[s]
    reach = np.arange(-max(8, radius), max(8, radius) + 1)
    disk = (reach[:, None] ** 2 + reach[None] ** 2 <= radius**2).astype(np.float64)
    edge = 1 if radius <= 8 else 2
    disk = _ndimage().gaussian_filter(disk / disk.sum(), softness, mode="mirror", radius=edge)
    return _per_channel(x, lambda c: _ndimage().convolve(c, disk, mode="mirror"))


def _glass_blur(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    sigma, reach, rounds = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[s]
    height, width = x.shape[:2]
    blurred = np.floor(_blur(x, sigma) * 255) / 255
    index = list(range(height * width))
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    for _ in range(rounds):
        moves = rng.integers(-reach, reach, (len(rows), len(columns), 2)).tolist()
        for row, line in zip(rows, moves, strict=True):
            for column, (dx, dy) in zip(columns, line, strict=True):
                # The published code copies the neighbour where it means to swap with it.
                index[row * width + column] = index[(row + dy) * width + column + dx]
    shuffled = blurred.reshape(-1, x.shape[2])[index].reshape(x.shape)
    return _blur(shuffled, sigma)


def _motion_blur(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[s]
    return motion(x, radius, sigma, rng.uniform(-45, 45))


def motion(x: np.ndarray, radius: int, sigma: float, angle_deg: float) -> np.ndarray:
    """ImageMagick's motion blur of [H, W, C]: a half-Gaussian of 2 radius + 1 steps."""
    steps = np.arange(2 * radius + 1)
    share = np.exp(-(steps**2) / (2 * sigma**2))
    share /= share.sum()
    angle = math.radians(angle_deg)
    across = np.ceil(steps * math.cos(angle) - 0.5).astype(int)
    down = np.ceil(steps * math.sin(angle) - 0.5).astype(int)
    pad = 2 * radius + 1
    height, width = x.shape[:2]
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    out = np.zeros_like(x)
    for weight, i, j in zip(share, down, across, strict=True):
        out += weight * padded[pad + i : pad + i + height, pad + j : pad + j + width]
    return out


def _zoom_blur(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    stop, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[s]
    factors = np.arange(1, stop, step)
    return (x + sum(_zoomed(x, f) for f in factors)) / (len(factors) + 1)


def _snow(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    mean, std, zoom, threshold, radius, sigma, keep = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[s]
    flakes = _zoomed(rng.normal(mean, std, x.shape[:2])[:, :, None], zoom)
    flakes[flakes < threshold] = 0
    flakes = motion(np.clip(flakes, 0, 1), int(radius), sigma, rng.uniform(-135, -45))
    luma = x @ np.array([0.299, 0.587, 0.114]) if x.shape[2] == 3 else x[:, :, 0]
    whitened = np.maximum(x, luma[:, :, None] * 1.5 + 0.5)
    return keep * x + (1 - keep) * whitened + flakes + np.rot90(flakes, 2)


def _frost(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    keep, add = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[s]
    ridges = [1 - np.abs(2 * plasma(x.shape[:2], decay, rng) - 1) for decay in (1.5, 1.8, 2.2)]
    crystals = np.maximum.reduce([r ** (8 - 2 * i) for i, r in enumerate(ridges)])
    crystals = (crystals - crystals.mean()) / max(crystals.std(), 1e-6)
    # Mean, tint, spread and roughness of the five published photographs, 0.48..0.81 bright.
    texture = 0.1 * crystals + 0.05 * rng.normal(size=crystals.shape) + rng.uniform(0.48, 0.81)
    tint = np.array([0.89, 1.02, 1.09]) if x.shape[2] == 3 else np.ones(1)
    return keep * x + add * np.clip(texture[:, :, None] * tint, 0, 1)


def _fog(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    amount, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[s]
    brightest = x.max()
    fogged = x + amount * plasma(x.shape[:2], decay, rng)[:, :, None]
    return fogged * brightest / (brightest + amount)


def _brightness(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    # HSV's value raised: hue and saturation stay, so the channels keep their proportions.
    value = x.max(axis=2, keepdims=True)
    raised = np.clip(value + (0.1, 0.2, 0.3, 0.4, 0.5)[s], 0, 1)
    return np.where(value > 0, x * raised / np.maximum(value, 1e-12), raised)


def _contrast(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    mean = x.mean(axis=(0, 1), keepdims=True)
    return (x - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[s] + mean


def _elastic_transform(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    alpha, sigma, affine = (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    )[s]
    size = np.array(x.shape[:2])
    centre, side = size // 2, min(size) // 3
    corners = centre[::-1] + side * np.array([[1, 1], [1, -1], [-1, -1]])  # x, y
    moved = corners + rng.uniform(-affine, affine, corners.shape)
    inverse = np.linalg.solve(np.c_[moved, np.ones(3)], corners)
    rows, columns = np.mgrid[: size[0], : size[1]]
    where = np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)], axis=1) @ inverse
    x = _sampled(x, where.T[::-1].reshape(2, *size), "mirror")
    shifts = [
        _ndimage().gaussian_filter(rng.uniform(-1, 1, size), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    ]
    return _sampled(x, np.stack([rows, columns]) + alpha * np.stack(shifts[::-1]), "reflect")


def _pixelate(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[s]
    image = _pillow(x)
    small = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    box = Image.Resampling.BOX
    return unpillow(image.resize(small, box).resize(image.size, box)) / 255


def _jpeg_compression(x: np.ndarray, s: int, rng: Rng) -> np.ndarray:
    return unpillow(through_jpeg(_pillow(x), (25, 18, 15, 10, 7)[s])) / 255


def plasma(size: tuple[int, int], decay: float, rng: Rng) -> np.ndarray:
    """Fractal noise (H, W) in 0..1 by the diamond-square scheme on a torus."""
    side = 2 ** max(1, math.ceil(math.log2(max(size))))
    if side**2 > max(16 * size[0] * size[1], 1 << 24):
        raise DataError(
            f"fractal noise for an image of {size[0]} x {size[1]} pixels (height x width) needs a "
            f"square of {side} pixels a side; crop it first, or leave it out"
        )
    grid, step, wobble = np.zeros((side, side)), side, 100.0

    def mean(total: np.ndarray) -> np.ndarray:
        return total / 4 + wobble * rng.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]
        total = corners + np.roll(corners, -1, 0)
        grid[half::step, half::step] = mean(total + np.roll(total, -1, 1))
        middles = grid[half::step, half::step]
        above = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        grid[::step, half::step] = mean(above)
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        grid[half::step, ::step] = mean(beside)
        step, wobble = half, wobble / decay
    grid -= grid.min()
    return (grid / max(grid.max(), 1e-12))[: size[0], : size[1]]


def _ndimage() -> ModuleType:
    """SciPy's, which takes a quarter of a second to import: not in every program that has ops."""
    from scipy import ndimage

    return ndimage


def _per_channel(x: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([work(x[:, :, c]) for c in range(x.shape[2])], axis=2)


def _blur(x: np.ndarray, sigma: float) -> np.ndarray:
    return _ndimage().gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _sampled(x: np.ndarray, where: np.ndarray, mode: str) -> np.ndarray:
    return _per_channel(x, lambda c: _ndimage().map_coordinates(c, where, order=1, mode=mode))


def _zoomed(x: np.ndarray, factor: float) -> np.ndarray:
    """The middle of [H, W, C], magnified to the same size."""
    height, width = x.shape[:2]
    h, w = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - h) // 2, (width - w) // 2
    part = x[top : top + h, left : left + w]
    large = np.asarray(_ndimage().zoom(part, (factor, factor, 1), order=1, mode="nearest"))
    # Rounding may leave it a pixel short.
    short = [max(0, height - large.shape[0]), max(0, width - large.shape[1])]
    large = np.pad(large, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def _pillow(x: np.ndarray) -> Image.Image:
    array = np.rint(x * 255).astype(np.uint8)
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, Rng], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
"""name: function of (float image in 0..1, severity - 1, generator)."""


@dataclasses.dataclass(frozen=True)
@checked
class Corruption:
    """One of ``CORRUPTIONS`` on uint8 [H, W, 1 or 3].

    The example's generator draws the noise, so evaluation data is the same every time.

    Attributes:
      name: which corruption.
      severity: 1..5.
      key: the image feature.
    """

    name: Annotated[str, one_of(CORRUPTIONS)]
    severity: Annotated[int, Ge(1), Le(5)] = 1
    key: str = "image"

    def __call__(self, example: Example, rng: Rng) -> Example:
        array = unpillow(pillow_of(example, self.key, "Corruption"))
        out = corrupt(array, self.name, self.severity, rng)
        return noted(
            {**example, self.key: out}, "Corruption", corruption=self.name, severity=self.severity
        )
