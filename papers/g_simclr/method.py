"""G-SimCLR: contrastive batches with one image per cluster, so that negatives differ in class.

In a contrastive batch all other images are negatives, those of the same class included. G-SimCLR
clusters the images without labels and draws batches across clusters:

    1. a denoising autoencoder learns from all images (``vision.objectives.reconstruct``);
    2. k-means of its bottleneck, k = batch size, gives every image a pseudo-label
       (``vision.scenario.features.Clusters``);
    3. every batch has one image of each cluster, without replacement within an epoch; an exhausted
       cluster is replaced by the one with the most images left (``OnePerCluster``);
    4. SimCLR on these batches (``vision.objectives.two_views``), with linear probes after the
       projection's second layer, after its first, and before it.

These are the stages of ``papers/g_simclr/config.py``; step 3 is the paper's own and is here.

Chakraborty et al., G-SimCLR: Self-Supervised Contrastive Learning with Guided Projection via Pseudo
Labelling, 2020. Headline: linear probe on CIFAR-10, ResNet-20, 39.4 to 41.01 % after the first
layer of the projection. With k far above the number of classes the method has no effect, since
random batches rarely repeat a cluster either.
"""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.all_records import labels_of
from vision.data.class_samplers import Groups
from vision.data.samplers import Sampler, mixed, permute_each, stream_key
from vision.data.source import DataError, Source


@dataclasses.dataclass(frozen=True)
@checked
class OnePerCluster:
    """A sampler whose groups of ``clusters`` consecutive positions have a record of every cluster.

    Every record comes once per epoch, except for a remainder of fewer than ``clusters`` records.
    With as many clusters as records an epoch is one group, a uniform permutation.

    Attributes:
      clusters: k; the batch size, or a divisor of it.
      feature: name of the cluster of a record, an integer.
    """

    clusters: Positive[int]
    feature: str = "cluster"

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
    cluster: np.ndarray  # int64 (L,), cluster of a position
    number: np.ndarray  # int64 (L,), index of the record within the cluster

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
    """Assigns a cluster to each position of an epoch, and a record within the cluster.

    Args:
      sizes: records of each cluster, int (C,), C at most ``clusters``.
      clusters: positions of a group.

    Returns:
      Cluster and index within it, both int64 (L,), L the largest multiple of ``clusters`` that is
      at most ``sum(sizes)``.
    """
    used = np.zeros(len(sizes), np.int64)
    cluster, number = [], []
    for _ in range(int(sizes.sum()) // clusters):
        group = [c for c in range(len(sizes)) if used[c] < sizes[c]]
        used[group] += 1
        numbers = [int(used[c]) - 1 for c in group]
        spare = [(int(used[c] - sizes[c]), c) for c in group if used[c] < sizes[c]]
        heapq.heapify(spare)
        while len(group) < clusters:
            remaining, c = spare[0]
            group.append(c)
            numbers.append(int(used[c]))
            used[c] += 1
            heapq.heapreplace(spare, (remaining + 1, c)) if remaining + 1 < 0 else heapq.heappop(
                spare
            )
        cluster += group
        number += numbers
    return np.asarray(cluster, np.int64), np.asarray(number, np.int64)


def same_class_rate(labels: np.ndarray, batch_size: int) -> float:
    """Share of pairs within batches that have the same class; labels (N,) are in batch order."""
    batches = labels[: len(labels) // batch_size * batch_size].reshape(-1, batch_size)
    same = (batches[:, :, None] == batches[:, None, :]).sum((1, 2)) - batch_size
    return float(same.mean() / (batch_size * (batch_size - 1)))
