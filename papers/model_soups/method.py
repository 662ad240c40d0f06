"""Model soups: the average of the weights of all fine-tuned models instead of the best one.

Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time, 2022. Headline: 81.03 % on ImageNet by the greedy soup of 72
fine-tunes of CLIP ViT-B/32, 80.38 % by the best of them; 90.94 % by ViT-G.

From the same start theta_0 (pretrained weights and a linear probe as head), runs i with
hyper-parameters h_i drawn at random give theta_i = FineTune(theta_0, h_i). Then

    uniform    theta = 1/n sum_i theta_i
    greedy     runs sorted by accuracy on held-out images, S = {}; for each run i in turn
                   S <- S + {i}   if Acc(mean of S + {i}) >= Acc(mean of S)
               theta = mean of S
    ensemble   logits(x) = 1/n sum_i f(x; theta_i), n times the cost; the baseline

Identities: a soup of copies is the model; for logits linear in the weights the soup is the
ensemble; the greedy soup is at least as accurate as the best run on the held-out images. Runs from
different initialisations are not linearly connected, and their mean is not a useful model.

``evaluate.py --average`` makes soups of finished runs; here they are made of models in memory, by
the same ``mean`` and ``greedy`` of ``vision.weights.average``.

Not here: the learned soup, whose mixing coefficients are trained on held-out images.
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
      learning_rate: peak of the schedule.
      weight_decay: decoupled; multiplied by the learning rate.
      epochs: length of the run.
      label_smoothing: share of the uniform distribution in the target.
      mixup: alpha of its Beta distribution; 0 for none.
      augmentations: operations of RandAugment per image.
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
    """The recipe of run number ``run`` of a random search, independent of other runs.

    Learning rate 1e-6..1e-4 and decay 1e-4..1, both log-uniform; 4 to 16 epochs; in half of the
    runs label smoothing up to 0.25, in half mixup up to 0.9; RandAugment of 0 to 2 operations. The
    paper's magnitudes, 0 to 20, are on another scale; here the full range of ours, 0 to 10.

    Raises:
      ValueError: a negative run number.
    """
    if run < 0:
        raise ValueError(f"run={run}: runs are counted from 0")
    rng = np.random.default_rng([seed, run])
    return Recipe(
        learning_rate=float(f"{10 ** rng.uniform(-6, -4):.2e}"),
        weight_decay=float(f"{10 ** rng.uniform(-4, 0):.2e}"),
        epochs=int(rng.integers(4, 17)),
        label_smoothing=_sometimes(rng, 0.25),
        mixup=_sometimes(rng, 0.9),
        augmentations=int(rng.integers(0, 3)),
        magnitude=round(rng.uniform(0, 10), 1),
    )


def _sometimes(rng: np.random.Generator, maximum: float) -> float:
    value = round(rng.uniform(0, maximum), 3)
    return value if rng.random() < 0.5 else 0.0


@dataclasses.dataclass(frozen=True)
class Soup:
    """A greedy soup.

    Attributes:
      variables: of the model.
      taken: numbers of the runs in the soup, in the order in which they were added.
      scores: of every single run on held-out images.
      score: of the soup on held-out images; at least the best of ``scores``.
    """

    variables: Variables
    taken: tuple[int, ...]
    scores: tuple[float, ...]
    score: float


def uniform(members: Sequence[Variables]) -> Variables:
    """The mean of models; BatchNorm statistics are averaged like parameters.

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
      score: of a model on held-out images, larger is better; on ties the run is added.

    Raises:
      ValueError: no models.
    """
    if not members:
        raise ValueError("a soup needs at least one model")
    arrays = [average.arrays_of(member) for member in members]
    single_scores = [score(member) for member in members]
    scores, taken, best = average.greedy(
        single_scores, arrays, lambda mean: score(average.variables_of(mean, members[0]))
    )
    return Soup(uniform([members[i] for i in taken]), tuple(taken), tuple(scores), best)


def ensemble(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over models of their logits (B, K)."""
    return np.mean(logits, axis=0)
