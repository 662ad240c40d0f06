"""Seconds until programs and modules are imported, beside ``import jax`` and ``import timm``.

    python -m bench.import_time [--rounds 5]

Every contender is a fresh Python in each round, in turn; CPU seconds (user and system), which
hardly depend on what else the machine does, and wall seconds. Compiled bytecode is in place. The
ratio is to ``import jax`` in the same round. With ``--heaviest`` it also lists the packages that
``vision.run.loop`` imports, by the time that is spent in each itself.

Written to bench/results/import_time.csv.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.common import ratio, record

ROOT = Path(__file__).resolve().parents[1]
JAX = "import jax"
OURS = {
    JAX: ["-c", "import jax"],
    "train.py --help": ["train.py", "--help"],
    "evaluate.py --help": ["evaluate.py", "--help"],
    "import vision.config.specs": ["-c", "import vision.config.specs"],
    "import vision.run.loop": ["-c", "import vision.run.loop"],
    "import vision.data.pipeline": ["-c", "import vision.data.pipeline"],
    "import vision.models.vit": ["-c", "import vision.models.vit"],
    "config of the demo": ["-c", "from configs.digits_vit import get_config; get_config()"],
}
PEERS = {
    "import torch": ["-c", "import torch"],
    "import timm": [
        "-c",
        "import sys; sys.path.insert(0, 'bench/peers'); "
        "from timm_step import timm_without_operators; timm_without_operators()",
    ],
}


def run(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of a program that must succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def heaviest(module: str, count: int) -> None:
    """Prints the packages whose own code takes longest to import."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
    lines = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stderr.splitlines()
    own: collections.Counter[str] = collections.Counter()
    for line in lines:
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdigit():
            own[fields[2].strip().split(".")[0]] += int(fields[0])
    for package, microseconds in own.most_common(count):
        print(f"{microseconds / 1e6:7.2f} s  {package}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with timm")
    parser.add_argument("--heaviest", type=int, default=0, help="how many packages to list")
    arguments = parser.parse_args()
    commands = {name: [sys.executable, *rest] for name, rest in OURS.items()}
    if Path(arguments.peers).exists():
        commands |= {name: [arguments.peers, *rest] for name, rest in PEERS.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for i in range(-1, arguments.rounds):
        for name in commands if i % 2 == 0 else reversed(commands):
            taken = run(commands[name])
            if i >= 0:
                times[name].append(taken)
    rows: list[dict[str, Any]] = []
    for name, taken in times.items():
        cpu, wall = zip(*taken, strict=True)
        middle, low, high = ratio(cpu, [one for one, _ in times[JAX]])
        rows.append(
            {
                "what": name,
                "cpu_s": round(statistics.median(cpu), 2),
                "wall_s": round(statistics.median(wall), 2),
                "ratio_to_jax": round(middle, 2),
                "ratio_min": round(low, 2),
                "ratio_max": round(high, 2),
                "rounds": arguments.rounds,
            }
        )
    record("import_time", rows)
    if arguments.heaviest:
        heaviest("vision.run.loop", arguments.heaviest)


if __name__ == "__main__":
    main()
