"""A linear classifier on features learned from six shapes, against pixels, for six other shapes.

A small ResNet learns six shapes in 6,000 scenes of 32 pixels. From 20 images of each of six others
support vector machines are fitted to its features, to those of the same network before training,
and to pixels, and asked about 1,000 images. The margins are those of the card. Retrieval ranks the
1,000 by the plain features, and by the paper's descriptor, fitted on 1,000 scenes of the shapes
that the network knows.

It did not hold: 24.7 % is 7.7 points better than pixels and 8 than untrained features, which both
are at chance, 16.7 %; views took a point, and whitening 1.6 points of mAP. 250 steps are little for
a network that has to tell shapes on any ground in any colour, and how well it tells those that it
was trained on was not recorded, so this says more about the training than about the paper. A first
design, of twice the width and 400 steps, was broken off for its cost before it said anything.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import sklearn
from sklearn.svm import LinearSVC

from configs.parts.drawn import drawn
from papers.cnn_off_the_shelf.config import SEEN, small, unseen
from papers.cnn_off_the_shelf.retrieval import Descriptor
from vision.blocks import ranking
from vision.config.specs import build
from vision.evaluate.evaluator import context, evaluate
from vision.evaluators.image_text.embeddings import embed, normalised
from vision.papers.claims import SEEDS, Margin, Measured, Parity, Recorder, Run, Scale, Side, train
from vision.probes.svm import fit_svm
from vision.train.objective import Variables

MARGIN = Margin(
    0.02, rule="no comparable figure is reported: 2 points (the baselines are other descriptors)"
)

DIMENSION = 32


def pixels(_: Variables, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {"embedding": batch["image"].reshape(len(batch["image"]), -1)}


def rows(run: Run, data: Any) -> dict[str, np.ndarray]:
    with jax.set_mesh(run.mesh):
        given = context(run.variables, run.step, run.mesh)
        return embed(run.predict, given, data, ("embedding",), ("label",))


def mean_ap(vectors: np.ndarray, labels: np.ndarray) -> float:
    """mAP of every image among the others."""
    of = [np.setdiff1d(np.flatnonzero(labels == k), [i]) for i, k in enumerate(labels)]
    places = ranking.rank(vectors, vectors, lambda q: of[q], lambda q: np.asarray([q]))
    return ranking.mean(ranking.average_precision(places))


def test_features_of_other_shapes_beat_pixels(record: Recorder):
    config: Any = drawn(small())
    plain, views = (build(config.evaluators[name]) for name in ("svm", "svm_views"))
    known = build(drawn(unseen("val", 1000, SEEN)))
    values: list[dict[str, float]] = []
    away, init = 0.0, None
    for seed in SEEDS:
        run = train(config, seed)
        batch = next(iter(plain.train.loader(process_index=0, process_count=1)))
        if init is None:
            init = jax.jit(run.experiment.objective.init)
        before = dataclasses.replace(run, variables=init(jax.random.key(seed), batch))

        def asked(evaluator: Any, run: Run, predict: Any = None) -> float:
            numbers, _ = evaluate(
                evaluator, predict or run.predict, run.variables, run.step, run.mesh
            )
            return numbers["top1"]

        fitted, test = rows(run, plain.train), rows(run, plain.test)
        describe = Descriptor.fit(rows(run, known)["embedding"], DIMENSION)
        unit = normalised(test["embedding"])
        values.append(
            {
                "features": asked(plain, run),
                "views": asked(views, run),
                "pixels": asked(plain, run, pixels),
                "untrained": asked(plain, before),
                "plain map": mean_ap(unit, test["label"]),
                "descriptor map": mean_ap(normalised(describe(test["embedding"])), test["label"]),
            }
        )
        near = np.square(unit[:50, None] - unit[None]).sum(-1)
        assert (
            np.diff(np.take_along_axis(near, np.argsort(-unit[:50] @ unit.T, 1), 1)) > -1e-5  # pyright: ignore[reportOperatorIssue]
        ).all()
        x = normalised(fitted["embedding"])
        peer = LinearSVC(C=1.0, dual=False, tol=1e-8, max_iter=10_000).fit(x, fitted["label"])  # pyright: ignore
        svm = fit_svm(x, fitted["label"], 6, 1.0, tolerance=1e-9)
        apart = svm.logits(unit) - peer.decision_function(unit)
        away = max(away, float(np.abs(apart).max()))

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(each[key] for each in values))

    features, with_views = side("learned features", "features"), side("with 16 views", "views")
    raw, untrained = side("pixels", "pixels"), side("untrained network", "untrained")

    record(
        claim="A linear classifier of six shapes is better on features learned from six others "
        "than on pixels.",
        expected="undecided",
        compared=Measured("top-1 of 6 new shapes", features, raw),
        margin=MARGIN,
        scale=Scale(chance=1 / 6),
        control=None,
        measured=[
            Measured("top-1 of 6 new shapes", features, untrained),
            Measured("top-1 of 6 new shapes", with_views, features),
            Measured(
                "mAP of 1,000 images",
                side("whitened descriptor", "descriptor map"),
                side("cosine", "plain map"),
            ),
        ],
        parity=Parity("scikit-learn", sklearn.__version__, away),
    )
