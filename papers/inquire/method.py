"""INQUIRE: text-to-image retrieval with expert queries and exhaustively labelled matches.

Vendrow et al., INQUIRE: A Natural World Text-to-Image Retrieval Benchmark, 2024. 250 queries over
five million photographs. Headline: no model reaches 50 mAP@50, reranking included.

A query has N relevant images, exhaustively labelled. With rel_r = 1 if the image of rank r is
relevant, and P_r the share of relevant images among the first r,

    P@k = P_k      R@k = k P_k / N      MRR@k = 1 / (first relevant rank), 0 if it is beyond k
    AP@k = sum_{r <= k} rel_r P_r / min(N, k)
    nDCG@k = sum_{r <= k} rel_r / log2(r + 1)  /  sum_{r <= min(N, k)} 1 / log2(r + 1)

each averaged over all queries and over those of a category. The paper writes AP@k as scikit-learn's
average precision of the first k times hits / min(N, k), which is the same number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vision.blocks import ranking
from vision.blocks.ranking import Places, rank


def full_rank(
    queries: np.ndarray,
    gallery: np.ndarray,
    relevant: Sequence[np.ndarray],
    categories: Sequence[str],
    k: int = 50,
) -> dict[str, dict[str, float]]:
    """Ranks the complete gallery for every query.

    Args:
      queries: unit vectors (Q, D).
      gallery: unit vectors (N, D).
      relevant: for every query the indices of its relevant images; queries without any are ignored.
      categories: category of every query.
      k: depth of the ranking.

    Returns:
      Category, and ``all``, to ``precision``, ``recall``, ``map``, ``ndcg``, ``mrr`` (0..1) and
      ``queries``, the number of queries.

    Raises:
      ValueError: lengths that differ, or a category called ``all``.
    """
    if not len(queries) == len(relevant) == len(categories):
        raise ValueError(
            f"{len(queries)} queries, {len(relevant)} sets of images, {len(categories)} categories"
        )
    if "all" in categories:
        raise ValueError("a category is called 'all', which is the name of the mean over all")
    places = rank(queries, gallery, lambda query: relevant[query])
    names = np.asarray(categories)
    metrics = {"all": retrieval_metrics(places, k)}
    for name in dict.fromkeys(categories):
        rows = names == name
        metrics[name] = retrieval_metrics(Places(places.place[rows], places.relevant[rows]), k)
    return metrics


def retrieval_metrics(places: Places, k: int = 50) -> dict[str, float]:
    """Means over queries of what INQUIRE reports."""
    within_k = Places(np.where(places.place < k, places.place, ranking.NEVER), places.relevant)
    return {
        "precision": ranking.mean(ranking.precision(places, k)),
        "recall": ranking.mean(ranking.recall(places, k)),
        "map": ranking.mean(ranking.average_precision(places, k)),
        "ndcg": ranking.mean(ranking.ndcg(places, k)),
        "mrr": ranking.mean(ranking.reciprocal_rank(within_k)),
        "queries": int((places.relevant > 0).sum()),
    }
