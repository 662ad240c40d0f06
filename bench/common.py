"""What every benchmark shares: rows with versions and device, alternating runs, ratios."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
RESULTS = _ROOT / "bench" / "results"
_PACKAGES = ("jax", "flax", "optax", "numpy")


def alternate(
    ours: Callable[[], None], theirs: Callable[[], None], pairs: int
) -> tuple[list[float], list[float]]:
    """Wall seconds of ``ours`` and ``theirs``, run in turn: A B B A A B ...

    The order changes from pair to pair, so that a machine that slows down or speeds up does not
    favour one of them. Each is run once before, uncounted.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for run in (ours, theirs):
        run()
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        for which in order:
            start = time.perf_counter()
            (ours, theirs)[which]()
            times[which].append(time.perf_counter() - start)
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios pair by pair."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


class Peer:
    """Another program, which lives on: ``run()`` gives the seconds it says ``amount`` took it."""

    def __init__(self, python: str, script: str, amount: int, *arguments: str) -> None:
        path = str(Path(__file__).parent / "peers" / script)
        self._amount = amount
        self._process = subprocess.Popen(
            [python, path, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        """The next line it prints; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __call__(self) -> float:
        return float(self.ask(str(self._amount)))

    def ask(self, text: str) -> str:
        """What it answers to a line."""
        assert self._process.stdin is not None
        print(text, file=self._process.stdin, flush=True)
        return self.line()

    def cpu_s(self) -> float:
        """Processor seconds that it has used so far, all threads (Linux)."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text()
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self._process.communicate()


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one run of train.py and evaluate.py gave.

    Attributes:
      metrics: evaluator's name to its numbers.
      train_s: of train.py on the wall, compilation and its evaluations included.
      seconds: of both programs.
      cpu_s: processor time of both programs.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    train_s: float
    seconds: float
    cpu_s: float


def train_and_evaluate(config: str, seed: int) -> Trained:
    """Runs both programs on ``configs/<config>.py`` as a user does: in processes of their own, in
    a new folder, without a compilation cache from before."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        workdir = f"--workdir={folder}/run"
        path = f"--config={_ROOT / 'configs' / config}.py"
        train = [str(_ROOT / "train.py"), path, workdir, f"--config.seed={seed}"]
        ends, before = [time.perf_counter()], resource.getrusage(resource.RUSAGE_CHILDREN)
        for command in (train, [str(_ROOT / "evaluate.py"), workdir]):
            subprocess.run(
                [sys.executable, *command],
                check=True,
                env=environment,
                cwd=_ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            ends.append(time.perf_counter())
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads((Path(folder) / "run" / "evaluation.json").read_text())
    metrics = {name: each["metrics"] for name, each in found["evaluators"].items()}
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Trained(metrics, ends[1] - ends[0], ends[2] - ends[0], cpu_s)


def seeds(arguments: Sequence[str]) -> range:
    """Seeds 0, 1, ... of ``--seeds=N``, three without it; anything else ends the program."""
    count = 3
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name != "--seeds" or not value.isdigit() or int(value) == 0:
            raise SystemExit(f"{argument}: the only argument is --seeds=N")
        count = int(value)
    return range(count)


def record(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows and writes them to ``bench/results/<name>.csv`` with versions and device.

    A row that has those already, since it was read from there, keeps them.
    """
    import jax

    where = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
    }
    full = [{**row, **{key: row.get(key, value) for key, value in where.items()}} for row in rows]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(full[0]))
        writer.writeheader()
        writer.writerows(full)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print(f"written to {path}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
