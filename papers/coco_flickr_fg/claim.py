"""Galleries with similar images, against galleries with as many random images.

Two hundred scenes of one thing, each with a caption that tells all of it, less those that share
theirs. To these come four images per target: any others; near-duplicates, which differ in colour,
shape, size or place alone; or those of a pool of 4,000 that look most like the targets to the
model of another seed. Images of which a target's caption is true are left out everywhere. The card
asks that R@1 among near-duplicates is at least 25 % below that among random images, and that
captions which name the changed thing beat coarse ones, which are taken to be those that tell
colour and shape.

A model that finds nothing says nothing about galleries: R@1 among the targets alone has to be at
least 0.3. That bar, 600 steps and captions that tell more came after a run of 250 steps, in which
both inequalities were true of 0.004, 0.005 and 0.002, a hit or less in 188, at 0.03 among the
targets alone; it is not counted as held.

The first half did not hold, the second did: among near-duplicates R@1 was 0.069, and 0.078 among
random images, of 0.33 without either; with coarse captions it was 0.011. Scenes of one thing have
5,184 descriptions, and these models choose the wrong image two times in five when only shape or
place is another, so that as many random images hold almost as many that they confuse. The card saw
0.285 and 0.44 with a larger model on two things in a picture.

The card also expects place to be the detail that models miss most. That is measured, and not part
of the claim: here it is shape, then place.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import numpy as np

from configs.parts.small_dual import (
    dual,
    embed,
    images,
    pairs,
    tokenizer,
    world,
)
from configs.parts.small_pairs import transformer
from papers.coco_flickr_fg.method import look_alikes, preferred
from vision.blocks import ranking
from vision.config.specs import spec
from vision.data.sources.scenes import Scene, Scenes, agrees, apply, caption, describe
from vision.data.sources.scenes.triplets import draw_edits
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Run, Scale, Side, train

MARGIN = Margin(0.02, rule="no comparable figure is reported: 2 points")

LENGTH, TARGETS = 18, 200
KINDS = ("colour", "shape", "size", "move")
ONE = {"caption": "caption_long", "num_objects": (1, 1)}


def trained(seed: int) -> Run:
    source = spec(pairs, split="train", num_examples=8000, length=LENGTH, least_told=0.7, **ONE)
    return train(dual(source, transformer(tokenizer(LENGTH)), steps=600), seed)


def near_duplicate(scenes: Scenes, index: int, kind: str) -> Scene:
    """Scene ``index`` after one edit of a kind that its caption tells."""
    scene = scenes.scene(index)
    for attempt in range(20):
        numbers = iter(scenes.uniforms(index, f"{kind} {attempt}", 24 * 8))
        edited = apply(scene, *draw_edits(scenes, scene, 1, (kind,), numbers))
        if not agrees(describe(scene, "long"), edited):
            return edited
    raise AssertionError(f"scene {index} has no other {kind}")


def found_share(texts: np.ndarray, targets: np.ndarray, *more: np.ndarray) -> float:
    """R@1 of text i for target i in a gallery with more images."""
    gallery = np.concatenate([targets, *more])
    places = ranking.rank(texts, gallery, lambda query: np.array([query]))
    return ranking.mean(ranking.hit(places, 1))


def test_look_alikes_are_what_makes_retrieval_hard(record: Recorder):
    tests = world("test", TARGETS, **ONE)
    targets = [tests.scene(i) for i in range(TARGETS)]
    captions = [describe(scene, "long") for scene in targets]
    true_once = [i for i in range(TARGETS) if sum(agrees(captions[i], s) for s in targets) == 1]
    targets, captions = [targets[i] for i in true_once], [captions[i] for i in true_once]
    source = world("pool", 4000, **ONE)
    pool = [
        scene
        for scene in map(source.scene, range(len(source)))
        if not any(agrees(meaning, scene) for meaning in captions)
    ]
    changed = {kind: [near_duplicate(tests, i, kind) for i in true_once] for kind in KINDS}
    fine, coarse = (
        np.asarray(tokenizer(LENGTH).encode([caption(scene, detail) for scene in targets]))
        for detail in ("long", "short")
    )

    count = len(targets)
    more = count * len(KINDS)
    runs = [trained(seed) for seed in SEEDS]
    pictures = images(targets), images(pool)
    embeddings = [[embed(run, "image", each) for each in pictures] for run in runs]
    rows = []
    for seed, run in enumerate(runs):
        target_images, others = embeddings[seed]
        near = {kind: embed(run, "image", images(each)) for kind, each in changed.items()}
        elsewhere = embeddings[(seed + 1) % len(runs)]
        targets_elsewhere, others_elsewhere = elsewhere
        alike = others[look_alikes(targets_elsewhere, others_elsewhere, more)]
        long, short = (embed(run, "text", each) for each in (fine, coarse))
        rows.append(
            {
                "none": found_share(long, target_images),
                "random": found_share(long, target_images, others[:more]),
                "near": found_share(long, target_images, *near.values()),
                "alike": found_share(long, target_images, alike),
                "coarse": found_share(short, target_images, *near.values()),
                **{kind: preferred(long, target_images, near[kind]) for kind in KINDS},
            }
        )
    side = {name: Side(name, tuple(row[name] for row in rows)) for name in rows[0]}

    print(*side.values(), sep="\n")
    assert side["none"].mean >= 0.3, "the models are too weak to compare galleries with"

    def called(name: str, title: str) -> Side:
        return Side(title, side[name].values)

    random = called("random", "random images")
    record(
        claim="Near-duplicates in the gallery cost more recall than as many random images.",
        expected="undecided",
        compared=Measured(f"R@1 of {count} + {more}", random, called("near", "near-duplicates")),
        margin=MARGIN,
        scale=Scale(chance=1 / (count + more)),
        control=None,
        measured=[
            Measured(f"R@1 of {count} + {more}", called("alike", "look-alikes of a pool"), random),
            Measured(f"R@1 of {count} + {more}", random, called("none", "nothing added")),
            Measured(
                "R@1 among near-duplicates",
                called("near", "fine captions"),
                called("coarse", "coarse captions"),
            ),
            *(
                Measured(f"wrong image preferred, {kind} changed", called(kind, "model"))
                for kind in KINDS
            ),
        ],
    )


def test_look_alikes_are_chosen_in_turn_and_once():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(60, 8)).astype(np.float32)
    targets = rng.normal(size=(2, 8)).astype(np.float32)
    scores = targets @ pool.T
    by_hand: list[int] = []
    for turn in range(20):
        order = np.argsort(-scores[turn % 2]).tolist()
        by_hand.append(next(i for i in order if i not in by_hand))
    assert look_alikes(targets, pool, 20).tolist() == by_hand
    assert sorted(look_alikes(targets, pool, 60)) == list(range(60))
