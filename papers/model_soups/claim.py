"""Soups of eight fine-tuned models, against the best of them.

A ViT learns the colours of things in 8,000 plain scenes of 24 pixels, eight of them. From there
eight runs of the random search learn them in 1,000 scenes of more grounds, textures and noise. The
best run and what goes into the greedy soup are chosen on 500 held-out scenes; all are compared on
2,000 others, and on 2,000 of the first, plain kind.

The card's own trial, on digits, claims accuracy on unseen pictures of the kind that was tuned on,
and no more.

It did not hold: 75.5 % for the greedy soup and 75.1 % for the best run is less than seeds differ
by. Greedy took in two runs of eight on average. The uniform soup is worse than the best run,
71.6 %, and the ensemble as good; on the plain scenes all are alike.

Two designs came before. Shapes instead of colours stayed at chance. With learning rates of 3e-5 to
3e-3 some runs hardly left the start, two of three seeds took the best run alone for the soup, and
the criterion of the time, any gain at all, would have passed by two pictures of 2,000; the present
one asks for twice the standard error, and was set with the present rates before they were tried.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.parts.drawn import drawn
from papers.model_soups.config import small
from papers.model_soups.method import ensemble, greedy, uniform
from vision.config.specs import build
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, train
from vision.run import loop
from vision.run.restore import load_run
from vision.train.objective import Variables

MARGIN = Margin(0.0033, rule="half of the 0.65 points that the authors gain on ImageNet")

RUNS = 8


def pictures(config: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an evaluator's scenes."""
    loader = build(config.evaluators[name].data).loader(process_index=0, process_count=1)
    batches = list(loader)
    images, labels = ([each[key] for each in batches] for key in ("image", "label"))
    return np.concatenate(images), np.concatenate(labels)


def test_a_greedy_soup_is_more_accurate_than_the_best_run(record: Recorder):
    start: Any = drawn(small())
    plain = pictures(start, "test")
    tuned: Any = drawn(small(0))
    held_out, test = pictures(tuned, "held_out"), pictures(tuned, "test")
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            first, start.seed, start.evaluators = Path(folder) / "start", seed, None
            loop.train(start, first, progress_s=math.inf)
            begun, runs = load_run(first).variables, []
            for i in range(RUNS):
                config: Any = drawn(small(i))
                config.init_from.source = f"workdir:{first}"
                runs.append(train(config, seed))
        program = jax.jit(runs[0].predict)

        def logits(variables: Variables, images: np.ndarray, program: Any = program) -> np.ndarray:
            parts = np.split(images, range(500, len(images), 500))
            return np.concatenate([program(variables, {"image": x})["logits"] for x in parts])

        def top1(outputs: np.ndarray, labels: np.ndarray) -> float:
            return float(np.mean(outputs.argmax(-1) == labels))

        members = [run.variables for run in runs]
        soup = greedy(members, lambda v, ask=logits: top1(ask(v, held_out[0]), held_out[1]))
        assert soup.score >= max(soup.scores)
        best = int(np.argmax(soup.scores))
        row: dict[str, float] = {"taken": len(soup.taken)}
        row |= {"best held": soup.scores[best], "greedy held": soup.score}
        for kind, (images, labels) in (("test", test), ("plain", plain)):
            every = [logits(member, images) for member in members]
            alone = [top1(each, labels) for each in every]
            row |= {
                f"start {kind}": top1(logits(begun, images), labels),
                f"mean {kind}": float(np.mean(alone)),
                f"best {kind}": alone[best],
                f"ensemble {kind}": top1(ensemble(every), labels),
                f"greedy {kind}": top1(logits(soup.variables, images), labels),
                f"uniform {kind}": top1(logits(uniform(members), images), labels),
            }
        rows.append(row)

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    best, soup = side("best run", "best test"), side("greedy soup", "greedy test")
    gains = np.subtract(soup.values, best.values)
    float(np.std(gains, ddof=1) / len(gains) ** 0.5)
    record(
        claim="A greedy soup of eight fine-tunes names more of new pictures than the run that is "
        "best on held-out ones.",
        expected="undecided",
        compared=Measured("top-1", soup, best),
        margin=MARGIN,
        scale=Scale(),
        control=None,
        measured=[
            Measured("top-1", side("uniform soup", "uniform test"), best),
            Measured("top-1", side("mean of the runs", "mean test"), side("start", "start test")),
            Measured("top-1", soup, side("ensemble of all", "ensemble test")),
            Measured(
                "top-1, held out", side("greedy soup", "greedy held"), side("best run", "best held")
            ),
            Measured(
                "top-1, plain scenes",
                side("greedy soup", "greedy plain"),
                side("best run", "best plain"),
            ),
            Measured(
                "top-1, plain scenes",
                side("uniform soup", "uniform plain"),
                side("best run", "best plain"),
            ),
            Measured(f"runs of {RUNS} in the soup", side("greedy", "taken")),
        ],
    )
