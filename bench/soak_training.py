"""Does the memory of a run that saves often grow?  ``python -m bench.soak_training --minutes=30``

Trains a small ViT (``configs/digits_vit.py``, narrower) with a checkpoint every 20 steps, an
evaluation every 500 and a row every 10, and looks at the process every ten seconds: resident
memory, what malloc holds (in use; free but kept; mapped), Python's own blocks and tracked objects,
arrays of jax and objects of Orbax that are alive, threads and open files. Written to
bench/results/soak_training.csv: slopes of straight lines through the last half of the time, per
minute and per thousand saves, then a row for every minute.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.common import record
from vision.config import specs
from vision.run import experiment, loop

EVERY_S = 10.0
SAVE_EVERY = 20
_ROOT = Path(__file__).resolve().parents[1]
_OVERRIDES = {
    "model.width": "16",
    "model.depth": "1",
    "data.batch_size": "16",
    "total": "100000000 steps",
    "optimizer.schedule.warmup": "0 steps",
    "log_every": "10 steps",
    "checkpoints.every": f"{SAVE_EVERY} steps",
    "evaluate_every": "500 steps",
}


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        ]
    ]


def malloc() -> dict[str, float]:
    """MiB that glibc's malloc has in use, keeps though they are free, and has mapped apart."""
    call = ctypes.CDLL(None).mallinfo2
    call.restype = _Mallinfo2
    info = call()
    mib = 2.0**20
    return {
        "malloc_used_mib": info.uordblks / mib,
        "malloc_free_mib": info.fordblks / mib,
        "malloc_mapped_mib": info.hblkhd / mib,
    }


def sample(workdir: Path) -> dict[str, float]:
    """What the process holds now."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # In C from end to end: while Python code holds the objects, another thread may be making a
    # tuple, which must have one reference only.
    types = list(map(type, itertools.chain.from_iterable(map(gc.get_objects, (None,)))))
    orbax = sum(str(kind.__module__).startswith("orbax") for kind in types)
    rows = (workdir / "metrics.jsonl").stat().st_size if (workdir / "metrics.jsonl").exists() else 0
    return {
        "rss_mib": int(status["VmRSS"].split()[0]) / 1024,
        "anonymous_mib": int(status["RssAnon"].split()[0]) / 1024,
        **malloc(),
        "python_blocks": sys.getallocatedblocks(),
        "gc_objects": len(types),
        "orbax_objects": orbax,
        "jax_arrays": len(jax.live_arrays()),
        "threads": int(status["Threads"]),
        "open_files": len(os.listdir("/proc/self/fd")),
        "rows_kib": rows / 1024,
    }


def newest_save(workdir: Path) -> int:
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def watch(workdir: Path, minutes: float, samples: list[dict[str, float]]) -> None:
    """Takes samples until the time is up, then stops the run as a person would."""
    began = time.monotonic()
    while (now := time.monotonic() - began) < minutes * 60:
        time.sleep(EVERY_S - now % EVERY_S)
        step = newest_save(workdir)
        row = {"minute": (time.monotonic() - began) / 60, "saves": step / SAVE_EVERY}
        samples.append({**row, **sample(workdir)})
        print("  ".join(f"{k} {v:.6g}" for k, v in samples[-1].items()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def rows_of(samples: list[dict[str, float]], late_min: float) -> list[dict[str, Any]]:
    """How the samples grow over the last ``late_min`` minutes, then one for every minute."""
    rows: list[dict[str, Any]] = []
    for each in samples:
        if not rows or each["minute"] >= rows[-1]["minute"] + 0.99:
            rows.append({name: round(x, 2) for name, x in each.items()})
    late = [each for each in samples if each["minute"] > samples[-1]["minute"] - late_min]
    for over, unit in (("minute", 1), ("saves", 1000)):
        slopes: dict[str, Any] = dict.fromkeys(samples[0], "")
        for name in samples[0].keys() - {"minute", "saves"}:
            line = np.polyfit([each[over] for each in late], [each[name] for each in late], 1)
            slopes[name] = round(float(line[0]) * unit, 4)
        what = "per minute" if over == "minute" else "per 1000 saves"
        rows.append({**slopes, "minute": f"{what}, last {late_min:.0f} minutes"})
    return [*rows[-2:], *rows[:-2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--store", default="yes", choices=("yes", "no"))
    arguments = parser.parse_args()
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        path = str(_ROOT / "configs" / "digits_vit.py")
        config = specs.load(path, _OVERRIDES)
        experiment.check(config, path)
        options = (workdir, arguments.minutes, samples)
        threading.Thread(target=watch, args=options, daemon=True).start()
        loop.train(config, workdir, progress_s=60.0)
    rows = rows_of(samples, arguments.minutes / 2)
    if arguments.store == "yes":
        record("soak_training", rows)
    else:
        print(*rows[:2], sep="\n")


if __name__ == "__main__":
    main()
