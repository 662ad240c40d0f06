"""Entities linked in captions: how clean the labels are, and the features learned from them.

Entities are thirty pairs of a colour and a shape; three captions in ten name a wrong one. One
contrastive model, of a seed of its own, learns from all captions, and the half of the images that
it finds most like the text of their entity is kept; the paper's threshold is not confirmed, the
median is ours. From what is kept three models learn for as many steps, 300: the classifier alone,
the contrast alone, both. Each is measured by the embedding that it was trained for, both by that
of the classifier and, in zero-shot classification, by that of the contrast.

The card asks that the filter raises the share of true labels to at least 0.9, that in mAP of
images by images the classifier beats the contrast and both are within half a point of the best,
and that zero-shot both are within a point of the contrast.

It did not hold, for one of the three: kept images are rightly named in 95 % and not in 70 %, and
zero-shot both name 44.0 % where the contrast alone names 40.3 %; but in mAP the classifier, 0.339,
is behind the contrast, 0.375, and both, 0.373, are ahead of the classifier only.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from configs.parts.drawn import drawn
from configs.parts.small_dual import embed
from papers.mofi.config import DESCRIPTIONS, ENTITIES, noisy, of_entities, scenes, small
from papers.mofi.entities import Gazetteer, depicted, frequent, linked
from vision.config.specs import build, spec
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluators.image_text.retrieval import ImageRetrieval
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Run, Scale, Side, measure, train

MARGIN = Margin(
    0.072, rule="half of the 14.5 points of mAP that the authors gain over CLIP on GPR1200"
)

MODELS = {
    "classifier": {"contrast_weight": 0.0},
    "contrast": {"entity_weight": 0.0},
    "both": {},
}
STEPS = 300


def trained(config: Any, seed: int) -> Run:
    config.total = f"{STEPS} steps"
    return train(config, seed)


def asked() -> Any:
    """Zero-shot classification of the config."""
    config: Any = small()
    return config.evaluators.zero_shot


def records() -> Arrays:
    return build(drawn(noisy()))


@functools.cache
def kept() -> Arrays:
    """The images that a contrastive model finds like their entity, labelled with it."""
    columns = records().arrays
    run = trained(drawn(of_entities(noisy(), entity_weight=0.0)), seed=len(SEEDS))
    tokenizer = build(asked().tokenizer)
    texts = [f"{name} {text}" for name, (text,) in zip(ENTITIES, DESCRIPTIONS, strict=True)]
    images = embed(run, "image", columns["image"])
    entities = embed(run, "text", tokenizer.encode(texts))
    pairs = linked(columns["caption"].tolist(), Gazetteer(ENTITIES))
    cosine = np.einsum("pd,pd->p", images[pairs[:, 0]], entities[pairs[:, 1]])
    pairs = frequent(depicted(pairs, images, entities, float(np.median(cosine))), fewest=10)
    rows = pairs[:, 0]
    arrays = {"image": columns["image"][rows], "label": pairs[:, 1].astype(np.int32)}
    return Arrays({**arrays, "true": columns["label"][rows]}, "kept")


def precision(labels: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean(labels == true))


def by_images(run: Run) -> float:
    """mAP of unseen images by others of the same entity."""
    source = build(drawn(scenes("test", 600, ("image", "label"))))
    data = EvalData(source, batch_size=200, ops=(ops.ValueRange(low=-1, high=1),), threads=0)
    return measure(run, ImageRetrieval(data, examples=0))["map"]


def zero_shot(run: Run) -> float:
    return measure(run, build(drawn(asked())))["top1"]


def test_entities_teach_an_image_tower(record: Recorder):
    columns = records().arrays
    pairs = linked(columns["caption"].tolist(), Gazetteer(ENTITIES))
    raw = precision(pairs[:, 1], columns["label"][pairs[:, 0]])
    cleaned = precision(kept().arrays["label"], kept().arrays["true"])

    runs = {
        name: [trained(of_entities(spec(kept), link=False, **weights), seed) for seed in SEEDS]
        for name, weights in MODELS.items()
    }
    maps = {name: Side(name, tuple(map(by_images, each))) for name, each in runs.items()}
    zero = {name: Side(name, tuple(map(zero_shot, runs[name]))) for name in ("contrast", "both")}
    filtered = Side("kept", (cleaned,))
    record(
        claim="A classifier of entities finds images by images better than contrast with their "
        "texts.",
        expected="undecided",
        compared=Measured("mAP of images by images", maps["classifier"], maps["contrast"]),
        margin=MARGIN,
        scale=Scale(chance=1 / 30),
        control=None,
        measured=[
            Measured("share of true labels", filtered, Side("linked", (raw,))),
            Measured("mAP of images by images", maps["both"], maps["classifier"]),
            Measured("zero-shot accuracy of 30 entities", zero["both"], zero["contrast"]),
        ],
    )
