"""Six base digits and four new ones with five records each, with and without calibration.

A small CNN with a cosine head learns the base digits. Numbers are means over 30 draws of the five
records and three networks. The card expects an inverted U with a small gain: a harmonic mean of
base and new accuracy that is better with alpha 0.1 than with none, and worse again with 0.5.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import dataclasses

from papers.teen.config import small
from vision.config.specs import build
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(0.02, rule="figures are unconfirmed: 2 points")

ALPHAS = (0.0, 0.1, 0.3, 0.5)


def test_a_little_calibration_helps_new_digits(record: Recorder):
    config = small()
    evaluator = build(config.evaluators)["teen"]
    rows: dict[float, list[dict[str, float]]] = {alpha: [] for alpha in ALPHAS}
    for seed in SEEDS:
        run = train(config, seed)
        for alpha, results in rows.items():
            results.append(measure(run, dataclasses.replace(evaluator, alpha=alpha)))

    def side(alpha: float, name: str) -> Side:
        title = f"alpha {alpha:g}" if alpha else "nearest mean"
        return Side(title, tuple(row[name] for row in rows[alpha]))

    harmonic = {alpha: side(alpha, "harmonic") for alpha in ALPHAS}
    record(
        claim="The harmonic mean of accuracies on base and new digits is better with means moved "
        "towards base classes than with plain means.",
        expected="undecided",
        compared=Measured("harmonic mean", harmonic[0.1], harmonic[0.0]),
        margin=MARGIN,
        scale=Scale(),
        control=None,
        measured=[
            *(Measured("harmonic mean", harmonic[alpha], harmonic[0.0]) for alpha in ALPHAS[1:]),
            *(
                Measured(f"accuracy on {name} digits", side(0.1, name), side(0.0, name))
                for name in ("base", "new")
            ),
            Measured("new taken for base", side(0.1, "new_as_base"), side(0.0, "new_as_base")),
        ],
    )
