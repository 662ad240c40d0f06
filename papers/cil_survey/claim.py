"""Five tasks of two digits each: replay, distillation with alignment, and prototypes.

The card's order is asserted, with 100 exemplars for those that replay; beside it stand a learner
that spends the bytes of a teacher on exemplars, and prototypes. Seen: replay alone keeps nearly
everything, and aligning the head takes it away again. The alignment corrects rows of new classes
that are too long; after 120 steps from small values they are the short ones.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from papers.cil_survey.config import small
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, run_scenario
from vision.scenario.stages import CURSOR

MARGIN = Margin(0.02, rule="no figure for this comparison in the survey's headline: 2 points")

SHOWN = {
    "joint": "all data at once",
    "wa": "replay, distillation and alignment (two networks, 100 exemplars)",
    "replay": "replay (one network, 100 exemplars)",
    "finetune": "fine-tuning",
    "replay_equal_bytes": "replay with a second network's bytes of exemplars",
    "prototypes": "class means of the first network's features",
}


def test_joint_training_beats_aligned_replay_beats_replay_beats_fine_tuning(record: Recorder):
    results: dict[Any, list[dict[str, float]]] = {name: [] for name in SHOWN}
    for seed in SEEDS:
        for name, rows in results.items():
            with run_scenario(small(name), seed) as folder:
                last = json.loads((folder / CURSOR).read_text())["finished"][-1]
                rows.append(last["metrics"])

    def side(name: str, key: str = "last") -> Side:
        return Side(SHOWN[name], tuple(row[key] for row in results[name]))

    def mean(name: str) -> float:
        return float(np.mean(side(name).values))

    record(
        claim="After five tasks of digits replay with distillation and weight alignment is better"
        " than replay alone.",
        expected="undecided",
        compared=Measured("accuracy after the last task", side("wa"), side("replay")),
        margin=MARGIN,
        scale=Scale(chance=0.1),
        control=None,
        measured=[
            Measured("accuracy after the last task", side("joint"), side("finetune")),
            Measured(
                "accuracy after the last task", side("replay_equal_bytes"), side("prototypes")
            ),
            Measured(
                "memory, bytes",
                side("replay_equal_bytes", "memory_bytes"),
                side("prototypes", "memory_bytes"),
            ),
            Measured("memory, bytes", side("wa", "memory_bytes"), side("replay", "memory_bytes")),
        ],
    )
