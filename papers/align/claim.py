"""Noise against scale, the filtering rules, and composed queries of an image and a text.

Three captions in ten belong to another scene. The card asks that twice as many noisy pairs are as
good as the clean ones; both are seen for 450 steps, 14 epochs of the fewer, so that how many there
are can matter. It asks that the rules remove nine in ten boilerplate captions, planted here on 5 %
of a corpus of captions that are true of one image each, and no caption that is unique; and that
"this image, but blue and not red" finds more than the image alone, which is taken as twice the R@5.

The first is not so: R@1 is 0.10 against 0.40, and the noisy arm differs by a factor of five between
seeds. Neither arm is trained to its end; whether scale makes up for noise in longer runs is open.
The other two are so.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import numpy as np

from configs.parts.drawn import drawn
from configs.parts.small_pairs import COLOURS, retrieval, scenes, tokenizer
from papers.align.config import CAPTION, WORLD, small
from papers.align.method import AltTextRules
from vision.config.specs import build
from vision.data.ops import ValueRange
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.evaluators.image_text.composed import ComposedRetrieval
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Run, Scale, Side, measure, train

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")

PAIRS, TESTS, STEPS = 2000, 512, 450
BOILERPLATE = ("click to enlarge the picture", "image not found on this page", "buy now and save")


def trained(size: int, noise: float, seed: int) -> Run:
    config = drawn(small(size, noise))
    config.total = f"{STEPS} steps"
    return train(config, seed)


def recall(run: Run) -> float:
    """Mean of R@1 both ways among unseen pairs."""
    evaluator = retrieval(tokenizer(), caption=CAPTION, world=WORLD, examples=TESTS)
    metrics = measure(run, build(drawn(evaluator)))
    return (metrics["image_to_text_r1"] + metrics["text_to_image_r1"]) / 2


def composed(run: Run) -> tuple[float, float]:
    """R@5 of an image in another colour by image and words, and by the image alone."""
    source = build(
        drawn(scenes("query", 640, ("image", "label"), label="shape_colour", num_objects=(1, 1)))
    )
    image, label = source.arrays["image"], source.arrays["label"]
    colour = label % len(COLOURS)
    new_colour = (colour + 1 + np.arange(len(label)) % (len(COLOURS) - 1)) % len(COLOURS)
    words = build(tokenizer())
    ids = words.encode([f"a {name} thing" for name in COLOURS])
    queries = {
        "image": image,
        "text": ids[new_colour],
        "text_minus": ids[colour],
        "target": (label - colour + new_colour).astype(np.int32),
        "own": label,
    }

    def data(arrays: dict[str, np.ndarray]) -> EvalData:
        scaled = (ValueRange(low=-1, high=1),)
        return EvalData(Arrays(arrays, "queries"), batch_size=320, ops=scaled, threads=0)

    gallery = {"image": image, "label": label}
    metrics = measure(run, ComposedRetrieval(data(queries), data(gallery), exclude="own"))
    return metrics["r5"], metrics["image_only_r5"]


def cleaned() -> tuple[float, float]:
    """The shares of boilerplate and of unique captions that the rules remove."""
    captions = build(drawn(scenes("alt", 4000, ("caption_long",), num_objects=(2, 2))))
    texts = captions.arrays["caption_long"].tolist()
    rng = np.random.default_rng(0)
    planted = rng.random(len(texts)) < 0.05
    for place in np.flatnonzero(planted):
        texts[place] = BOILERPLATE[int(rng.integers(len(BOILERPLATE)))]
    sizes = np.full((len(texts), 2), 400)
    removed = AltTextRules(words=(3, 100))(range(len(texts)), sizes, texts)
    gone = np.any([*removed.values()], 0)
    unique = np.asarray([texts.count(text) == 1 for text in texts])
    return float(gone[planted].mean()), float(gone[unique & ~planted].mean())


def test_scale_makes_up_for_noise(record: Recorder):
    runs = {
        name: [trained(size, noise, seed) for seed in SEEDS]
        for name, size, noise in (
            ("4,000 pairs, 30 % wrong", 2 * PAIRS, 0.3),
            ("2,000 pairs", PAIRS, 0.0),
        )
    }
    twice, clean = (Side(name, tuple(map(recall, each))) for name, each in runs.items())
    accuracies = [composed(run) for run in runs[twice.name]]
    both, alone = (
        Side(name, tuple(row[i] for row in accuracies))
        for i, name in enumerate(("image and words", "image alone"))
    )
    boilerplate, unique = cleaned()
    record(
        claim="Twice as many pairs, 30 % of them wrong, teach more than half as many clean ones.",
        expected="undecided",
        compared=Measured(f"R@1 of {TESTS}", twice, clean),
        margin=MARGIN,
        scale=Scale(chance=1 / TESTS),
        control=None,
        measured=[
            Measured(
                "share that the rules remove",
                Side("boilerplate", (boilerplate,)),
                Side("unique captions", (unique,)),
            ),
            Measured("R@5 of a thing in another colour", both, alone),
        ],
    )
