"""Negatives of a ranking loss by side, and the retrieval direction that each improves.

The loss is ``Ranking`` of ``vision.blocks.contrast``, for ``vision.objectives.contrast.Contrast``;
the text tower is a bag of words. Unlike the paper's frozen CNN the image tower is trained, and
there are 8,000 pairs of an image and one caption where the card has 1,000 images with five.

The card calls it retrieval "image to text" that wrong texts help. The three inequalities are of
means over three seeds, and all have to be true.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from configs.parts.small_dual import dual, pairs, read, tokenizer
from vision.blocks.contrast import Pairs, Ranking, contrast
from vision.config.specs import spec
from vision.evaluators.image_text.retrieval import ImageTextRetrieval
from vision.models.bag_of_words import BagOfWords
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")

LENGTH = 20
CAPTIONS = {"caption": "caption_medium", "length": LENGTH}


def recalls(negatives: str, seed: int) -> tuple[float, float]:
    """R@1 of image to text and of text to image, among 512 unseen pairs."""
    words = tokenizer(LENGTH)
    config = dual(
        spec(pairs, split="train", num_examples=8000, **CAPTIONS),
        spec(BagOfWords, vocab_size=words.vocab_size, width=48, hidden=96),
        steps=200,
        criterion=spec(Ranking, margin=0.2, negatives=negatives),
    )
    test = read(pairs("test", 512, **CAPTIONS))
    metrics = measure(train(config, seed), ImageTextRetrieval(test, words, examples=0))
    return metrics["image_to_text_r1"], metrics["text_to_image_r1"]


def test_negatives_decide_the_direction(record: Recorder):
    results = {name: [recalls(name, seed) for seed in SEEDS] for name in ("text", "image", "both")}
    to_text, to_image, total = (
        {name: Side(f"{name} negatives", tuple(map(of, rows))) for name, rows in results.items()}
        for of in (lambda r: r[0], lambda r: r[1], sum)
    )
    record(
        claim="Wrong texts as negatives find more texts by images than wrong images do.",
        expected="undecided",
        compared=Measured("image to text R@1 of 512", to_text["text"], to_text["image"]),
        margin=MARGIN,
        scale=Scale(chance=1 / 512),
        control=None,
        measured=[
            Measured("text to image R@1 of 512", to_image["image"], to_image["text"]),
            Measured("sum of both R@1", total["both"], total["text"]),
            Measured("sum of both R@1", total["both"], total["image"]),
        ],
    )


@pytest.mark.parametrize("negatives", ["text", "image", "both"])
def test_the_loss_is_zero_when_every_negative_is_a_margin_away(negatives):
    scores = jnp.array([[0.9, 0.5, 0.1], [0.5, 0.75, 0.3], [0.2, 0.3, 0.6]])
    identity = jnp.eye(3)
    given = Pairs(scores, scores, identity, identity == identity)
    assert contrast(Ranking(0.2, negatives), {}, given).loss == 0
    assert contrast(Ranking(0.32, negatives), {}, given).loss > 0
