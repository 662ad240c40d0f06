"""The same training with and without the method. Say here what was compared, and what was seen.

Commit the margin before the first run: the authors' effect, scaled by a rule. The control is the
comparison where the method cannot work (shuffled attention, wrong prompts, permuted labels); here
its weight is next to nothing.
"""

from __future__ import annotations

from vision.config.specs import build
from vision.papers.claims import (
    SEEDS,
    Margin,
    Measured,
    Premise,
    Recorder,
    Scale,
    Side,
    measure,
    train,
)
from vision.papers.example.config import small

MARGIN = Margin(0.1, rule="half of the 0.2 nats that the authors report")


def seen(weight: float, seed: int) -> dict[str, float]:
    """Numbers of the test split after a training with a weight of the method."""
    config = small(weight=weight)
    return measure(train(config, seed), build(config.evaluators)["test"])


def test_answers_are_less_sure(record: Recorder):
    rows = {weight: [seen(weight, seed) for seed in SEEDS] for weight in (0.5, 0.0, 1e-3)}

    def side(name: str, weight: float, metric: str = "nll") -> Side:
        return Side(name, tuple(row[metric] for row in rows[weight]))

    what = "negative log-likelihood, nats"
    record(
        claim="With a weight of 0.5 the mean negative log-likelihood of digits that were not "
        "trained on is higher than without: answers are less sure.",
        expected="held",
        compared=Measured(what, side("example", 0.5), side("plain", 0.0)),
        margin=MARGIN,
        scale=Scale(worst=0.0, best=2.3),  # up to log 10, where answers say nothing
        premises=[Premise("top-1 without the method", side("", 0.0, "top1").values, at_least=0.8)],
        control=Measured(what, side("weight 0.001", 1e-3), side("plain", 0.0)),
        measured=[Measured("top-1", side("example", 0.5, "top1"), side("plain", 0.0, "top1"))],
    )
