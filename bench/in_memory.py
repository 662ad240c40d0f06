"""Images in memory, 32x32: ours beside Grain's own DataLoader: ``python -m bench.in_memory``.

Both shuffle the same 50,000 random uint8 images with int32 labels and give batches of 128, in this
process, without threads. Runs alternate; the time is CPU seconds of the process, which is robust
on a busy machine; each run makes its loader and takes its batches. The last row is the train step
of a small ViT (width 64, depth 3, patch 4) on such batches, for scale: ``share_of_step`` is what a
loader takes of that.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np

from bench.common import ratio, record
from vision.data.mixture import Mixture, MixturePart
from vision.data.pipeline import TrainData
from vision.data.sources.arrays import Arrays
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import Constant, TrainLength
from vision.train.step import Step

BATCH = 128
COUNT = 50_000


def ours(data: TrainData | Mixture, batches: int) -> Callable[[], int]:
    def run() -> int:
        with data.loader(seed=0) as loader:
            return sum(len(next(loader)["label"]) for _ in range(batches))

    return run


def grain_loader(source: Any, batches: int) -> Callable[[], int]:
    def run() -> int:
        sampler = grain.samplers.IndexSampler(
            COUNT, grain.sharding.NoSharding(), shuffle=True, seed=0, num_epochs=1
        )
        loader = grain.DataLoader(
            data_source=source,
            sampler=sampler,
            operations=[grain.transforms.Batch(BATCH)],
            worker_count=0,
        )
        rows = 0
        for _, batch in zip(range(batches), loader, strict=False):
            rows += len(batch["label"])
        return rows

    return run


def small_step(source: Arrays, steps: int) -> Callable[[], int]:
    """Train steps of a small ViT on one batch that is there already."""
    with TrainData(source, BATCH, threads=0).loader(seed=0) as loader:
        host = next(loader)
    host["image"] = host["image"].astype(np.float32) / 127.5 - 1
    model = ViT(width=64, depth=3, heads=4, patch=4, pool="mean", num_classes=10)
    optimizer = Optimizer(adamw(), 1e-3, Constant())
    step = Step(Classify(model), optimizer, TrainLength(COUNT, BATCH, 10_000))
    mesh = Mesh().build()
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in host.items()}
    compiled = compile_step(step, shapes, mesh)
    batch = to_device(host, mesh)
    state = [compiled.init()]

    def run() -> int:
        for _ in range(steps):
            state[0], metrics = compiled.update(state[0], batch)
            jax.block_until_ready(metrics)
        return steps * BATCH

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    source = Arrays({"image": images, "label": rng.integers(0, 10, COUNT, np.int32)})
    half = tuple(
        Arrays({k: v[part::2] for k, v in source.arrays.items()}, f"half{part}")
        for part in range(2)
    )
    variants = {
        "ours": ours(TrainData(source, BATCH, threads=0), 1500),
        "ours, two sources mixed": ours(
            Mixture((MixturePart(half[0], 3), MixturePart(half[1], 1)), BATCH, threads=0), 1000
        ),
        "grain.DataLoader(worker_count=0)": grain_loader(source, 12),
        "train step of a small ViT": small_step(source, 5),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for repetition in range(arguments.pairs + 1):
        names = list(variants) if repetition % 2 else list(variants)[::-1]
        for name in names:
            start = time.process_time()
            images_made = variants[name]()
            if repetition:
                seconds[name].append((time.process_time() - start) / images_made)
    step_s = statistics.median(seconds["train step of a small ViT"])
    theirs = seconds["grain.DataLoader(worker_count=0)"]
    rows = []
    for name, times in seconds.items():
        middle, low, high = ratio(theirs, times)
        rows.append(
            {
                "loader": name,
                "images_per_cpu_s": round(1 / statistics.median(times)),
                "us_per_batch": round(statistics.median(times) * BATCH * 1e6, 1),
                "share_of_step": round(statistics.median(times) / step_s, 4),
                "speedup": round(middle, 2),
                "speedup_min": round(low, 2),
                "speedup_max": round(high, 2),
            }
        )
    record("in_memory", rows)


if __name__ == "__main__":
    main()
