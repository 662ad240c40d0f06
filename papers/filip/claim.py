"""Late interaction against one vector per image and text: localisation of words, and retrieval.

Two things in a scene, patches of 6 pixels of 24, the same towers, captions and steps; only the
similarity differs. A word for a colour or a shape, where one thing alone has it, points at the
patch that is most like it, and is right where more of its thing is seen in that patch than of the
other. The model of one vector points twice, by its word in the caption and by a caption of that
word alone ("a red thing"), and the better of both counts.

The card asks for at least 70 % and at most 40 % of words, and for R@1 that is not below. Its size
(batch 64 and patches of 8 pixels of 32, or selected tokens) is not run: 24 pixels are.

Two of the three held: 91 % of words pointed right, a patch at random would in 21 % of cases, and
R@1 was 70 % against 61 %. The model of one vector was better than the card has it, 41 % by its word
in the caption and 54 % by the word alone: its image is the mean of its patches, so that each patch
lies in the space of the texts.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from configs.parts.drawn import drawn
from configs.parts.small_pairs import COLOURS, SHAPES
from papers.filip.config import small
from papers.filip.method import point, scores, target_rank
from vision.blocks.similarity import Dot
from vision.config.specs import build, spec
from vision.data.sources.scenes import Scenes, render
from vision.data.tokenizers import WordTokenizer
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Run, Scale, Side, train
from vision.train.tower import forward

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")

Arrays = dict[str, np.ndarray]


def answers(run: Run, batch: Arrays) -> Arrays:
    """What the model gives for the images, texts or both of a batch."""

    @jax.jit
    def program(params: Any, state: Any, batch: Any) -> dict[str, jax.Array]:
        model: Any = run.experiment.model
        out = forward(model, params, state, batch, train=False)[1]
        return {k: out[k] for k in out if k.endswith(("/tokens", "/embedding", "/mask"))}

    inputs = {name: batch[name] for name in ("image", "text") if name in batch}
    variables = run.variables
    outputs = program(variables.params["model"], variables.model_state["model"], inputs)
    return {name: np.asarray(x) for name, x in outputs.items()}


def telling_words(
    source: Scenes, texts: np.ndarray, words: WordTokenizer
) -> list[tuple[int, int, int, str]]:
    """Scene, place in its caption, thing and word, of words that are true of one thing alone."""
    named = []
    for i, text in enumerate(texts):
        things = source.scene(i).objects
        for k, thing in enumerate(things):
            other_thing = things[1 - k]
            for word in {thing.colour, thing.shape} - {other_thing.colour, other_thing.shape}:
                (place,) = np.flatnonzero(text == words.split(word)[0])
                named.append((i, int(place), k, word))
    return sorted(named)


def shown(source: Scenes, patch: int) -> np.ndarray:
    """Pixels (scenes, things, patches) of every thing in every patch."""
    masks = np.stack(
        [render(source.scene(i), source.image_shape).masks for i in range(len(source))]
    )
    scenes, things, size = masks.shape[:3]
    side = size // patch
    grid = masks.reshape(scenes, things, side, patch, side, patch).sum((3, 5))
    return grid.reshape(scenes, things, side * side)


def test_words_point_at_what_they_name(record: Recorder):
    config: Any = small()
    source = build(config.evaluators["retrieval"].data.source)
    patch: int = config.model.image.patch
    config = drawn(config)
    data = build(config.evaluators["retrieval"].data)
    tests = next(data.loader(process_index=0, process_count=1))
    plain = drawn(small())
    plain.objective.similarity = spec(Dot)

    tokenizer: WordTokenizer = build(config.data.ops[-1].tokenizer)
    pixels, words = shown(source, patch), telling_words(source, tests["text"], tokenizer)
    scene, place, thing = (np.asarray([each[i] for each in words]) for i in range(3))
    alone = [f"a {word} thing" if word in COLOURS else f"a {word}" for *_, word in words]
    assert {word for *_, word in words} == {*COLOURS, *SHAPES}

    def right(patch: np.ndarray) -> float:
        return float(np.mean(pixels[scene, thing, patch] > pixels[scene, 1 - thing, patch]))

    rows = []
    for seed in SEEDS:
        late = answers(train(config, seed), tests)
        late_scores = scores(late["image/tokens"], late["text/tokens"], late["text/mask"])
        run = train(plain, seed)
        outputs = answers(run, tests)
        embedded = answers(run, {"text": tokenizer.encode(alone)})["text/embedding"]
        product = outputs["image/embedding"] @ outputs["text/embedding"].T
        rows.append(
            {
                "late": right(point(late["image/tokens"], late["text/tokens"])[scene, place]),
                "word": right(point(outputs["image/tokens"], outputs["text/tokens"])[scene, place]),
                "alone": right(point(outputs["image/tokens"][scene], embedded[:, None])[:, 0]),
                "late to text": float(np.mean(target_rank(late_scores[0]) < 1)),
                "whole to text": float(np.mean(target_rank(product) < 1)),
                "late to image": float(np.mean(target_rank(late_scores[1].T) < 1)),
                "whole to image": float(np.mean(target_rank(product.T) < 1)),
            }
        )

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    late, single = "late interaction", "one vector"
    points = side(late, "late")
    others = side(f"{single}, word in the caption", "word"), side(f"{single}, word alone", "alone")
    max(others, key=lambda each: each.mean)
    chance = float(np.mean(pixels[scene, thing] > pixels[scene, 1 - thing]))
    to_text = side(late, "late to text"), side(single, "whole to text")
    record(
        claim="By late interaction more words point at their thing than by one vector.",
        expected="undecided",
        compared=Measured(f"of {len(words)} words, right", points, others[1]),
        margin=MARGIN,
        scale=Scale(chance=chance),
        control=None,
        measured=[
            *(Measured(f"of {len(words)} words, right", points, each) for each in others),
            Measured("of words, right", points, Side("any patch", (chance,))),
            Measured(f"image to text R@1 of {len(source)}", *to_text),
            Measured(
                f"text to image R@1 of {len(source)}",
                side(late, "late to image"),
                side(single, "whole to image"),
            ),
        ],
    )
