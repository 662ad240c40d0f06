"""Soups: one model from all runs of a search, where usually the best is kept.

Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time, 2022. Headline: 81.03 % on ImageNet by the greedy soup of 72
fine-tunes of CLIP ViT-B/32, 80.38 % by the best of them; 90.94 % by ViT-G.

From the same start theta_0 (trained weights and a head that was fitted to them alone), runs i with
hyper-parameters h_i drawn at random give theta_i = FineTune(theta_0, h_i). Then

    uniform    theta = 1/n sum_i theta_i
    greedy     runs sorted by accuracy on held-out pictures, S = {}; for each run i in turn
                   S <- S + {i}   if Acc(mean of S + {i}) >= Acc(mean of S)
               theta = mean of S
    ensemble   logits(x) = 1/n sum_i f(x; theta_i), n times the cost; what soups are compared with

Known from this: a soup of copies is the model; of a model whose logits are linear in its weights
it is the ensemble; the greedy soup is never below the best run on the held-out pictures. Runs of
different starts have no common valley, and their mean is no model.

``evaluate.py --average`` makes soups of finished runs; here they are made of models in memory, by
the same ``mean`` and ``greedy`` of ``vision.weights.average``.

Not here: the learned soup, whose shares are trained on held-out pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from vision.train.objective import Variables
from vision.weights import average


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a fine-tune, h_i.

    Attributes:
      learning_rate: highest of the schedule.
      weight_decay: decoupled; multiplied by the learning rate.
      epochs: length of the run.
      label_smoothing: share of the uniform distribution in the target.
      mixup: alpha of its Beta distribution; 0 for none.
      augmentations: operations of RandAugment per picture.
      magnitude: of these operations, 0..10.
    """

    learning_rate: float
    weight_decay: float
    epochs: int
    label_smoothing: float
    mixup: float
    augmentations: int
    magnitude: float


def recipe(run: int, seed: int = 0) -> Recipe:
    """The recipe of run number ``run`` of a random search; it depends on no other run.

    Learning rate 1e-6..1e-4 and decay 1e-4..1, both even in the logarithm; 4 to 16 epochs; in half
    of the runs label smoothing up to 0.25, in half mixup up to 0.9; RandAugment of 0 to 2
    operations. The paper's magnitudes, 0 to 20, are on another scale; here it is all of ours.

    Raises:
      ValueError: a negative number of a run.
    """
    if run < 0:
        raise ValueError(f"run={run}: runs are counted from 0")
    draw = np.random.default_rng([seed, run])
    return Recipe(
        learning_rate=float(f"{10 ** draw.uniform(-6, -4):.2e}"),
        weight_decay=float(f"{10 ** draw.uniform(-4, 0):.2e}"),
        epochs=int(draw.integers(4, 17)),
        label_smoothing=_sometimes(draw, 0.25),
        mixup=_sometimes(draw, 0.9),
        augmentations=int(draw.integers(0, 3)),
        magnitude=round(draw.uniform(0, 10), 1),
    )


def _sometimes(draw: np.random.Generator, most: float) -> float:
    value = round(draw.uniform(0, most), 3)
    return value if draw.random() < 0.5 else 0.0


@dataclasses.dataclass(frozen=True)
class Soup:
    """A greedy soup.

    Attributes:
      variables: of the model.
      taken: numbers of the runs in it, in the order in which they came in.
      scores: of every run alone, on held-out pictures.
      score: of the soup on these; never below the best of ``scores``.
    """

    variables: Variables
    taken: tuple[int, ...]
    scores: tuple[float, ...]
    score: float


def uniform(members: Sequence[Variables]) -> Variables:
    """The mean of models; statistics of BatchNorm are averaged like parameters.

    Raises:
      ValueError: no models.
    """
    if not members:
        raise ValueError("a soup needs at least one model")
    return average.variables_of(average.mean([*map(average.arrays_of, members)]), members[0])


def greedy(members: Sequence[Variables], score: Callable[[Variables], float]) -> Soup:
    """The greedy soup of models.

    Args:
      members: theta_i.
      score: of a model on held-out pictures, larger is better; ties take a run in.

    Raises:
      ValueError: no models.
    """
    if not members:
        raise ValueError("a soup needs at least one model")
    arrays = [average.arrays_of(member) for member in members]
    alone = [score(member) for member in members]
    scores, taken, best = average.greedy(
        alone, arrays, lambda mean: score(average.variables_of(mean, members[0]))
    )
    return Soup(uniform([members[i] for i in taken]), tuple(taken), tuple(scores), best)


def ensemble(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Mean logits (B, K) of those of every model."""
    return np.mean(logits, axis=0)
