"""Five tasks of two digits each: replay, distillation with alignment, and prototypes.

The card's order is asserted, with 100 exemplars for those that replay; beside it stand a learner
that spends the bytes of a teacher on exemplars, and prototypes. Seen: replay alone keeps nearly
everything, and aligning the head takes it away again. The alignment corrects rows of new classes
that are too long; after 120 steps from small values they are the short ones.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from papers.cil_survey.config import small
from vision.papers.claims import SEEDS, Measured, Recorder, Side, run_scenario
from vision.scenario.stages import CURSOR

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
        claim="After five tasks of digits, accuracy on all classes is highest with all data at "
        "once, then with replay, distillation and alignment, then with replay, then without.",
        expected=False,
        holds=mean("joint") >= mean("wa") > mean("replay") > mean("finetune"),
        measured=[
            Measured("accuracy after the last task", side("wa"), side("replay")),
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
