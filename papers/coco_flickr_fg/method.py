"""Harder galleries for image-text retrieval: look-alikes of the targets are added.

Chen, Yao and Jin, Rethinking Benchmarks for Cross-modal Image-text Retrieval, 2023. MSCOCO-FG has
31,244 images for 5,000 targets and Flickr30K-FG 6,867 for 1,000. Headline: strong models lose many
points of recall on the new galleries, most on details of things that look alike.

With unit embeddings x of targets and p of an unlabelled pool, by a model other than the one under
test, the gallery of n images per target is

    targets  +  union over targets t of the n largest of x_t . p

(``look_alikes``), copies of targets taken out of the pool beforehand, and the caption of t has to
find t in it. ``preferred`` asks by which detail a model fails: how often an image that differs
from the target in one thing beats it.
"""

from __future__ import annotations

import numpy as np

from vision.blocks.nearest import NearestError, nearest


def look_alikes(targets: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` images of a pool that look most like the targets, without repetition.

    Targets choose in turn, each the best image that is left.

    Args:
      targets: unit vectors (T, D).
      pool: unit vectors (P, D); images that show what a target shows are to be left out.
      count: how many, 0..P.

    Returns:
      int64 (count,), in the order of choice.

    Raises:
      NearestError: no targets, or fewer images than ``count``; or see ``nearest``.
    """
    if not len(targets) or not 0 <= count <= len(pool):
        raise NearestError(
            f"count={count} images for {len(targets)} targets from a pool of {len(pool)}"
        )
    # After `count` choices by others, every target still has one left among as many and one more.
    order = nearest(targets, pool, min(count + 1, len(pool)))[1]
    chosen: dict[int, None] = {}
    place = np.zeros(len(targets), np.int64)
    while len(chosen) < count:
        target = len(chosen) % len(targets)
        while int(order[target, place[target]]) in chosen:
            place[target] += 1
        chosen[int(order[target, place[target]])] = None
    return np.asarray([*chosen], np.int64)


def preferred(texts: np.ndarray, targets: np.ndarray, others: np.ndarray) -> float:
    """Share of texts that are at least as similar to another image as to their own.

    Args:
      texts, targets, others: (N, D); row i of each belongs together.
    """
    own = np.einsum("nd,nd->n", texts, targets)
    return float(np.mean(np.einsum("nd,nd->n", texts, others) >= own))
