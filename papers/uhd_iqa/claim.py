"""Quality of large pictures, from crops at their own resolution or from the picture made small.

Pictures of 128 pixels have 1 / f spectra in random directions. Their quality is a blur of 0 to 1.2
pixels and ten raters see it with a bias and noise of their own. Features are statistics of
what is left after smoothing (mean of the absolute value, its spread, its kurtosis, at three
scales), of nine crops of 32 pixels, averaged, or of the whole picture after a reduction by 4 to as
many pixels as a crop has. A ridge regression learns mean ratings of 200 pictures and is asked about
100 others: Spearman's correlation with their mean ratings. The decay is chosen on a third of the
training pictures, for both arms.

The control are crops whose pictures have each other's ratings while learning.

Held: 0.94 beside 0.64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
import scipy.stats

from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side
from vision.probes.ridge import prepare_ridge

MARGIN = Margin(0.02, rule="no figure is reported for this comparison: 0.02 of SRCC")

SIDE, CROP, RATERS, TRAIN, TEST = 128, 32, 10, 200, 100
DECAYS = (1e-3, 1e-2, 1e-1, 1.0)


def picture(rng: np.random.Generator, blur: float) -> np.ndarray:
    """(128, 128) with a spectrum of 1 / f, of another slope and direction in every picture."""
    fy, fx = np.meshgrid(*(np.fft.fftfreq(SIDE),) * 2, indexing="ij")
    angle, stretch, slope = rng.uniform(0, np.pi), rng.uniform(1, 3), rng.uniform(0.9, 1.4)
    along = np.cos(angle) * fx + np.sin(angle) * fy
    across = stretch * (np.cos(angle) * fy - np.sin(angle) * fx)
    radius = np.maximum(np.hypot(along, across), 1 / SIDE)
    spectrum = np.fft.fft2(rng.normal(size=(SIDE, SIDE))) / radius**slope
    x = np.fft.ifft2(spectrum).real
    return scipy.ndimage.gaussian_filter((x - x.mean()) / x.std(), blur, mode="wrap")


def statistics(x: np.ndarray) -> list[float]:
    found = []
    for scale in (0.7, 1.4, 2.8):
        rest = x - scipy.ndimage.gaussian_filter(x, scale)
        size = np.abs(rest)
        found += [np.log(size.mean() + 1e-9), np.log(size.std() + 1e-9)]
        found.append(float(scipy.stats.kurtosis(rest.ravel())))
    return found


def crops(x: np.ndarray) -> np.ndarray:
    places = np.linspace(0, SIDE - CROP, 3).astype(int)
    return np.mean([statistics(x[i : i + CROP, j : j + CROP]) for i in places for j in places], 0)


def small(x: np.ndarray) -> np.ndarray:
    factor = SIDE // CROP
    return np.asarray(statistics(x.reshape(CROP, factor, CROP, factor).mean((1, 3))))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    found: Any = scipy.stats.spearmanr(a, b)
    return float(found.statistic)


def srcc(x: np.ndarray, y: np.ndarray, new: np.ndarray, asked: np.ndarray) -> float:
    """Spearman's correlation of a ridge regression's answers with ratings."""

    def answers(x: np.ndarray, y: np.ndarray, new: np.ndarray, decay: float) -> np.ndarray:
        return prepare_ridge(x, y[:, None], standardise=True).fit(decay).logits(new)[:, 0]

    held = len(x) // 3
    scores = [spearman(answers(x[held:], y[held:], x[:held], decay), y[:held]) for decay in DECAYS]
    decay = DECAYS[int(np.argmax(scores))]
    return spearman(answers(x, y, new, decay), asked)


def measure_seed(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    blurs = rng.uniform(0, 1.2, TRAIN + TEST)
    pictures = [picture(rng, blur) for blur in blurs]
    ratings = -blurs + rng.normal(0, 0.1, (RATERS, 1)) + rng.normal(0, 0.2, (RATERS, len(blurs)))
    y = ratings.mean(0)
    features = {"crops": crops, "small": small}
    rows: dict[str, float] = {}
    for name, of in features.items():
        x = np.stack([of(each) for each in pictures])
        rows[name] = srcc(x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:])
        if name == "crops":
            others = rng.permutation(y[:TRAIN])
            rows["permuted"] = srcc(x[:TRAIN], others, x[TRAIN:], y[TRAIN:])
    half = rng.permutation(RATERS)
    parts = [ratings[rows_of].mean(0)[TRAIN:] for rows_of in np.split(half, 2)]
    return rows | {"raters": spearman(*parts)}


def test_what_is_made_small_does_not_show_its_blur(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what = "SRCC with mean ratings"
    reduced = side("the picture, a quarter of its size", "small")
    record(
        claim="Quality is predicted better from crops of a picture's own resolution than from as "
        "many pixels of the picture made small.",
        expected="held",
        compared=Measured(what, side("nine crops", "crops"), reduced),
        margin=MARGIN,
        scale=Scale(),
        premises=[
            Premise("SRCC of two halves of the raters", side("", "raters").values, at_least=0.8),
            Premise("SRCC of the picture made small", reduced.values, at_least=0.2),
        ],
        control=Measured(what, side("nine crops, ratings permuted", "permuted"), reduced),
    )
