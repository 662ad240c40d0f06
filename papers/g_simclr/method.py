"""G-SimCLR: contrastive batches in which no two images come from one cluster.

In a contrastive batch the other images count as negatives, those of the same class too. G-SimCLR
guesses classes without labels, and keeps them apart:

    1. a denoising autoencoder learns from all images (``vision.objectives.reconstruct``);
    2. k-means of its bottleneck, k = batch size, gives every image a pseudo-label
       (``vision.scenario.features.Clusters``);
    3. every batch takes one image of each cluster, without replacement within an epoch; for a
       cluster that is used up the one with the most images left steps in (``OnePerCluster``);
    4. SimCLR on these batches (``vision.objectives.two_views``), whose features are probed after
       the projection's second layer, after its first, and before it.

They are the stages of ``papers/g_simclr/config.py``; only step 3 is the paper's own.

Chakraborty et al., G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo
Labelling, 2020. Headline: linear probe on CIFAR-10, ResNet-20, 39.4 to 41.01 % after the first
layer of the projection. What guidance can do ends where k far exceeds the number of classes: then
random batches hardly repeat a cluster either.
"""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np

from vision.data.all_records import labels_of
from vision.data.class_samplers import Groups
from vision.data.samplers import Sampler, mixed, permute_each, stream_key
from vision.data.source import DataError, Source


@dataclasses.dataclass(frozen=True)
class OnePerCluster:
    """Groups of ``clusters`` neighbouring positions with a record of every cluster each.

    Every record comes once per epoch, but for fewer than ``clusters`` of them, which would not
    fill a group. With as many clusters as records an epoch is one group, a uniform permutation.

    Attributes:
      clusters: k; the batch size, or a divisor of it.
      feature: the cluster of a record, an integer.
    """

    clusters: int
    feature: str = "cluster"

    def __post_init__(self) -> None:
        if self.clusters < 1:
            raise ValueError(f"clusters={self.clusters}: must be at least 1")

    @property
    def group(self) -> int:
        return self.clusters

    def bind(self, source: Source) -> Sampler:
        groups = Groups.of(labels_of(source, self.feature))
        if len(groups) > self.clusters or len(source) < self.clusters:
            raise DataError(
                f"{source.info.name}: {len(source)} records in {len(groups)} clusters, but groups "
                f"hold one of each of clusters={self.clusters}: set it to their number"
            )
        return _OnePerCluster(self.clusters, groups, *deal(groups.sizes, self.clusters))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _OnePerCluster:
    clusters: int
    groups: Groups
    cluster: np.ndarray  # int64 (L,), which cluster serves a position
    number: np.ndarray  # int64 (L,), and its how manieth record

    def epoch_length(self, num_examples: int) -> int:
        return len(self.cluster)

    def __call__(
        self, seed: int, epoch: int, positions: np.ndarray, num_examples: int
    ) -> np.ndarray:
        k, key = self.clusters, stream_key(seed, epoch, 12)
        group, slot = np.divmod(positions, k)
        slot = permute_each(slot, np.full(len(slot), k), mixed(group, key))
        cluster, number = self.cluster[group * k + slot], self.number[group * k + slot]
        return self.groups.draw(cluster, number, stream_key(seed, epoch, 11))


def deal(sizes: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Which cluster serves each position of an epoch, and its how manieth record that is.

    Args:
      sizes: records of each cluster, int (C,), C at most ``clusters``.
      clusters: positions of a group.

    Returns:
      int64 (L,) twice, L the greatest multiple of ``clusters`` that is at most ``sum(sizes)``.
    """
    used = np.zeros(len(sizes), np.int64)
    cluster, number = [], []
    for _ in range(int(sizes.sum()) // clusters):
        group = [c for c in range(len(sizes)) if used[c] < sizes[c]]
        used[group] += 1
        numbers = [int(used[c]) - 1 for c in group]
        left = [(int(used[c] - sizes[c]), c) for c in group if used[c] < sizes[c]]
        heapq.heapify(left)
        while len(group) < clusters:
            more, c = left[0]
            group.append(c)
            numbers.append(int(used[c]))
            used[c] += 1
            heapq.heapreplace(left, (more + 1, c)) if more + 1 < 0 else heapq.heappop(left)
        cluster += group
        number += numbers
    return np.asarray(cluster, np.int64), np.asarray(number, np.int64)


def same_class_rate(labels: np.ndarray, batch_size: int) -> float:
    """Share of the pairs within batches that have one class, of labels (N,) in batch order."""
    batches = labels[: len(labels) // batch_size * batch_size].reshape(-1, batch_size)
    same = (batches[:, :, None] == batches[:, None, :]).sum((1, 2)) - batch_size
    return float(same.mean() / (batch_size * (batch_size - 1)))
