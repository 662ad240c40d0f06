"""Networks trained on ten images: distilled by attention, by mean features, or real ones.

One image per class is distilled from the digits that ship, in 120 steps of a fresh random network
each; then three fresh networks learn from nothing else, in 300 steps under the same augmentation,
and are tested on real digits. The control are the real images that distillation begins with, which
do not move.
"""

from __future__ import annotations

from typing import Any

from papers.datadam.config import small
from vision.config.specs import build
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(
    0.03,
    rule="half of the 6 points that the authors gain over distribution matching "
    "on CIFAR-10 with one image per class",
)


def test_attention_teaches_more_than_mean_features_and_than_real_images(record: Recorder):
    results: dict[str, list[float]] = {"DataDAM": [], "mean features": [], "real images": []}
    for seed in SEEDS:
        for name, rows in results.items():
            config: Any = small(attention=name != "mean features")
            evaluator = build(config.evaluators)["test"]
            if name == "real images":  # the images do not move from where they begin
                config.total, config.optimizer.learning_rate = "1 steps", 1e-12
            rows.append(measure(train(config, seed), evaluator)["top1"])
    dam, features, real = (Side(name, tuple(rows)) for name, rows in results.items())
    what = "top-1 of taught networks"
    record(
        claim="Networks taught by ten images that were distilled by attention are right more often "
        "than those taught by images distilled by mean features.",
        expected="undecided",
        compared=Measured(what, dam, features),
        margin=MARGIN,
        scale=Scale(chance=0.1),
        control=Measured(what, real, features),
        measured=[Measured(what, dam, real)],
    )
