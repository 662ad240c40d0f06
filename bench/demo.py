"""The demo as a user runs it: training and evaluation, compilation included, for several seeds.

    python -m bench.demo [--seeds=3]

Runs train.py and evaluate.py on configs/digits_vit.py in processes of their own, in a new folder,
without a compilation cache from before. Written to bench/results/demo.csv.
"""

from __future__ import annotations

import sys

from bench.common import record, seeds, train_and_evaluate


def run(seed: int) -> dict[str, float]:
    trained = train_and_evaluate("digits_vit", seed)
    metrics = trained.metrics["test"]
    return {
        "seed": seed,
        "top1": round(metrics["top1"], 4),
        "nll": round(metrics["nll"], 4),
        "ece": round(metrics["ece"], 4),
        "seconds": round(trained.seconds, 1),
    }


if __name__ == "__main__":
    record("demo", [run(seed) for seed in seeds(sys.argv[1:])])
