"""The small dual encoder as a user trains it: zero-shot on pairs it never saw, and retrieval.

    python -m bench.clip_scenes [--seeds=3]

Runs train.py and evaluate.py on configs/clip_scenes.py in processes of their own, in a new folder,
without a compilation cache from before. ``train_s`` is the time of train.py on the wall, its
evaluations included, ``seconds`` that of both; ``cpu_s`` is the processor time of both, which other
programs on the machine change less. ``chance`` is one in the number of classes, or of images.

Written to bench/results/clip_scenes.csv.
"""

from __future__ import annotations

import sys

from bench.common import record, seeds, train_and_evaluate
from configs.clip_scenes import COLOURS, SHAPES


def run(seed: int) -> dict[str, float]:
    trained = train_and_evaluate("clip_scenes", seed)
    metrics = trained.metrics
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
        "train_s": round(trained.train_s, 1),
        "seconds": round(trained.seconds, 1),
        "cpu_s": round(trained.cpu_s, 1),
    }


if __name__ == "__main__":
    record("clip_scenes", [run(seed) for seed in seeds(sys.argv[1:])])
