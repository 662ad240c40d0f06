"""Attacks of ours beside torchattacks: how many adversarial images each finds, and how fast.

    python -m bench.attacks [--peers .venv-peers/bin/python] [--rounds 3] [--examples 128]

A small ViT learns the colours of drawn scenes of 24 px in 200 steps and leaves as
``vision.weights.export`` writes it for timm; the logits of both sides are checked to agree to 1e-4
of their largest. Of the pictures that it gets right, as many as asked for are attacked by both with
the same radius, step and number of looks at the model (forward passes, of which ours spends one
more of PGD, APGD and FGSM on the last place; torchattacks spends it on APGD too). One judge, our
model, counts for both: an image fools it, and lies within the radius and 0..1. torchattacks' CW has
no search for c: neither has ours here. Rounds alternate on one core in CPU seconds, without
compilation; above 1 ours is faster. AutoAttack itself is in no package registry; torchattacks' APGD
and Square follow it; its Square in L2 fails on images as small as these, and is left out.

Written to bench/results/attacks.csv.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np

from bench.common import Peer, ratio, record
from bench.compare import in_turn
from papers.model_soups.config import small
from vision.blocks.attack import Attack, AttackState, init, run, updates
from vision.blocks.attack_rules import APGD, PGD, CarliniWagner, fgsm
from vision.config.specs import build
from vision.evaluators.robustness.square import Square
from vision.run import loop
from vision.run.restore import Run, load_run
from vision.run.workdir import write_text
from vision.weights.configs import config_of
from vision.weights.export import library_tensors
from vision.weights.preprocessing import Preprocessing
from vision.weights.reader import write_safetensors

SIDE, EPS, RADIUS = 24, 4 / 255, 0.3
LINF: dict[str, Any] = {"eps": EPS, "norm": "Linf"}
# ours, torchattacks' class, its arguments
CASES: dict[str, tuple[Attack, str, dict[str, Any]]] = {
    "FGSM": (fgsm(EPS), "FGSM", {"eps": EPS}),
    "PGD Linf": (
        PGD(EPS, steps=20, step_size=0.25),
        "PGD",
        {"eps": EPS, "alpha": EPS / 4, "steps": 20},
    ),
    "PGD L2": (
        PGD(RADIUS, "l2", steps=20, step_size=0.2),
        "PGDL2",
        {"eps": RADIUS, "alpha": RADIUS / 5, "steps": 20},
    ),
    "APGD-CE Linf": (APGD(EPS, steps=50), "APGD", {**LINF, "steps": 50, "loss": "ce"}),
    "APGD-DLR Linf": (
        APGD(EPS, loss_type="dlr", steps=50),
        "APGD",
        {**LINF, "steps": 50, "loss": "dlr"},
    ),
    "APGD-CE L2": (
        APGD(RADIUS, "l2", steps=50),
        "APGD",
        {"norm": "L2", "eps": RADIUS, "steps": 50},
    ),
    "Square Linf": (Square(EPS, queries=501), "Square", {**LINF, "n_queries": 500}),
    "Carlini-Wagner L2": (
        CarliniWagner(steps=100, searches=1, first_c=1.0),
        "CW",
        {"c": 1, "kappa": 0, "steps": 100, "lr": 0.01},
    ),
}


def trained(folder: Path) -> Run:
    config: Any = small()
    config.total, config.evaluators = "200 steps", None
    loop.train(config, folder, progress_s=math.inf)
    return load_run(folder)


def exported(run: Run, folder: Path) -> None:
    card = Preprocessing((SIDE, SIDE), mean=(0.5,) * 3, std=(0.5,) * 3)
    model = run.experiment.model
    variables = jax.device_get(run.variables)
    trees = {
        "params": variables.params["model"],
        "model_state": variables.model_state.get("model", {}),
    }
    tensors = library_tensors(model, trees, "timm", card.size)
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    for file, content in config_of("timm", model, card).items():
        write_text(folder / file, json.dumps(content))


class Ours:
    """Our side: the model on images in 0..1, and attacks compiled once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.logits = jax.jit(self._logits)

    def _logits(self, image: jax.Array) -> jax.Array:
        return self.run.predict(self.run.variables, {"image": (image - 0.5) / 0.5})["logits"]

    def attack(self, attack: Attack, image: np.ndarray, label: np.ndarray) -> tuple[Any, float]:
        """What runs it and gives the best images, and the seconds to compile."""

        def whole(image: jax.Array, label: jax.Array) -> AttackState:
            state = init(attack, jax.random.key(0), image, label)
            return run(attack, self._logits, state, updates(attack))

        start = time.perf_counter()
        compiled = jax.jit(whole).lower(image, label).compile()
        return compiled, time.perf_counter() - start


def judged(
    ours: Ours, attack: Any, image: np.ndarray, found: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, float]:
    """Which images count, and the mean Euclidean distance of those."""
    fools = np.argmax(ours.logits(found), -1) != label
    delta = (found - image).reshape(len(image), -1).astype(np.float64)
    lengths = np.linalg.norm(delta, axis=1)
    if hasattr(attack, "eps"):
        size = np.abs(delta).max(1) if attack.norm == "linf" else lengths
        fools &= size <= attack.eps + 1e-5
    fools &= (found.min((1, 2, 3)) >= 0) & (found.max((1, 2, 3)) <= 1)
    return fools, float(lengths[fools].mean()) if fools.any() else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--peers", default=".venv-peers/bin/python", help="Python with torchattacks"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--workdir", help="of a run of before; trained anew without")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = Path(arguments.workdir) if arguments.workdir else folder / "run"
        ours = Ours(load_run(kept) if (kept / "checkpoints").exists() else trained(kept))
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
        exported(ours.run, folder)
        config: Any = small()
        data = build(config.evaluators.test).data
        parts = list(data.loader(process_index=0, process_count=1))
        image = np.concatenate([part["image"] for part in parts]) / 2 + np.float32(0.5)
        label = np.concatenate([part["label"] for part in parts])
        right = np.argmax(ours.logits(image), -1) == label
        chosen = np.flatnonzero(right)[: arguments.examples]
        image, label = image[chosen].clip(0, 1), label[chosen]
        np.savez(folder / "images.npz", image=image, label=label)
        peer = Peer(arguments.peers, "torch_attacks.py", 1, name, f"{name}/images.npz", "1")
        first = json.loads(peer.line())
        mine = np.asarray(ours.logits(image[:8]))
        difference = np.abs(mine - first["logits"]).max() / np.abs(mine).max()
        if difference > 1e-4:
            raise AssertionError(f"logits differ by {difference:.2g}")
        for case, (attack, theirs, given) in CASES.items():
            compiled, seconds = ours.attack(attack, image, label)
            said: dict[str, Any] = {}
            asked = json.dumps(
                {"attack": theirs, "arguments": given, "output": f"{name}/found.npy"}
            )

            def go(compiled: Any = compiled, said: dict[str, Any] = said) -> float:
                start = time.process_time()
                said["state"] = jax.block_until_ready(compiled(image, label))
                return time.process_time() - start

            times = in_turn(
                {"ours": go, "theirs": lambda asked=asked: float(peer.ask(asked))},
                arguments.rounds,
            )
            middle, low, high = ratio(times["theirs"], times["ours"])
            state = jax.device_get(said["state"])
            found, near = judged(ours, attack, image, state.best, label)
            assert np.array_equal(found, state.found)
            other = np.load(f"{name}/found.npy", allow_pickle=False)
            them, far = judged(ours, attack, image, other, label)
            rows.append(
                {
                    "attack": case,
                    "images": len(image),
                    "ours_found": int(found.sum()),
                    "theirs_found": int(them.sum()),
                    "only_ours": int((found & ~them).sum()),
                    "only_theirs": int((them & ~found).sum()),
                    "ours_l2": round(near, 4),
                    "theirs_l2": round(far, 4),
                    "speed_ratio": round(middle, 2),
                    "ratio_min": round(low, 2),
                    "ratio_max": round(high, 2),
                    "ours_s": round(statistics.median(times["ours"]), 3),
                    "theirs_s": round(statistics.median(times["theirs"]), 3),
                    "compile_s": round(seconds, 1),
                    "rounds": arguments.rounds,
                    "versions": first["versions"],
                }
            )
            record("attacks", rows)
        peer.close()


if __name__ == "__main__":
    main()
