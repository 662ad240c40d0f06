"""Writes tests/golden/corruptions.npz: what the package imagecorruptions makes of an image.

    python3 -m venv /tmp/corruptions
    /tmp/corruptions/bin/pip install imagecorruptions==1.1.2 "numpy<2" "scikit-image==0.20.0" \\
        "scipy<1.12" "opencv-python-headless<4.11" "setuptools<81" pillow
    /tmp/corruptions/bin/python bench/goldens/corruptions.py

It has an environment of its own, since the package, of 2019, runs with neither today's NumPy nor
today's scikit-image. NumPy's legacy generator has the same streams in all versions, so noise drawn
here can be drawn again by the test.

Source: Michaelis et al., Benchmarking Robustness in Object Detection, 2019, which rewrote
ImageNet-C's corruptions for images of any size.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

warnings.simplefilter("ignore")
from imagecorruptions import corruptions as peer  # noqa: E402
from skimage.filters import gaussian  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "corruptions.npz"
SIDE = 180  # the zoom factors of snow divide it: no rounding of sizes to argue about
EVERY = 13  # of rows and columns, which are kept
SEEDS = 12
NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur"),
    *("zoom_blur", "snow", "frost", "fog", "brightness", "contrast", "elastic_transform"),
    *("pixelate", "jpeg_compression"),
)


def photo() -> np.ndarray:
    """Smooth colour, fine texture, edges, black and white; uint8 (180, 180, 3)."""
    rng = np.random.RandomState(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([x * 1.2, 200 - y, 120 + 90 * np.sin(x / 9) * np.cos(y / 7)], -1)
    image += 25 * ((x // 6 + y // 6) % 2)[:, :, None] + rng.randint(0, 15, (SIDE, SIDE, 3))
    image[30:70, 40:90] = (250, 40, 60)
    image[100:150, 20:60] = 0
    image[110:130, 120:170] = 255
    return np.clip(image, 0, 255).astype(np.uint8)


def _gaussian(image: np.ndarray, sigma: object, multichannel: bool = False, **options: object):
    return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)


peer.gaussian = _gaussian  # the argument has another name since
peer.np.float_ = np.float64


def corrupted(image: np.ndarray, name: str, severity: int) -> np.ndarray:
    out = getattr(peer, name)(Image.fromarray(image), severity)
    return np.asarray(out).astype(np.uint8)


if __name__ == "__main__":
    image = photo()
    kept: dict[str, np.ndarray] = {"photo": image}
    for name in NAMES:
        for severity in (1, 2, 3, 4, 5):
            changes = []
            for seed in range(1 if name == "glass_blur" else SEEDS):
                np.random.seed(seed)  # noqa: NPY002 - what the peer draws from
                out = corrupted(image, name, severity)
                if seed == 0:
                    kept[f"{name}/{severity}"] = out[::EVERY, ::EVERY]
                change = out.astype(np.float64) - image
                changes.append([change.mean(), change.std(), np.abs(change).mean()])
            kept[f"{name}/{severity}/change"] = np.mean(changes, axis=0)
    np.savez_compressed(OUT, **kept)
    print(f"{OUT}: {len(kept)} arrays, {OUT.stat().st_size} bytes")
