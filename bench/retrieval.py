"""Exact top-10 of 1,000,000 x 512 embeddings, beside faiss's ``IndexFlatIP`` on the same cores.

    python -m bench.retrieval [--peers .venv-peers/bin/python] [--items 1000000] [--pairs 5]

Unit vectors, random and the same for both. Each searches in a process of its own, both keep the
gallery in memory, and they run in turn (A B B A ...); the figure is the median of the ratios pair
by pair. ``equal_top`` is the share of queries whose ten indices are the same in the same order,
``equal_sets`` of those with the same ten, and ``largest_gap`` the largest difference of score
where the two name another item: float32 rounding is about 1e-7.

``peak_mib`` is the most memory that our search's arrays take, the gallery left out (tracemalloc,
in a run of its own). The matrix of all scores would have ``scores_mib``.

Written to bench/results/retrieval.csv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from bench.common import Peer, ratio, record
from bench.peers.faiss_search import BLOCK, unit
from vision.blocks.nearest import nearest

WIDTH, K = 512, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=".venv-peers/bin/python")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    gallery = np.empty((arguments.items, WIDTH), np.float32)
    for start in range(0, arguments.items, BLOCK):
        count = min(BLOCK, arguments.items - start)
        gallery[start : start + count] = unit(start, count, WIDTH)
    rows = [compare(arguments, gallery, queries) for queries in (256, 1000)]
    record("retrieval", rows)


def compare(arguments: argparse.Namespace, gallery: np.ndarray, count: int) -> dict[str, object]:
    queries = unit(-1, count, WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.npy"
        sizes = (arguments.items, WIDTH, count, K, file)
        faiss = Peer(arguments.peers, "faiss_search.py", 1, *map(str, sizes))
        versions = faiss.line()
        tracemalloc.start()
        _, ours = nearest(queries, gallery, K)
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        faiss()
        times: tuple[list[float], list[float]] = ([], [])
        for pair in range(arguments.pairs):
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                times[which].append(faiss() if which else searched(queries, gallery))
        faiss.close()
        theirs = np.load(file)
    median, low, high = ratio(*times)
    other = np.argwhere(ours != theirs)
    gaps = [
        abs(
            exact(queries, gallery, row, ours[row, k])
            - exact(queries, gallery, row, theirs[row, k])
        )
        for row, k in other.tolist()
    ]
    same = np.sort(ours, 1) == np.sort(theirs, 1)
    return {
        "items": arguments.items,
        "width": WIDTH,
        "queries": count,
        "k": K,
        "ours_s": round(statistics.median(times[0]), 3),
        "faiss_s": round(statistics.median(times[1]), 3),
        "ratio": round(median, 3),
        "ratio_min": round(low, 3),
        "ratio_max": round(high, 3),
        "equal_top": float((ours == theirs).all(1).mean()),
        "equal_sets": float(same.all(1).mean()),
        "largest_gap": float(f"{max(gaps, default=0.0):.2g}"),
        "peak_mib": round(peak, 1),
        "scores_mib": round(count * arguments.items * 4 / 2**20),
        "pairs": arguments.pairs,
        "peer": versions,
    }


def searched(queries: np.ndarray, gallery: np.ndarray) -> float:
    start = time.perf_counter()
    nearest(queries, gallery, K)
    return time.perf_counter() - start


def exact(queries: np.ndarray, gallery: np.ndarray, row: int, item: int) -> float:
    return float(queries[row].astype(np.float64) @ gallery[item].astype(np.float64))


if __name__ == "__main__":
    main()
