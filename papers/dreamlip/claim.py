"""A caption with three sentences of a longer one, against the caption alone; with groups or not.

Three things in a scene, patches of 6 pixels of 24. All models have the same towers and steps of as
many images, and are asked for images by the short caption, which is all that the first is taught
with. Pixels are named by the text that is most like their patch, of three backgrounds ("the
background is paper") and eight colours ("a red thing"): shapes are learned late here, and would
measure that.

The card asks for 5 points of R@1 by sentences, and with groups of patches 5 points of mIoU at an
R@1 "within 1", which is taken to mean that it loses no more than a point.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from typing import Any

from configs.parts.drawn import drawn
from papers.dreamlip.config import small
from vision.config.specs import build, spec
from vision.data import ops
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")


def arms() -> dict[str, Any]:
    """Configs by what they have of the method."""
    both, sentences, caption = (drawn(small()) for _ in range(3))
    # At weight 0 the groups teach nothing, and patches are given to the evaluator all the same.
    sentences.objective.grouping.weight = caption.objective.grouping.weight = 0.0
    tokenizer = both.data.ops[-1].tokenizer
    caption.data.ops = (
        spec(ops.Drop, features=("caption_long",)),
        spec(ops.Tokenize, tokenizer=tokenizer, feature="caption"),
    )
    return {"both": both, "sentences": sentences, "caption": caption}


def test_sentences_find_images_and_groups_name_pixels(record: Recorder):
    asked = {"retrieval": "text_to_image_r1", "segments": "miou"}
    evaluators = {n: build(drawn(small()).evaluators[n]) for n in asked}
    rows: dict[str, list[dict[str, float]]] = {}
    for name, config in arms().items():
        rows[name] = []
        for seed in SEEDS:
            run = train(config, seed)
            rows[name].append({n: measure(run, evaluators[n])[of] for n, of in asked.items()})

    names = {"both": "sentences and groups", "sentences": "sentences", "caption": "short caption"}

    def side(arm: str, number: str) -> Side:
        return Side(names[arm], tuple(row[number] for row in rows[arm]))

    sides = {arm: side(arm, "retrieval") for arm in rows}
    pixels = {arm: side(arm, "segments") for arm in rows}
    record(
        claim="Sentences of a longer caption add to the text to image recall of a short caption.",
        expected="undecided",
        compared=Measured("text to image R@1 of 256", sides["sentences"], sides["caption"]),
        margin=MARGIN,
        scale=Scale(chance=1 / 256),
        control=None,
        measured=[
            Measured("text to image R@1 of 256", sides["both"], sides["sentences"]),
            Measured("mIoU of 11 classes", pixels["both"], pixels["sentences"]),
            Measured("mIoU of 11 classes", pixels["sentences"], pixels["caption"]),
        ],
    )
