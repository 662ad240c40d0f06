"""The demo as a user runs it: training and evaluation, compilation included, for several seeds.

    python -m bench.demo [--seeds=3]

Runs train.py and evaluate.py on configs/digits_vit.py in processes of their own, in a new folder,
without a compilation cache from before. Written to bench/results/demo.csv.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import record

ROOT = Path(__file__).resolve().parents[1]


def run(seed: int) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        workdir = f"--workdir={folder}/run"
        config = f"--config={ROOT / 'configs/digits_vit.py'}"
        train = [str(ROOT / "train.py"), config, workdir, f"--config.seed={seed}"]
        start = time.perf_counter()
        for command in (train, [str(ROOT / "evaluate.py"), workdir]):
            subprocess.run(
                [sys.executable, *command],
                check=True,
                env=environment,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        seconds = time.perf_counter() - start
        found = json.loads((Path(folder) / "run" / "evaluation.json").read_text())
    metrics = found["evaluators"]["test"]["metrics"]
    return {
        "seed": seed,
        "top1": round(metrics["top1"], 4),
        "nll": round(metrics["nll"], 4),
        "ece": round(metrics["ece"], 4),
        "seconds": round(seconds, 1),
    }


def main(arguments: list[str]) -> None:
    seeds = 3
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name != "--seeds" or not value.isdigit():
            raise SystemExit(f"{argument}: the only argument is --seeds=N")
        seeds = int(value)
    record("demo", [run(seed) for seed in range(seeds)])


if __name__ == "__main__":
    main(sys.argv[1:])
