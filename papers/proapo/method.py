"""ProAPO: texts of classes found by evolution, first templates of all, then descriptions of each.

With unit text vectors t a class is the unit vector of the mean of its sentences. Which sentences
are taken is searched for with one image a class, by

    F = a1 top1 + a5 top5 - a_ce CE(s x . t, y)        (accuracies in percent),

whose cross-entropy tells candidates apart that are right for the same few images. Features are
computed once, so that a candidate costs a matrix product.

1. Templates: candidates are sets of templates, at first every one alone. Of each survivor, sets
   with one more, one less and one exchanged; then sets with two such edits and unions of two
   survivors.
2. Descriptions: classes with like texts are grouped, about 2.5 ln K in a group, and the groups with
   the most wrong images are searched in turn: which descriptions join the templates' sentences of
   their classes. All others stay as they are.

Before either, sentences that alone lower top-1 by more than 200 / K + 0.1 points, and near copies,
are dropped. Nothing is trained, and the texts that were found serve any dual encoder.

Qu et al., ProAPO: Progressively Automatic Prompt Optimization for Visual Classification, 2025;
authors' code: MorningStarOvO/ProAPO. Weights are those of CUB with ViT-B/32. Differences: groups
are k-means clusters of the classes' vectors alone, ranked by their wrong images, where theirs look
at what is mistaken for what too; the template's sentence of a class always stays, and descriptions
join it; half of the crossovers are unions and half a random part of one; templates and descriptions
come with the config or from files, since no language model is asked.

Without epochs the result is the best single template.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from papers.proapo.search import Fitness, Plan, Pool, evolve, useful
from vision.config.ranges import NonNegative, Positive, checked
from vision.evaluators.image_text.embeddings import normalised
from vision.probes.kmeans import kmeans


@dataclasses.dataclass(frozen=True)
@checked
class Search:
    """Both stages.

    Attributes:
      templates: fitness of sets of templates.
      descriptions: fitness of sets of descriptions.
      template_plan: candidates of the first stage.
      description_plan: candidates of the second, for every group.
      rounds: how often classes are grouped and the worst groups searched.
      groups: searched in a round.
    """

    templates: Fitness
    descriptions: Fitness
    template_plan: Plan
    description_plan: Plan
    rounds: NonNegative[int] = 2
    groups: Positive[int] = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What the search ends with.

    Attributes:
      by_templates: unit vectors (K, D) after the first stage.
      classes: unit vectors (K, D) after the second.
      templates: bool (P,), taken.
      descriptions: bool (S,), taken.
      template_fitness: of the best before and after every epoch of the first stage.
      description_fitness: of the best over all epochs of the second; it never falls either.
    """

    by_templates: np.ndarray
    classes: np.ndarray
    templates: np.ndarray
    descriptions: np.ndarray
    template_fitness: tuple[float, ...]
    description_fitness: tuple[float, ...]


def optimise(
    bank: np.ndarray,
    described: np.ndarray,
    describes: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    search: Search,
    seed: int,
) -> Found:
    """Templates and descriptions that tell labelled images right.

    Args:
      bank: unit vectors (P, K, D) of the templates' sentences.
      described: unit vectors (S, D) of the descriptions' sentences.
      describes: int (S,), the class of each.
      images: unit vectors (N, D).
      labels: int (N,).
      search: numbers and weights.
      seed: of all that is drawn.

    Raises:
      ValueError: widths that differ, or labels or descriptions of classes that the bank lacks.
    """
    num_templates, num_classes, width = bank.shape
    if described.shape[1:] != (width,) or images.shape[1:] != (width,):
        raise ValueError(
            f"templates {bank.shape}, descriptions {described.shape} and images {images.shape}: "
            "all need the same last dimension"
        )
    for what, of in (("labels", labels), ("describes", describes)):
        if len(of) and (of.min() < 0 or of.max() >= num_classes):
            raise ValueError(
                f"{what} lie in {of.min()}..{of.max()}, and there are {num_classes} classes"
            )
    rng = np.random.default_rng(seed)
    bank, described, images = (x.astype(np.float64) for x in (bank, described, images))
    of_templates = Pool(
        bank.reshape(-1, width),
        np.tile(np.arange(num_classes), num_templates),
        np.repeat(np.arange(num_templates), num_classes),
        np.zeros((num_classes, width)),
    )
    kept = useful(of_templates, images, labels, normalised(bank[0]))
    left = of_templates.only(kept)
    chosen, history = evolve(
        left,
        np.eye(left.size, dtype=bool),
        images,
        labels,
        search.templates,
        search.template_plan,
        rng,
    )
    templates = np.zeros(num_templates, bool)
    templates[np.flatnonzero(kept)[chosen]] = True
    base = bank[templates].mean(0)
    by_templates = normalised(base)

    taken = np.zeros(len(described), bool)
    told = by_templates
    values = [search.descriptions(images, labels, told)]
    for _ in range(search.rounds if len(described) else 0):
        for members in _worst_groups(told, images, labels, search.groups, seed):
            own = np.flatnonzero(np.isin(describes, members))
            others = taken & ~np.isin(describes, members)
            fixed = base.copy()
            np.add.at(fixed, describes[others], described[others])
            pool = Pool(described[own], describes[own], np.arange(len(own)), fixed)
            usable = np.zeros(0, bool) if not len(own) else useful(pool, images, labels, told)
            own = own[usable | taken[own]]
            if not len(own):
                continue
            pool = Pool(described[own], describes[own], np.arange(len(own)), fixed)
            first = np.stack([taken[own], np.zeros(len(own), bool), np.ones(len(own), bool)])
            best, fitness = evolve(
                pool, first, images, labels, search.descriptions, search.description_plan, rng
            )
            taken[own] = best
            values += fitness
            made = pool.class_vectors(best)
            assert made is not None  # every class has its templates' sentences
            told = made
    return Found(by_templates, told, templates, taken, tuple(history), tuple(values))


def _worst_groups(
    told: np.ndarray, images: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> list[np.ndarray]:
    """Classes of the ``count`` groups with the most wrong images, the worst first."""
    num_classes = len(told)
    clusters = max(1, round(num_classes / max(1.0, 2.5 * math.log(num_classes))))
    group = np.asarray(
        kmeans(jnp.asarray(told, jnp.float32), clusters, jax.random.key(seed)).assignment
    )
    wrong = labels[(images @ told.T).argmax(1) != labels]
    errors = np.bincount(group[wrong], minlength=clusters)
    worst = np.argsort(-errors, kind="stable")[:count]
    return [np.flatnonzero(group == g) for g in worst if errors[g]]
