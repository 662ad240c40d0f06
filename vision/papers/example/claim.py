"""The same training with and without the method. Say here what was compared, and what was seen.

Write down what you expect and by which margin before the first run.
"""

from __future__ import annotations

import numpy as np

from vision.config.specs import build
from vision.papers.claims import SEEDS, Measured, Recorder, Side, measure, train
from vision.papers.example.config import small

MARGIN = 0.1


def test_answers_are_less_sure(record: Recorder):
    nll: dict[float, list[float]] = {0.5: [], 0.0: []}
    for weight, rows in nll.items():
        config = small(weight=weight)
        evaluator = build(config.evaluators)["test"]
        rows += [measure(train(config, seed), evaluator)["nll"] for seed in SEEDS]
    method, baseline = (
        Side(name, tuple(rows))
        for name, rows in zip(("example", "plain"), nll.values(), strict=True)
    )
    record(
        claim="With a weight of 0.5 the mean negative log-likelihood of digits that were not "
        "trained on is at least 0.1 nats higher than without: answers are less sure.",
        expected=True,
        holds=bool(np.mean(method.values) - np.mean(baseline.values) >= MARGIN),
        measured=[Measured("negative log-likelihood, nats", method, baseline)],
    )
