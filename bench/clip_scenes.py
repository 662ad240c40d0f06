"""The small dual encoder as a user trains it: zero-shot on pairs it never saw, and retrieval.

    python -m bench.clip_scenes [--seeds=3]

Runs train.py and evaluate.py on configs/clip_scenes.py in processes of their own, in a new folder,
without a compilation cache from before. ``cpu_s`` is the processor time of both, which other
programs on the machine change less than ``seconds``, the time on the wall. ``chance`` is one in
the number of classes, or of images. Written to bench/results/clip_scenes.csv.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import record
from configs.clip_scenes import COLOURS, SHAPES

ROOT = Path(__file__).resolve().parents[1]


def run(seed: int) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    with tempfile.TemporaryDirectory() as folder:
        workdir = f"--workdir={folder}/run"
        config = f"--config={ROOT / 'configs/clip_scenes.py'}"
        train = [str(ROOT / "train.py"), config, workdir, f"--config.seed={seed}"]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
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
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads((Path(folder) / "run" / "evaluation.json").read_text())
    metrics = {name: each["metrics"] for name, each in found["evaluators"].items()}
    classes = len(SHAPES) * len(COLOURS)
    return {
        "seed": seed,
        "unseen_pairs_top1": round(metrics["unseen"]["top1"], 4),
        "seen_pairs_top1": round(metrics["seen"]["top1"], 4),
        "pairs_chance": round(1 / classes, 4),
        "shape_top1": round(metrics["shape"]["top1"], 4),
        "shape_chance": round(1 / len(SHAPES), 4),
        "image_to_text_r1": round(metrics["retrieval"]["image_to_text_r1"], 4),
        "text_to_image_r1": round(metrics["retrieval"]["text_to_image_r1"], 4),
        "retrieval_chance": round(1 / metrics["retrieval"]["images"], 4),
        "seconds": round(seconds, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }


def main(arguments: list[str]) -> None:
    seeds = 3
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name != "--seeds" or not value.isdigit() or int(value) == 0:
            raise SystemExit(f"{argument}: the only argument is --seeds=N")
        seeds = int(value)
    record("clip_scenes", [run(seed) for seed in range(seeds)])


if __name__ == "__main__":
    main(sys.argv[1:])
