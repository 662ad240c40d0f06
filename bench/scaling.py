"""Step time on 1, 2, 4 and 8 virtual CPU devices: data-parallel, fully sharded, both.

    python -m bench.scaling [--rounds 5]

The global batch is the same everywhere. Virtual devices share the cores of one machine: there is
no more hardware to be faster with, so this measures only what splitting the step and its
collectives cost, and the ideal ratio to one device is 1. Every layout is a process that lives on;
in each round each runs the same steps, in turn. Written to bench/results/scaling.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from bench.common import Peer, ratio, record

BATCH, STEPS = 64, 4
LAYOUTS = {  # data, fsdp
    "one device": (1, 1),
    "data 2": (2, 1),
    "data 4": (4, 1),
    "data 8": (8, 1),
    "fsdp 2": (1, 2),
    "fsdp 4": (1, 4),
    "fsdp 8": (1, 8),
    "data 2 x fsdp 2": (2, 2),
    "data 2 x fsdp 4": (2, 4),
}
MODELS = ("ViT d4 w192 p4 @32", "ResNet-10 x0.5 @32")


def measure(model: str, rounds: int) -> list[dict[str, Any]]:
    peers, facts = {}, {}
    for name, (data, fsdp) in LAYOUTS.items():
        peers[name] = Peer(
            sys.executable, "our_scaled_step.py", STEPS, model, str(BATCH), str(data), str(fsdp)
        )
        facts[name] = json.loads(peers[name].line())
    times: dict[str, list[float]] = {name: [] for name in peers}
    for i in range(-1, rounds):
        for name in peers if i % 2 == 0 else reversed(peers):
            seconds = peers[name]()
            if i >= 0:
                times[name].append(seconds)
    rows = []
    for name, peer in peers.items():
        peer.close()
        middle, low, high = ratio(times[name], times["one device"])
        seconds = statistics.median(times[name]) / STEPS
        collectives = facts[name]["collectives"]
        rows.append(
            {
                "model": model,
                "mesh": name,
                "virtual_devices": LAYOUTS[name][0] * LAYOUTS[name][1],
                "step_ms": round(1e3 * seconds, 1),
                "images_per_s": round(BATCH / seconds),
                "time_ratio_to_one": round(middle, 2),
                "ratio_min": round(low, 2),
                "ratio_max": round(high, 2),
                "collectives": sum(collectives.values()),
                "kinds": " ".join(f"{kind}:{n}" for kind, n in sorted(collectives.items())),
                "state_bytes_on_a_device": facts[name]["bytes"],
                "rounds": rounds,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    record("scaling", [row for model in MODELS for row in measure(model, rounds)])


if __name__ == "__main__":
    main()
