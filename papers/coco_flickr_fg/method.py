"""Fine-grained galleries for image-text retrieval: images similar to the targets are added.

Chen, Yao and Jin, Rethinking Benchmarks for Cross-modal Image-text Retrieval, 2023. MSCOCO-FG has
31,244 images for 5,000 targets and Flickr30K-FG 6,867 for 1,000. Headline: strong models lose many
points of recall on the new galleries, mostly on details of similar objects.

With unit embeddings x of targets and p of an unlabelled pool, computed by another model than the
one under test, the gallery of n images per target is

    targets  +  union over targets t of the n largest of x_t . p

(``look_alikes``); copies of targets are removed from the pool beforehand, and the query is the
caption of t. ``preferred`` measures the sensitivity to one detail: how often an image that differs
from the target in one attribute scores higher.
"""

from __future__ import annotations

import numpy as np

from vision.blocks.nearest import NearestError, nearest


def look_alikes(targets: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` images of a pool most similar to the targets, without repetition.

    The targets take turns; each turn adds the most similar image not yet chosen.

    Args:
      targets: unit vectors (T, D).
      pool: unit vectors (P, D), without copies of the targets.
      count: number of images, 0..P.

    Returns:
      int64 (count,), in the order of choice.

    Raises:
      NearestError: no targets, or fewer images than ``count``; or see ``nearest``.
    """
    if not len(targets) or not 0 <= count <= len(pool):
        raise NearestError(
            f"count={count} images for {len(targets)} targets from a pool of {len(pool)}"
        )
    # `count` images are chosen, so `count + 1` candidates per target always suffice.
    order = nearest(targets, pool, min(count + 1, len(pool)))[1]
    chosen: dict[int, None] = {}
    next_rank = np.zeros(len(targets), np.int64)
    while len(chosen) < count:
        target = len(chosen) % len(targets)
        while int(order[target, next_rank[target]]) in chosen:
            next_rank[target] += 1
        chosen[int(order[target, next_rank[target]])] = None
    return np.asarray([*chosen], np.int64)


def preferred(texts: np.ndarray, targets: np.ndarray, others: np.ndarray) -> float:
    """Share of texts that are at least as similar to the other image as to the target.

    Args:
      texts, targets, others: (N, D); rows i belong together.
    """
    target_similarity = np.einsum("nd,nd->n", texts, targets)
    return float(np.mean(np.einsum("nd,nd->n", texts, others) >= target_similarity))
