"""Time to the first batch of a mixture, from the start and at example 10^9.

    python -m bench.resume

Two sets of JPEGs cut from scikit-learn's photographs (90 and 10 percent), one thread; making the
loader, finding the position and decoding are in it. Then one set in shuffled, class-balanced,
P x K and weighted order. Wall and CPU seconds, medians of repetitions; the batch at 10^9 is
compared with the one that a loader started ten batches earlier arrives at.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time

import numpy as np

from bench.common import record
from bench.input import photographs
from vision.data.class_samplers import ClassBalanced, PxK
from vision.data.mixture import Mixture, MixturePart
from vision.data.ops.geometry import RandomFlip, RandomResizedCrop
from vision.data.ops.values import Decode
from vision.data.pipeline import TrainData
from vision.data.samplers import WeightedSampler
from vision.data.sources.arrays import Arrays

BATCH = 32
EXAMPLE = 10**9
OPS = (Decode(), RandomResizedCrop(64), RandomFlip())


def pictures(count: int, name: str) -> Arrays:
    image = np.empty(count, object)
    image[:] = photographs(count)
    return Arrays({"image": image, "label": np.arange(count, dtype=np.int32) % 8}, name)


def first_batch(
    data: Mixture | TrainData, number: int
) -> tuple[tuple[float, float], dict[str, np.ndarray]]:
    """Wall seconds, CPU seconds, and the batch."""
    start, start_cpu = time.perf_counter(), time.process_time()
    with data.loader(seed=0, first_batch=number) as loader:
        batch = next(loader)
        seconds = (time.perf_counter() - start, time.process_time() - start_cpu)
    return seconds, batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    large, small = pictures(90, "large"), pictures(32, "small")
    parts = (MixturePart(large, 0.9, OPS), MixturePart(small, 0.1, OPS))
    plain = TrainData(large, BATCH, OPS, threads=1)
    weights = tuple(np.linspace(0, 1, len(large)).tolist())
    variants: dict[str, Mixture | TrainData] = {
        "mixture of two sources": Mixture(parts, BATCH, threads=1),
        "mixture, batches of one source": Mixture(parts, BATCH, pure=True, threads=1),
        "shuffle": plain,
        "class-balanced": dataclasses.replace(plain, sampler=ClassBalanced()),
        "P x K": dataclasses.replace(plain, sampler=PxK(8, 4)),
        "weighted": dataclasses.replace(plain, sampler=WeightedSampler(weights)),
    }
    rows = []
    for name, data in variants.items():
        first_batch(data, 1)
        times: dict[int, list[tuple[float, float]]] = {0: [], EXAMPLE // BATCH: []}
        batch: dict[str, np.ndarray] = {}
        for _ in range(arguments.repetitions):
            for number, seconds in times.items():
                spent, batch = first_batch(data, number)
                seconds.append(spent)
        with data.loader(seed=0, first_batch=EXAMPLE // BATCH - 10) as loader:
            arrived = next(itertools.islice(loader, 10, None))
        same = all(np.array_equal(batch[key], arrived[key]) for key in arrived)
        start_s, late_s = (
            [statistics.median(column) for column in zip(*seconds, strict=True)]
            for seconds in times.values()
        )
        rows.append(
            {
                "order": name,
                "wall_s_at_0": round(start_s[0], 4),
                f"wall_s_at_{EXAMPLE:.0e}": round(late_s[0], 4),
                "cpu_s_at_0": round(start_s[1], 4),
                f"cpu_s_at_{EXAMPLE:.0e}": round(late_s[1], 4),
                "same_as_uninterrupted": same,
            }
        )
    record("resume", rows)


if __name__ == "__main__":
    main()
