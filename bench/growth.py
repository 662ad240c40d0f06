"""How cost grows with batch, depth, resolution, devices and the number of examples.

    python -m bench.growth              # every series
    python -m bench.growth vit_batch    # some of them

A series changes one size of a train step of ours and keeps the rest. ``cpu_ms`` is processor time,
all threads, of one unit of what the series asks for: of an image, of a batch's record numbers, of
compiling; the median over rounds, in which every size of the series has its turn. ``exponent`` is
the slope of the least-squares line through log(cpu_ms) and log(size); ``expected`` is what the
arithmetic of the series says. Processor time is what other programs on the machine disturb least;
they still share its caches.

| series | size | one unit | expected |
|---|---|---|---|
| ``vit_batch``, ``resnet_batch`` | images in a batch | an image | 0: a batch costs its images |
| ``vit_depth`` | blocks | an image | 1 |
| ``vit_depth_compile`` | blocks under one scan | compiling the step | 0 |
| ``resnet_pixels`` | pixels of an image | an image | 1 |
| ``vit_tokens`` | tokens of an image | an image | 1 to 2: products, then attention |
| ``devices`` | virtual devices, one batch | an image | 0: they share one machine's cores |
| ``examples`` | records in the data set, 10^3 to 10^9 | 1,024 shuffled record numbers | 0 |

``memory_kib`` is what the compiler sets aside for the unit's temporaries (an image), or, for
``examples``, the most that computing record numbers held (tracemalloc). Written to
bench/results/growth.csv.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bench.common import RESULTS, Peer, record
from bench.step import fake_batch
from vision.data.samplers import Shuffle
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step

ROUNDS, STEPS, CLASSES = 3, 2, 100


@dataclasses.dataclass(frozen=True)
class Unit:
    """One size of a series, ready to run.

    Attributes:
      run: gives the CPU milliseconds of one unit.
      memory_kib: of one unit.
      close: ends what the size holds.
    """

    run: Callable[[], float]
    memory_kib: float
    close: Callable[[], Any] = lambda: None


def _compiled(model: Any, rows: int, side: int):
    batch = fake_batch(rows, side, 3, CLASSES)
    optimizer = Optimizer(adamw(), 1e-4, weight_decay=0.05, clip_norm=1.0)
    step = Step(Classify(model), optimizer, TrainLength(1000, rows, 1000))
    shapes = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}
    mesh = Mesh().build()
    return compile_step(step, shapes, mesh), to_device(batch, mesh)


def _step(model: Any, rows: int, side: int) -> Unit:
    compiled, batch = _compiled(model, rows, side)
    state = [compiled.init()]

    def run() -> float:
        start = time.process_time()
        for _ in range(STEPS):
            state[0], metrics = compiled.update(state[0], batch)
            float(metrics["loss"])
        return 1e3 * (time.process_time() - start) / STEPS / rows

    return Unit(run, compiled.memory["temporaries"] / rows / 1024)


def _vit(depth: int = 4, *, scan: bool = False) -> ViT:
    return ViT(width=96, depth=depth, heads=3, patch=4, pool="mean", num_classes=CLASSES, scan=scan)


def _resnet() -> ResNet:
    return ResNet(depth=10, stem="cifar", width_multiplier=0.25, num_classes=CLASSES)


def _compile(depth: int) -> Unit:
    def run() -> float:
        jax.clear_caches()
        start = time.process_time()
        _compiled(_vit(depth, scan=True), 4, 16)
        return 1e3 * (time.process_time() - start)

    return Unit(run, 0.0)


def _devices(count: int) -> Unit:
    rows = 32
    arguments = ("ViT d4 w192 p4 @32", str(rows), str(count), "1")
    peer = Peer(sys.executable, "our_scaled_step.py", STEPS, *arguments)
    peer.line()

    def run() -> float:
        start = peer.cpu_s()
        peer()
        return 1e3 * (peer.cpu_s() - start) / STEPS / rows

    return Unit(run, 0.0, peer.close)


def _examples(count: int) -> Unit:
    sampler = Shuffle()
    positions = np.random.default_rng(0).integers(0, count, 1024)
    repeats = 200

    def run() -> float:
        start = time.process_time()
        for epoch in range(repeats):
            sampler(0, epoch, positions, count)
        return 1e3 * (time.process_time() - start) / repeats

    tracemalloc.start()
    sampler(0, 0, positions, count)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Unit(run, peak / 1024)


@dataclasses.dataclass(frozen=True)
class Series:
    """Sizes, what one of them is, and the exponent that arithmetic expects."""

    sizes: Sequence[int]
    unit: Callable[[int], Unit]
    expected: str


SERIES = {
    "vit_batch": Series((8, 16, 32, 64), lambda n: _step(_vit(), n, 32), "0"),
    "resnet_batch": Series((8, 16, 32, 64), lambda n: _step(_resnet(), n, 32), "0"),
    "vit_depth": Series((2, 4, 8, 16), lambda n: _step(_vit(n), 16, 32), "1"),
    "vit_depth_compile": Series((2, 4, 8, 16, 32), _compile, "0"),
    "resnet_pixels": Series(
        (32**2, 64**2, 128**2), lambda n: _step(_resnet(), 4, math.isqrt(n)), "1"
    ),
    "vit_tokens": Series((64, 256, 1024), lambda n: _step(_vit(2), 2, 4 * math.isqrt(n)), "1 to 2"),
    "devices": Series((1, 2, 4, 8), _devices, "0"),
    "examples": Series(tuple(10**n for n in range(3, 10)), _examples, "0"),
}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def measure(name: str) -> list[dict[str, Any]]:
    """The rows of a series."""
    series = SERIES[name]
    units = {size: series.unit(size) for size in series.sizes}
    costs: dict[int, list[float]] = {size: [] for size in units}
    for turn in range(-1, ROUNDS):
        order = list(units) if turn % 2 == 0 else list(reversed(units))
        for size in order:
            cost = units[size].run()
            if turn >= 0:
                costs[size].append(cost)
    for unit in units.values():
        unit.close()
    middle = {size: statistics.median(each) for size, each in costs.items()}
    slope = exponent(list(middle), list(middle.values()))
    return [
        {
            "series": name,
            "size": size,
            "cpu_ms": f"{middle[size]:.4g}",
            "lowest": f"{min(costs[size]):.4g}",
            "highest": f"{max(costs[size]):.4g}",
            "memory_kib": f"{unit.memory_kib:.4g}",
            "exponent": round(slope, 2),
            "expected": series.expected,
            "rounds": ROUNDS,
        }
        for size, unit in units.items()
    ]


def main() -> None:
    names = sys.argv[1:] or list(SERIES)
    unknown = [name for name in names if name not in SERIES]
    if unknown:
        raise SystemExit(f"no series {', '.join(unknown)}: there are {', '.join(SERIES)}")
    for name in names:  # each is written when it is done
        path = RESULTS / "growth.csv"
        before = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
        found = {each: [row for row in before if row["series"] == each] for each in SERIES}
        found[name] = measure(name)
        record("growth", [row for rows in found.values() for row in rows])


if __name__ == "__main__":
    main()
