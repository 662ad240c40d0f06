"""faiss's exact search in a process of its own, driven line by line from ``bench/retrieval.py``.

    python bench/peers/faiss_search.py ITEMS WIDTH QUERIES K OUT

The gallery is that of ``bench/retrieval.py``. Each line on standard input searches once with an
``IndexFlatIP``, and answers with the wall seconds; the indices of the first search are saved to
OUT (.npy). The first line it prints is its versions.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

BLOCK = 50_000


def main() -> None:
    import faiss  # not in the environment that imports ``unit``

    items, width, count, k = map(int, sys.argv[1:5])
    faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    index = faiss.IndexFlatIP(width)
    for start in range(0, items, BLOCK):
        index.add(unit(start, min(BLOCK, items - start), width))
    queries = unit(-1, count, width)
    print(f"faiss-cpu {faiss.__version__}, {faiss.omp_get_max_threads()} threads", flush=True)
    for number, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        _, found = index.search(queries, k)
        seconds = time.perf_counter() - start
        if number == 0:
            np.save(sys.argv[5], found)
        print(seconds, flush=True)


def unit(seed: int, count: int, width: int) -> np.ndarray:
    """The same rows as in ``bench/retrieval.py``."""
    x = np.random.default_rng(seed + 1).standard_normal((count, width), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
