"""Our forward pass beside timm's models on torch, with the same weights, in alternating runs.

    python -m bench.inference [--models ViT-B/16 ResNet-50] [--against eager] [--cores 1 2]

Random float32 weights of timm's are written to a safetensors file and read by both sides; the
logits of the first image are checked to agree to 1e-4 of their largest. Images of 224 px (256 for
Swin V2) are in memory, 8 at once and 1. Torch runs eager, with ``channels_last`` and with
``torch.compile``, in inference mode; ours is ``jax.jit`` of the tower, a ViT's blocks unrolled.
Rounds, clocks and ratios are those of ``bench.compare``: on one core CPU seconds, on two wall
seconds; above 1 ours is faster. The contender ``lax`` is ours with convolutions and pooling as
``jax.lax`` has them.

Written to bench/results/inference.csv, where models that are not asked for keep their rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np

from bench.common import RESULTS, Peer, ratio, record
from bench.compare import in_turn

BATCHES = (8, 1)
MODES = ("eager", "channels_last", "compile")
# name: (timm's, modes of torch, forms of ours, passes over 8 images and over 1 in a round, size)
MODELS = {
    "ViT-B/16": ("vit_base_patch16_224", ("eager", "compile"), ("ours",), (1, 3), 224),
    "ResNet-50": ("resnet50", MODES, ("ours", "lax"), (2, 6), 224),
    "EfficientNet-Lite0": ("tf_efficientnet_lite0", MODES, ("ours",), (4, 16), 224),
    "SwinV2-T": ("swinv2_tiny_window8_256", ("eager", "compile"), ("ours",), (1, 3), 256),
}
Facts = Mapping[str, Any]


def start(
    model: str, weights: str, against: list[str], python: str, cores: int
) -> tuple[dict[str, Peer], dict[str, Facts]]:
    """The contenders, waiting, and what they said about themselves."""
    theirs, modes, forms, _, size = MODELS[model]
    clock, batches = "cpu" if cores == 1 else "wall", map(str, BATCHES)
    rest = (clock, weights, *batches)
    contenders, facts = {}, {}
    for form in forms:
        if form == "ours" or form in against:
            contenders[form] = Peer(
                sys.executable, "our_forward.py", 1, model, str(size), form, *rest
            )
    for mode in (mode for mode in modes if mode in against):
        contenders[f"torch {mode}"] = Peer(
            python, "timm_forward.py", 1, theirs, str(size), mode, str(cores), *rest
        )
    for name, peer in [*contenders.items()]:
        facts[name] = json.loads(peer.line() or '{"failed": "it ended"}')
        if "failed" in facts[name]:
            print(f"{model}: {name} is left out: {facts[name]['failed']}")
            contenders.pop(name).close()
    ours = np.asarray(facts["ours"]["logits"])
    for name in contenders:
        difference = np.abs(facts[name]["logits"] - ours).max() / np.abs(ours).max()
        if difference > 1e-4:
            raise AssertionError(f"{model}: logits of {name} differ by {difference:.2g}")
    return contenders, facts


def measure(
    model: str, weights: str, against: list[str], python: str, rounds: int, cores: int
) -> list[dict[str, Any]]:
    contenders, facts = start(model, weights, against, python, cores)
    rows = []
    for batch, passes in zip(BATCHES, MODELS[model][3], strict=True):
        asked = {
            name: partial(lambda peer, text: float(peer.ask(text)), peer, f"{batch} {passes}")
            for name, peer in contenders.items()
        }
        times = in_turn(asked, rounds)
        for name in contenders:
            if name == "ours":
                continue
            middle, low, high = ratio(times[name], times["ours"])
            rows.append(
                {
                    "model": model,
                    "batch": batch,
                    "cores": cores,
                    "clock": "cpu" if cores == 1 else "wall",
                    "against": name,
                    "speed_ratio": round(middle, 3),
                    "ratio_min": round(low, 3),
                    "ratio_max": round(high, 3),
                    "ours_ms": round(1e3 * statistics.median(times["ours"]) / passes),
                    "theirs_ms": round(1e3 * statistics.median(times[name]) / passes),
                    "ours_compile_s": facts["ours"]["first_step_s"],
                    "theirs_first_s": facts[name]["first_step_s"],
                    "rounds": rounds,
                    "versions": facts[name]["versions"],
                }
            )
    for peer in contenders.values():
        peer.close()
    return rows


def others(models: list[str]) -> list[dict[str, str]]:
    """The rows of models that are not measured now."""
    path = RESULTS / "inference.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["model"] not in models]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--against", nargs="+", default=[*MODES, "lax"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with timm")
    arguments = parser.parse_args()
    every = sorted(os.sched_getaffinity(0))
    script = str(Path(__file__).parent / "peers" / "timm_forward.py")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            weights = f"{folder}/{model.replace('/', '_')}.safetensors"
            name, size = MODELS[model][0], str(MODELS[model][-1])
            command = [arguments.peers, script, name, size, "write", "2", "wall"]
            subprocess.run([*command, weights], check=True)
            for cores in arguments.cores:
                os.sched_setaffinity(0, every[-cores:])  # the processes to come inherit it
                rows += measure(
                    model, weights, arguments.against, arguments.peers, arguments.rounds, cores
                )
                os.sched_setaffinity(0, every)
                record("inference", [*others(arguments.models), *rows])


if __name__ == "__main__":
    main()
