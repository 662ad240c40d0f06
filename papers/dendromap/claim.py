"""Ward's tree of digits by their pixels, its treemap, and a style on which a classifier fails.

Half of the digits teach a logistic regression; of the other half every tenth is shown as a
negative, a style that it has never seen. The tree is that of the pixels of this half.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.datasets
import sklearn.linear_model
import sklearn.metrics

from papers.dendromap.method import ORDERS, treemap
from papers.dendromap.subgroups import worst_subgroup
from papers.dendromap.ward import ward
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="a user study, no figure: 2 points")


def test_a_tree_of_pixels_shows_classes_and_finds_a_style_that_fails(record: Recorder):
    digits: Any = sklearn.datasets.load_digits()
    pixels, labels = digits.data / 16, digits.target
    tree = ward(pixels)
    information = sklearn.metrics.normalized_mutual_info_score(labels, tree.labels(10))
    largest = 0.0
    for by in ORDERS:
        for k in (24, len(pixels)):
            boxes = treemap(tree, tree.cut(k, by=by))
            areas = np.asarray([w * h for _, _, w, h in boxes.values()])
            largest = max(
                largest, float(np.abs(areas * len(pixels) / tree.count[[*boxes]] - 1).max())
            )
    assert tree.cut(len(pixels), by="max_node_count") == list(range(len(pixels)))
    rows = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(len(pixels))
        train, test = np.split(order, [len(order) // 2])
        shown = pixels[test].copy()
        planted = np.arange(len(test)) % 10 == 0
        shown[planted] = 1 - shown[planted]
        model = sklearn.linear_model.LogisticRegression(max_iter=300)
        predicted = model.fit(pixels[train], labels[train]).predict(shown)
        correct = predicted == labels[test]
        ward_tree = ward(shown)
        node, share = worst_subgroup(ward_tree, correct, 20)
        points, start = ward_tree.order()
        held = points[start[node] : start[node] + ward_tree.count[node]]
        by_class = [1 - correct[labels[test] == c].mean() for c in range(10)]
        rows.append((1 - share, 1 - correct.mean(), max(by_class), planted[held].mean()))
    worst, mean, classes, style = (
        tuple(float(v) for v in each) for each in zip(*rows, strict=True)
    )
    record(
        claim="The worst subgroup of Ward's tree has a higher error than the worst class where a "
        "style fails.",
        expected="undecided",
        compared=Measured("error", Side("worst subgroup", worst), Side("worst class", classes)),
        margin=MARGIN,
        scale=Scale(),
        control=None,
        measured=[
            Measured("normalized mutual information", Side("Ward cut at 10", (information,))),
            Measured("relative error of an area", Side("largest of six treemaps", (largest,))),
            Measured("error", Side("worst subgroup", worst), Side("mean", mean)),
            Measured("share of the planted style", Side("in the worst subgroup", style)),
        ],
    )
