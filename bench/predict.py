"""Predictions of a folder of JPEGs beside timm's inference loop, with the same weights.

    python -m bench.predict [--models resnet50] [--images 128] [--peers .venv-peers/bin/python]

Different 500x375 JPEGs, quality 90, cut from scikit-learn's two photographs, lie in a folder.
Random weights of timm's are read by both sides. Ours is what ``python -m vision.predict`` does once
the model is there: list, read, decode, resize, classify, write a CSV with the five likeliest
classes. Theirs is the loop of timm's ``inference.py``: its data set, its loader, torch in inference
mode, softmax, the five likeliest classes, a CSV. float32, 224 px; ours in batches of 8, its default
on CPUs, theirs in batches of 8 and of 32.

Each side is a process that lives on and makes its passes in turn with the others, the order
reversed from round to round; the ratio is theirs over ours in a round: above 1 ours is faster. On
one core the figure is CPU seconds, with everything in one thread; on two it is wall seconds, with
four threads that decode on our side and 0, 1 or 2 worker processes on theirs, which start anew in
every pass, as they do in the script. The five classes of the first images have to be the same, with
probabilities to 2 %: the libraries decode and resize with other arithmetic.

Written to bench/results/predict.csv.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from bench.common import Peer, ratio, record
from bench.compare import in_turn
from bench.input import photographs

OURS, THEIRS = 8, (8, 32)
MODELS = ("resnet50", "vit_small_patch16_224", "mobilenetv3_large_100")


def measure(
    model: str, weights: str, folder: str, python: str, rounds: int, cores: int, images: int
) -> list[dict[str, Any]]:
    clock, threads = ("cpu", 0) if cores == 1 else ("wall", 4)
    ours = (model, weights, folder, str(OURS), str(threads), clock)
    peers = {"ours": Peer(sys.executable, "our_predict.py", 1, *ours)}
    for workers, batch in itertools.product((0,) if cores == 1 else (0, 1, 2), THEIRS):
        theirs = (model, weights, folder, str(batch), str(workers), str(cores), clock)
        name = f"timm, {workers} workers, batches of {batch}"
        peers[name] = Peer(python, "timm_predict.py", 1, *theirs)
    facts = {name: json.loads(peer.line()) for name, peer in peers.items()}
    for name, fact in facts.items():
        for ours, theirs in zip(facts["ours"]["first"], fact["first"], strict=True):
            for (label, probability), (number, other) in zip(ours, theirs, strict=True):
                if int(label) != int(number) or abs(probability - other) > 0.02 * other:
                    raise AssertionError(f"{model}: {name} says {theirs}, ours {ours}")
    times = in_turn(peers, rounds)
    for peer in peers.values():
        peer.close()
    rows = []
    for name in peers:
        if name == "ours":
            continue
        middle, low, high = ratio(times[name], times["ours"])
        rows.append(
            {
                "model": model,
                "cores": cores,
                "clock": clock,
                "against": name,
                "speed_ratio": round(middle, 3),
                "ratio_min": round(low, 3),
                "ratio_max": round(high, 3),
                "ours_images_per_s": round(images / statistics.median(times["ours"]), 1),
                "theirs_images_per_s": round(images / statistics.median(times[name]), 1),
                "images": images,
                "ours_first_pass_s": facts["ours"]["first_pass_s"],
                "theirs_first_pass_s": facts[name]["first_pass_s"],
                "rounds": rounds,
                "versions": facts[name]["versions"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with timm")
    given = parser.parse_args()
    every = sorted(os.sched_getaffinity(0))
    script = str(Path(__file__).parent / "peers" / "timm_forward.py")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for i, data in enumerate(photographs(given.images)):
            (images / f"{i:04}.jpg").write_bytes(data)
        for model in given.models:
            weights = f"{folder}/{model}.safetensors"
            command = [given.peers, script, model, "224", "write", "2", "wall", weights]
            subprocess.run(command, check=True)
            for cores in given.cores:
                os.sched_setaffinity(0, every[-cores:])  # the processes to come inherit it
                rows += measure(
                    model, weights, str(images), given.peers, given.rounds, cores, given.images
                )
                os.sched_setaffinity(0, every)
                record("predict", rows)


if __name__ == "__main__":
    main()
