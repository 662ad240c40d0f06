"""Where the time of a train step on a CPU goes, ours beside timm's model on torch.

    python -m bench.step_profile [--models ResNet-50] [--steps 3] [--peers .venv-peers/bin/python]

The steps of ``bench.compare`` (batch of 8 at 224 px, float32, one core), each under its own
library's profiler: ``jax.profiler`` and ``torch.profiler``. Operations are counted as

    forward     convolutions and matrix products of the forward pass
    backward    their gradients, of images and kernels
    other       normalisation, activations, pooling, additions, clipping and the optimizer

``ours`` fuses what it can into one operation, so that a sum of elements which is computed inside a
product counts there. ``theirs_ms`` is torch eager with the layout that ``bench.compare`` finds
faster for it. Written to bench/results/step_profile.csv.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

from bench.common import Peer, record

BATCH, SIZE = 8, 224
MODELS = {
    "ResNet-50": ("resnet50", "channels_last"),
    "ViT-S/16": ("vit_small_patch16_224", "eager"),
}
PARTS = ("forward", "backward", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with timm")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])  # the processes inherit it
    rows = []
    for model in arguments.models:
        theirs, mode = MODELS[model]
        sizes = (str(BATCH), str(SIZE))
        ours = Peer(sys.executable, "our_step.py", 1, model, *sizes, "ours", "cpu")
        torch = Peer(arguments.peers, "timm_step.py", 1, theirs, *sizes, mode, "1", "cpu")
        for peer in (ours, torch):
            peer.line()
            peer()
        found = []
        for peer in (ours, torch):
            found.append(json.loads(peer.ask(f"profile {arguments.steps}")))
            peer.close()
        for part in (*PARTS, "all"):
            mine, other = (sum(x.values()) if part == "all" else x[part] for x in found)
            rows.append(
                {
                    "model": model,
                    "part": part,
                    "ours_ms": round(mine, 1),
                    "theirs_ms": round(other, 1),
                    "speed_ratio": round(other / mine, 3),
                    "share_of_ours": round(mine / sum(found[0].values()), 3),
                    "mode": f"torch {mode}",
                    "steps": arguments.steps,
                }
            )
    record("step_profile", rows)


if __name__ == "__main__":
    main()
