"""A searched forget set against a random one, for networks trained without it.

A small CNN learns the digits that ship. A tenth of them is to be forgotten: the set that three
rounds of the nested problem find, or a random one. For each, a network is trained anew on the rest.
Three seeds, of networks and sets. The config's fine-tuning is left out for its cost.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from papers.worst_forget.config import small
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, run_scenario

MARGIN = Margin(
    0.005,
    rule="accuracy near 100 % on the worst sets, a random set's is not in the "
    "headline: half a point",
)


def test_what_the_search_finds_is_known_without_having_been_seen(record: Recorder):
    rows: list[dict[str, dict[str, dict[str, float]]]] = []
    for seed in SEEDS:
        config: Any = small()
        kept = (stage for stage in config.stages if not stage.name.startswith("tuned"))
        config.stages = tuple(kept)
        for stage in config.stages:
            if stage.name in ("worst", "random"):
                stage.do.seed = seed
            elif stage.name.startswith("known"):
                stage.do.runs = {"trained": "stage:trained"}
        with run_scenario(config, seed) as workdir:
            rows.append(
                {
                    kind: json.loads((workdir / f"known_{kind}" / "unlearning.json").read_text())
                    for kind in ("worst", "random")
                }
            )

    def both(title: str, run: str, metric: str) -> Measured:
        worst, random = (
            Side(kind, tuple(row[kind][run][metric] for row in rows))
            for kind in ("worst", "random")
        )
        return Measured(title, worst, random)

    unlearned = both("wrong on the forget set, retrained", "retrained", "ua")
    test = both("top-1 on the test set, retrained", "retrained", "ta")

    def gap(of: Measured) -> float:
        assert of.baseline is not None
        return float(np.mean(of.method.values) - np.mean(of.baseline.values))

    record(
        claim="A network trained without the searched set is wrong on it less often than one "
        "trained without a random set is on that.",
        expected="undecided",
        compared=unlearned,
        margin=MARGIN,
        scale=Scale(worst=1.0, best=0.0),
        control=None,
        measured=[
            unlearned,
            both("taken for non-members by the attack, retrained", "retrained", "mia"),
            both("wrong on the forget set, as trained", "trained", "ua"),
            both("average gap of the trained network to retraining", "trained", "gap"),
            test,
        ],
    )
