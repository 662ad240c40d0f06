"""Does the loader's memory grow?  ``python -m bench.soak --minutes=20``

Runs a mixture (JPEGs through decode, crop and flip; arrays with bad records among them) for so
many minutes, a new loader every minute as after an evaluation, and prints the resident memory of
this process and its workers every ten seconds, then the slope of a straight line through all but
the first fifth. Written to bench/results/soak.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import record
from bench.input import photographs
from vision.data.mixture import Mixture, MixturePart
from vision.data.ops.geometry import RandomFlip, RandomResizedCrop
from vision.data.ops.values import Decode
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays

EVERY_S = 10.0
RENEW_S = 60.0


@dataclasses.dataclass(frozen=True)
class Patchy(Arrays):
    """Every twentieth record is bad."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index % 20 == 0:
            raise DataError(f"{self.key(index)}: bad on purpose")
        return super().__getitem__(index)

    __getitems__ = None  # pyright: ignore[reportAssignmentType]


def resident_mib() -> float:
    """Of this process and its worker processes."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()  # of this thread
    pids = ["self", *children.split()]
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            continue
        total += sum(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS:"))
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()

    encoded = np.empty(64, object)
    encoded[:] = photographs(64)
    label = np.arange(400, dtype=np.int32)
    pixels = np.random.default_rng(0).integers(0, 256, (400, 96, 96, 3), np.uint8)
    crop = (RandomResizedCrop(64), RandomFlip())
    parts = (
        MixturePart(
            Arrays({"image": encoded, "label": label[:64]}, "jpeg"), 0.5, (Decode(), *crop)
        ),
        MixturePart(Patchy({"image": pixels, "label": label}, "patchy"), 0.5, crop),
    )
    data = Mixture(parts, 64, on_error="mask", threads=arguments.threads, workers=arguments.workers)
    start, samples, done, bad, loaders = time.monotonic(), [], 0, 0, 0
    while (now := time.monotonic() - start) < arguments.minutes * 60:
        with data.loader(seed=0, first_batch=done) as loader:
            loaders += 1
            renew = now + RENEW_S
            while now < min(renew, arguments.minutes * 60):
                next(loader)
                done += 1
                bad += len(loader.take_bad())
                now = time.monotonic() - start
                if now > EVERY_S * (len(samples) + 1):
                    samples.append((now / 60, resident_mib()))
                    print(f"{now / 60:6.2f} min  {samples[-1][1]:8.1f} MiB  {done} batches")
    steady = np.array(samples[len(samples) // 5 :])
    if len(steady) < 3:
        raise SystemExit("too short for a slope: raise --minutes")
    slope, _ = np.polyfit(steady[:, 0], steady[:, 1], 1)
    late = steady[len(steady) // 2 :]
    slope_late, _ = np.polyfit(late[:, 0], late[:, 1], 1)
    row = {
        "minutes": arguments.minutes,
        "threads": arguments.threads,
        "workers": arguments.workers,
        "images": done * 64,
        "bad_records": bad,
        "loaders": loaders,
        "first_mib": round(samples[0][1], 1),
        "lowest_mib": round(steady[:, 1].min(), 1),
        "highest_mib": round(steady[:, 1].max(), 1),
        "last_mib": round(samples[-1][1], 1),
        "slope_mib_per_min": round(float(slope), 4),
        "slope_second_half": round(float(slope_late), 4),
    }
    record("soak", [row])


if __name__ == "__main__":
    main()
