"""NASNet: a controller proposes cells, small networks of them are judged, and it learns from that.

A cell has B steps; each picks two earlier states and an operation for each, and adds the results
(``vision.models.nasnet``). A genotype is a normal and a reduction cell, hence 2 * 4 B choices. They
are drawn one after the other by an LSTM that is told the choice before,

    h_t, c_t = LSTM(embed(a_{t-1}), h_{t-1}, c_{t-1}),    a_t ~ softmax(W_t h_t)

where W_t depends on whether a state or an operation is chosen, and states that are not there yet
have no probability. The accuracy R of a child on held-out data is its reward. The controller moves
by proximal policy optimisation on a batch of children,

    max sum min(r A, clip(r, 1 - eps, 1 + eps) A) + beta entropy,   A = R - baseline

r the ratio of a child's probability to that with which it was drawn, and the baseline a moving
average of rewards. With a rate of 0 this is random search. The best cells are stacked to any size.

Zoph et al., Learning Transferable Architectures for Scalable Image Recognition, 2018. Headline:
2.4 % error on CIFAR-10 with cutout; 82.7 % top-1 on ImageNet (NASNet-A 6 @ 4032); of the best
networks of 20,000 children those by the controller are about a point better than by random search.

Differences: the authors' search is not public (their code has the found cells and the tower). It
chooses among thirteen operations, and also whether results are added or concatenated; here it is
among the six that NASNet-A's tower has, always added. W_t is one matrix for all choices of a kind,
theirs one per choice. The paper counts multiply-adds of its networks for ImageNet only, whose stem
is not here; the one for CIFAR-10 has its 3.3 million parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import optax

from papers.nasnet.controller import Controller
from vision.models.nasnet import OPERATIONS, Cell, Genotype


def to_genotype(chosen: np.ndarray) -> Genotype:
    """The cells of choices int (8 B,)."""
    cells = np.asarray(chosen).reshape(2, -1, 4).tolist()
    normal, reduction = (
        Cell(tuple(f"{OPERATIONS[p]}({a})+{OPERATIONS[q]}({b})" for a, b, p, q in cell))
        for cell in cells
    )
    return Genotype(normal, reduction)


def to_choices(genotype: Genotype) -> np.ndarray:
    """int (8 B,), the inverse of ``to_genotype``."""
    rows = []
    for cell in (genotype.normal, genotype.reduction):
        for (left, a), (right, b) in cell.parsed():
            rows.append([a, b, OPERATIONS.index(left), OPERATIONS.index(right)])
    return np.array(rows).reshape(-1)


def search(
    controller: Controller,
    reward: Callable[[Genotype], float],
    children: int,
    batch: int,
    seed: int,
) -> list[tuple[Genotype, float]]:
    """Children in the order in which they were proposed, with their rewards.

    Args:
      controller: what proposes.
      reward: of a genotype, 0..1.
      children: how many.
      batch: of these between updates.
      seed: of weights and draws.
    """
    w, baseline = controller.init(seed), None
    found: list[tuple[Genotype, float]] = []
    memory = optax.scale_by_adam().init(w)
    for number in range(0, children, batch):
        key = jax.random.fold_in(jax.random.key(seed), number)
        chosen, drawn = controller.propose(w, key, min(batch, children - number))
        genotypes = [to_genotype(each) for each in np.asarray(chosen)]
        rewards = np.array([reward(each) for each in genotypes])
        found += zip(genotypes, rewards.tolist(), strict=True)
        baseline = rewards.mean() if baseline is None else baseline
        w, memory = controller.update(w, memory, chosen, drawn, rewards - baseline)
        for each in rewards:
            baseline = controller.decay * baseline + (1 - controller.decay) * each
    return found
