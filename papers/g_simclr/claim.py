"""Share of same-class pairs in contrastive batches, with clusters and at random.

Digits in batches of 16, the whole first epoch as training reads it. The autoencoder, its clusters
and the contrastive run are the config's. What a ridge probe makes of the features of that run and
of plain SimCLR is measured beside it and nothing is claimed of it: 360 steps on digits leave little
to gain.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from papers.g_simclr.config import small
from papers.g_simclr.method import same_class_rate
from vision.config.specs import build
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.digits import Digits
from vision.evaluators.features.probe import RidgeProbe
from vision.papers.claims import (
    SEEDS,
    Margin,
    Measured,
    Recorder,
    Scale,
    Side,
    load_run,
    measure,
    run_scenario,
)
from vision.run.workdir import read_config

MARGIN = Margin(
    0.008, rule="half of the 1.6 points that the authors gain with a linear probe on CIFAR-10"
)


def first_epoch(folder: Any, seed: int) -> np.ndarray:
    """Labels (N,) of an epoch of the contrastive run, in the order of its batches."""
    config: Any = read_config(folder)
    data = build(config.data)
    loader = data.loader(seed=seed)
    labels = np.concatenate([next(loader)["label"] for _ in range(data.steps_per_epoch)])
    loader.close()
    return labels


def test_batches_of_one_image_per_cluster_have_fewer_pairs_of_a_class(record: Recorder):
    read = {"batch_size": 500, "ops": (ops.ValueRange(low=0, high=1),), "threads": 0}
    train, test = (EvalData(Digits(split), **read) for split in ("train", "test"))
    probe = RidgeProbe(train, test)
    rates: dict[bool, list[float]] = {True: [], False: []}
    probed: dict[bool, list[float]] = {True: [], False: []}
    for seed in SEEDS:
        for guided in rates:
            with run_scenario(small(guided), seed) as folder:
                labels = first_epoch(folder / "contrast", seed)
                rates[guided].append(same_class_rate(labels, 16))
                probed[guided].append(measure(load_run(folder / "contrast"), probe)["top1"])
    guided, random = (
        Side(title, tuple(rates[guided]))
        for title, guided in (("one per cluster", True), ("random", False))
    )
    record(
        claim="Batches with one image of each cluster teach features of which a probe names more "
        "digits.",
        expected="undecided",
        compared=Measured(
            "ridge probe top-1",
            Side("one per cluster", tuple(probed[True])),
            Side("random", tuple(probed[False])),
        ),
        margin=MARGIN,
        scale=Scale(chance=0.1),
        control=None,
        measured=[Measured("share of pairs of one class", guided, random)],
    )
