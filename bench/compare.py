"""Our train step beside timm's models on torch, in alternating runs.

    python -m bench.compare [--models ViT-S/16 ResNet-50] [--against eager] [--cores 1 2]

The same architecture, batch of 8 at 224 px, float32: forward, cross-entropy, backward, clipping,
AdamW. Numbers of parameters are checked to agree to 1 in 10,000; timm's ViT has one more position,
for the class token. The blocks of our ViT are unrolled (``scan=False``), as torch's are. Ours is
what ``train.py`` compiles; torch runs eager, with ``channels_last`` and with ``torch.compile``.
Every contender is a process that lives on; in each round each runs the same number of steps, in
turn, the order reversed from round to round. The ratio is theirs over ours in the same round: above
1 ours is faster.

On one core the figure is CPU seconds, on two it is wall seconds with two threads on each side. The
former hardly depends on what else the machine does. The contender ``lax`` is our own step with
convolutions and pooling as ``jax.lax`` has them: what ``vision.models.convolution`` gains.

Written to bench/results/compare.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from bench.common import Peer, ratio, record

BATCH, SIZE = 8, 224
CONTENDERS = ["eager", "channels_last", "compile", "lax"]
# name: (timm's, modes of torch, forms of ours)
MODELS = {
    "ViT-Ti/16": ("vit_tiny_patch16_224", ("eager", "compile"), ("ours",)),
    "ViT-S/16": ("vit_small_patch16_224", ("eager", "compile"), ("ours",)),
    "ResNet-50": ("resnet50", ("eager", "channels_last", "compile"), ("ours", "lax")),
    "ConvNeXt-T": ("convnext_tiny", ("eager", "channels_last", "compile"), ("ours", "lax")),
}


def measure(
    model: str, against: list[str], python: str, rounds: int, cores: int
) -> list[dict[str, Any]]:
    theirs, modes, forms = MODELS[model]
    modes = [mode for mode in modes if mode in against]
    forms = [form for form in forms if form == "ours" or form in against]
    clock = "cpu" if cores == 1 else "wall"
    contenders: dict[str, Peer] = {}
    facts: dict[str, dict[str, Any]] = {}
    for form in forms:
        peer = Peer(sys.executable, "our_step.py", 1, model, str(BATCH), str(SIZE), form, clock)
        contenders[form], facts[form] = peer, json.loads(peer.line())
    for mode in modes if Path(python).exists() else ():
        sizes = (str(BATCH), str(SIZE))
        peer = Peer(python, "timm_step.py", 1, theirs, *sizes, mode, str(cores), clock)
        name, first = f"torch {mode}", json.loads(peer.line() or '{"failed": "it ended"}')
        if "failed" in first:
            print(f"{model}: {name} is left out: {first['failed']}")
            peer.close()
        else:
            contenders[name], facts[name] = peer, first

    params = [fact["params"] for fact in facts.values()]
    if max(params) - min(params) > 1e-4 * min(params):
        raise AssertionError(f"{model}: different networks, {facts}")
    times = in_turn(contenders, rounds)
    for peer in contenders.values():
        peer.close()

    rows = []
    for name in contenders:
        if name == "ours":
            continue
        middle, low, high = ratio(times[name], times["ours"])
        rows.append(
            {
                "model": model,
                "params": facts[name]["params"],
                "cores": cores,
                "clock": clock,
                "against": name,
                "speed_ratio": round(middle, 3),
                "ratio_min": round(low, 3),
                "ratio_max": round(high, 3),
                "ours_s": round(statistics.median(times["ours"]), 3),
                "theirs_s": round(statistics.median(times[name]), 3),
                "ours_first_step_s": facts["ours"]["first_step_s"],
                "theirs_first_step_s": facts[name]["first_step_s"],
                "rounds": rounds,
                "versions": facts[name].get("versions", "the same"),
            }
        )
    return rows


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The seconds that each contender says it took in each round; the order changes from round to
    round, and the first, uncounted one warms up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(-1, rounds):
        order = list(contenders) if i % 2 == 0 else list(contenders)[::-1]
        for name in order:
            seconds = contenders[name]()
            if i >= 0:
                times[name].append(seconds)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--against", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with timm")
    arguments = parser.parse_args()
    if not Path(arguments.peers).exists():
        print(f"no {arguments.peers}: torch is left out; see bench/requirements-peers.txt")
    every = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        for cores in arguments.cores:
            os.sched_setaffinity(0, every[-cores:])  # the processes to come inherit it
            rows += measure(model, arguments.against, arguments.peers, arguments.rounds, cores)
            os.sched_setaffinity(0, every)
            record("compare", rows)


if __name__ == "__main__":
    main()
