"""Three sources of digits, alone and mixed: robustness to shifts, and of mixtures.

Sources show 1,438 digits each in a weather of its own, of a strength that differs from picture to
picture: fog, noise, clutter. Reference models are trained on plain digits. All are logistic
regressions on 256 pixels, as in the paper's own analysis and not as in its experiments, whose
models are CLIP's on six web sources: what is tested here is the protocol and the arithmetic of
mixing, not web data. 200, 400 and 800 pictures of a source make points of its line, and the seed
says which.

Effective robustness is accuracy under a shift beyond the line of the reference models; the mean of
their own residuals about the line, in logits, is zero, exactly. A mixture is half and half at the
same size. Good is the source of the highest effective robustness over shifts; the filter keeps the
half of a mixture whose labels are the likeliest to a model of the good source.

It did not hold. 67 % of mixtures are between their parents. Lines fit badly (R2 of 0.03 at least
for the reference models): so few sizes of one linear model differ in standard accuracy by little
more than their seeds, which the paper's many models do not. The filter lowers effective robustness,
from 0.199 to 0.175, as it halves the pictures.

A design before this one had strengths of 1.5 everywhere, at which hardly any shift cost a model
anything, so there was nothing to be between; it did not hold either. The present ones halve the
accuracy of a model of 800 plain digits, and were set by that alone.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from vision.data.ops.resizing import resize
from vision.data.ops.sliders import slide
from vision.data.sources.digits import Digits
from vision.metrics.robustness import fit_robustness_line
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side
from vision.probes.linear import LinearClassifier, fit_logistic

MARGIN = Margin(0.02, rule="no comparable figure is reported: 0.02 on the scale of logits")

SOURCES = ("fog", "noise", "clutter")
SHIFTS = {"fog": 3.0, "noise": 10.0, "clutter": 10.0, "blur": 10.0}
SIZES = (200, 400, 800)
Set = tuple[np.ndarray, np.ndarray]


def digits(split: str) -> Set:
    source = Digits(split=split)  # pyright: ignore[reportArgumentType]
    records = [source[i] for i in range(len(source))]
    images = np.stack([resize(each["image"], 16, 16) for each in records])
    return images, np.asarray([each["label"] for each in records])


def under(images: np.ndarray, name: str, low: float, high: float, seed: int) -> np.ndarray:
    """Pixels (N, 256) of ``images`` under a slider, each at a scale of its own."""
    rows = []
    for i, image in enumerate(images):
        rng = np.random.default_rng([seed, i])
        rows.append(slide(image, name, rng.uniform(low, high), rng).ravel() / 255)
    return np.stack(rows).astype(np.float32)


def fit(x: np.ndarray, labels: np.ndarray) -> LinearClassifier:
    return fit_logistic(x, labels, 10, decay=1e-2)


def top1(
    model: LinearClassifier, tests: Mapping[str, np.ndarray], labels: np.ndarray
) -> dict[str, float]:
    return {name: float((model.logits(x).argmax(1) == labels).mean()) for name, x in tests.items()}


def log_odds(x: np.ndarray) -> np.ndarray:
    return np.log(x / (1 - x))


def test_a_mixture_is_between_its_parents(record: Recorder):
    (train, labels), (test, truth) = digits("train"), digits("test")
    tests = {"standard": test.reshape(len(test), -1).astype(np.float32) / 255}
    tests |= {
        name: under(test, name, scale, scale, 10 + i)
        for i, (name, scale) in enumerate(SHIFTS.items())
    }
    shown = {name: under(train, name, 0.0, SHIFTS[name], 20 + i) for i, name in enumerate(SOURCES)}
    shown["plain"] = train.reshape(len(train), -1).astype(np.float32) / 255
    pairs = list(itertools.combinations(SOURCES, 2))

    results: dict[tuple[str, ...], list[dict[str, float]]] = {}
    models: dict[tuple[int, str], LinearClassifier] = {}
    mixed: dict[tuple[int, tuple[str, str]], Set] = {}
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(labels))
        for size in SIZES:
            rows = order[:size]
            for name in (*SOURCES, "plain"):
                model = fit(shown[name][rows], labels[rows])
                results.setdefault((name,), []).append(top1(model, tests, truth))
                models[seed, name] = model
            for first, second in pairs:
                half = np.arange(size)[:, None] % 2 == 0
                x = np.where(half, shown[first][rows], shown[second][rows])
                results.setdefault((first, second), []).append(
                    top1(fit(x, labels[rows]), tests, truth)
                )
                mixed[seed, (first, second)] = x, labels[rows]

    def values(which: tuple[str, ...], name: str) -> np.ndarray:
        return np.asarray([each[name] for each in results[which]])

    lines = {
        name: fit_robustness_line(values(("plain",), "standard"), values(("plain",), name))
        for name in SHIFTS
    }

    def rho(which: tuple[str, ...], name: str) -> np.ndarray:
        """Effective robustness of seeds, mean over sizes."""
        beyond = lines[name].effective(values(which, "standard"), values(which, name))
        return beyond.reshape(len(SEEDS), len(SIZES)).mean(1)

    residual = max(
        abs(np.mean(log_odds(y) - line.slope * log_odds(x) - line.intercept))
        for name, line in lines.items()
        for x, y in [(values(("plain",), "standard"), values(("plain",), name))]
    )
    r_squared = [
        fit_robustness_line(values((source,), "standard"), values((source,), name)).r2
        for source in SOURCES
        for name in SHIFTS
    ]
    inside = []
    for pair, name in itertools.product(pairs, SHIFTS):
        parents = sorted(rho((each,), name).mean() for each in pair)
        inside.append(parents[0] <= rho(pair, name).mean() <= parents[1])

    total = {source: np.mean([rho((source,), name) for name in SHIFTS], 0) for source in SOURCES}
    good = max(total, key=lambda source: total[source].mean())
    before, after = [], []
    for i, seed in enumerate(SEEDS):
        rises = []
        for pair in (pair for pair in pairs if good in pair):
            x, y = mixed[seed, pair]
            logits = models[seed, good].logits(x).astype(np.float64)
            likely = logits[np.arange(len(y)), y] - np.log(np.exp(logits).sum(1))
            kept = np.argsort(-likely, kind="stable")[: len(y) // 2]
            filtered = top1(fit(x[kept], y[kept]), tests, truth)
            unfiltered = results[pair][i * len(SIZES) + len(SIZES) - 1]
            rises.append(
                [
                    np.mean(
                        [
                            lines[name].effective(
                                np.asarray([each["standard"]]), np.asarray([each[name]])
                            )[0]
                            for name in SHIFTS
                        ]
                    )
                    for each in (unfiltered, filtered)
                ]
            )
        before.append(float(np.mean(rises, 0)[0]))
        after.append(float(np.mean(rises, 0)[1]))

    record(
        claim="A filter by a model of the good source raises the effective robustness of a "
        "mixture.",
        expected="undecided",
        compared=Measured(
            f"effective robustness, filtered by {good}",
            Side("filtered", tuple(after)),
            Side("mixture", tuple(before)),
        ),
        margin=MARGIN,
        scale=Scale(worst=-1.0),
        control=None,
        measured=[
            Measured(
                "R2 of 12 lines of sources, the least", Side("lines", (float(min(r_squared)),))
            ),
            Measured(
                "R2 of 12 lines of sources, the mean", Side("lines", (float(np.mean(r_squared)),))
            ),
            Measured(
                "R2 of 4 lines of reference models, the least",
                Side("lines", (min(line.r2 for line in lines.values()),)),
            ),
            Measured(
                f"share of {len(inside)} mixtures and shifts between the parents",
                Side("mixtures", (float(np.mean(inside)),)),
                Side("wanted", (0.8,)),
            ),
            *[
                Measured(
                    f"effective robustness to {name}, clutter's models",
                    Side("clutter", tuple(rho(("clutter",), name).tolist())),
                    Side("noise", tuple(rho(("noise",), name).tolist())),
                )
                for name in SHIFTS
            ],
            Measured(
                "mean residual of reference models, logits", Side("largest", (float(residual),))
            ),
        ],
    )
