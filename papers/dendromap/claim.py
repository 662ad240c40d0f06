"""Ward's tree of digits by their pixels, and a style on which a classifier fails.

Half of the digits teach a logistic regression. Of the others every tenth is shown as a negative, a
style that it has never seen. On half of these the tree of their pixels is built and its worst
subgroup of at least 20 is looked for, and the class with the most errors; what is reported are the
errors on the other half, where a picture belongs to the subgroup when its nearest neighbour does.
What was chosen for its errors has many of them; on other pictures it need not.

The control searches a tree of the same pictures under each other's names, which knows nothing of
which of them were wrong. That areas of a treemap are counts is a test.

Held: everything in the subgroup is wrong, 18 % in the worst class and 17 % in the subgroup of the
shuffled tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn.datasets
import sklearn.linear_model

from papers.dendromap.subgroups import worst_subgroup
from papers.dendromap.ward import ward
from vision.papers.claims import SEEDS, Margin, Measured, Premise, Recorder, Scale, Side

MARGIN = Margin(0.02, rule="a user study, no figure: 2 points")
LEAST = 20


def errors(seed: int) -> dict[str, float]:
    """Of a classifier on pictures that nothing was chosen by."""
    digits: Any = sklearn.datasets.load_digits()
    pixels, labels = digits.data / 16, digits.target
    rng = np.random.default_rng(seed)
    train, test = np.split(rng.permutation(len(pixels)), [len(pixels) // 2])
    shown, planted = pixels[test].copy(), np.arange(len(test)) % 10 == 0
    shown[planted] = 1 - shown[planted]
    model = sklearn.linear_model.LogisticRegression(max_iter=300)
    wrong = model.fit(pixels[train], labels[train]).predict(shown) != labels[test]
    chosen = rng.permutation(len(test)) < len(test) // 2
    classes = labels[test]
    worst = max(range(10), key=lambda c: wrong[chosen & (classes == c)].mean())
    return {
        "subgroup": in_subgroup(shown, wrong, chosen),
        "shuffled": in_subgroup(shown, wrong, chosen, rng),
        "class": float(wrong[~chosen & (classes == worst)].mean()),
        "mean": float(wrong[~chosen].mean()),
        "planted": float(wrong[planted].mean()),
    }


def in_subgroup(
    shown: np.ndarray, wrong: np.ndarray, chosen: np.ndarray, rng: np.random.Generator | None = None
) -> float:
    """Share of errors among the pictures outside of ``chosen`` that fall into its worst subgroup.

    With ``rng`` the pictures of the tree stand under each other's names.
    """
    x = shown[chosen]
    tree = ward(x if rng is None else rng.permutation(x))
    node, _ = worst_subgroup(tree, ~wrong[chosen], LEAST)
    points, start = tree.order()
    members = np.zeros(len(x), bool)
    members[points[start[node] : start[node] + tree.count[node]]] = True
    away = np.square(shown[~chosen][:, None] - x[None]).sum(-1)
    inside = members[away.argmin(1)]
    return float(wrong[~chosen][inside].mean())


def test_a_subgroup_of_the_tree_fails_more_than_a_class(record: Recorder):
    rows = [errors(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    subgroup, by_class = side("worst subgroup", "subgroup"), side("worst class", "class")
    what = "error on pictures that nothing was chosen by"
    record(
        claim="The worst subgroup of Ward's tree has a higher error than the worst class where a "
        "style fails.",
        expected="held",
        compared=Measured(what, subgroup, by_class),
        margin=MARGIN,
        scale=Scale(),
        premises=[
            Premise("error of the planted style", side("", "planted").values, at_least=0.5),
            Premise("mean error", side("", "mean").values, at_most=0.3),
        ],
        control=Measured(what, side("subgroup of a shuffled tree", "shuffled"), by_class),
        measured=[Measured(what, subgroup, side("mean", "mean"))],
    )
