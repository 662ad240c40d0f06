"""Digits two at a time: nearest means of a frozen network, against sequential fine-tuning.

The network learned shapes in scenes. Its features' means are compared with those of the network
before any training, and with the network itself, fine-tuned on one pair of digits after the other
without replay. The card asks that means, of an untrained network even, be at least 50 points
better than fine-tuning.

Three statements are exact and asserted here as well: the classes' means are the same whether tasks
come in order or all records are shuffled, and no other class's records change them.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
from sklearn.neighbors import NearestCentroid

from configs.parts.drawn import drawn
from papers.nmc_frozen.config import TASKS, small
from papers.nmc_frozen.method import nearest_class
from vision.config.specs import build
from vision.data.sources.digits import Digits
from vision.papers.claims import (
    SEEDS,
    Margin,
    Measured,
    Parity,
    Recorder,
    Scale,
    Side,
    load_run,
    measure,
    run_scenario,
    train,
)
from vision.probes.class_means import empty_means, update

MARGIN = Margin(0.02, rule="the authors compare with methods that we do not have: 2 points")


def parity() -> Parity:
    train, test = (
        Digits(split).__getitems__(range(len(Digits(split)))) for split in ("train", "test")
    )
    x, y = (part["image"].reshape(-1, 64).astype(np.float32) for part in (train, test))
    peer = NearestCentroid().fit(x, train["label"])
    state = empty_means(10, 64)
    for task in TASKS:
        rows = np.isin(train["label"], task)
        state = update(state, x[rows], train["label"][rows])
    assert np.array_equal(nearest_class(state, y), peer.predict(y))
    error = np.abs(np.asarray(state.mean) - peer.centroids_).max() / np.abs(peer.centroids_).max()
    return Parity("scikit-learn", metadata.version("scikit-learn"), float(error))


def test_means_of_an_untrained_network_beat_training_it_task_by_task(record: Recorder):
    config: Any = drawn(small(finetuned=True))
    scenes = config.stages[0].do
    means = build(scenes.evaluators["means"])
    answers = build(config.stages[-1].do.evaluators["test"])
    untrained: Any = drawn(small())
    untrained.optimizer.learning_rate = 0.0
    untrained.total = "1 steps"
    untrained.optimizer.schedule.warmup = "0 steps"
    rows: dict[str, list[dict[str, float]]] = {"frozen": [], "untrained": [], "finetuned": []}
    for seed in SEEDS:
        with run_scenario(config, seed) as folder:
            rows["frozen"].append(measure(load_run(folder / "scenes"), means))
            rows["finetuned"].append(measure(load_run(folder / "task4"), answers))
        rows["untrained"].append(measure(train(untrained, seed), means))

    frozen, floor = (
        Side(title, tuple(row["last"] for row in rows[name]))
        for name, title in (
            ("frozen", "means, network of scenes"),
            ("untrained", "means, untrained"),
        )
    )
    tuned = Side("fine-tuned in turn", tuple(row["top1"] for row in rows["finetuned"]))
    lost = Side("means, network of scenes", tuple(row["forgetting"] for row in rows["frozen"]))
    record(
        claim="After five tasks of two digits nearest means of a frozen network are better than "
        "the network fine-tuned on one task after the other.",
        expected="undecided",
        compared=Measured("top-1 of ten digits after five tasks", frozen, tuned),
        margin=MARGIN,
        scale=Scale(),
        control=None,
        measured=[
            Measured("top-1 of ten digits after five tasks", floor, tuned),
            Measured("accuracy lost to classes that came later", lost),
            Measured(
                "memory of ten means, bytes",
                Side("means", (float(np.mean([row["memory_bytes"] for row in rows["frozen"]])),)),
            ),
        ],
        parity=parity(),
    )
