"""Training steps in bfloat16 on one GPU, beside timm and open_clip with torch.compile.

    python -m bench.gpu --peer=.venv-torch/bin/python      # bench/h200.sh makes both environments
    python -m bench.gpu --tiny                             # small towers, no peer: also on a CPU

The same architecture, batch, AdamW and clipping on both sides, bfloat16 products with float32
parameters (torch: autocast), batches that are already on the GPU, in alternating rounds. Images
per second, the share of the GPU's peak that model FLOPs take (MFU, of the same FLOPs for both), and
the peak of its memory. Written to bench/results/gpu.csv, of which there is none yet: no GPU was at
hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import numpy as np

from bench.common import Peer, ratio, record
from bench.step import fake_batch
from vision.models.dual import Dual
from vision.models.resnet import ResNet
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.objectives.contrast import Contrast
from vision.parallel.mesh import Mesh, to_device
from vision.run.compile import compile_step
from vision.train import flops
from vision.train.optim import Optimizer, adamw
from vision.train.precision import Precision
from vision.train.schedule import TrainLength
from vision.train.step import Step

ROUNDS, STEPS = 4, 15
HALF = Precision(compute="bfloat16")


@dataclasses.dataclass(frozen=True)
class Case:
    """A step to measure.

    Attributes:
      name: of the model, as the peer knows it.
      batch: rows.
      size: side of the images, px.
      objective: what is trained.
      context: tokens of a text; 0 without texts.
    """

    name: str
    batch: int
    size: int
    objective: Any
    context: int = 0


def cases() -> list[Case]:
    """Those of the table; attention is cuDNN's, which keeps no weights."""

    def vit(variant: str, **fields: Any) -> ViT:
        return ViT(variant=variant, precision=HALF, attention="cudnn", **fields)

    text = TextTransformer(
        vocab_size=49408, pool="argmax", activation="quick_gelu", precision=HALF, attention="cudnn"
    )
    resnet = ResNet(depth=50, num_classes=1000, precision=HALF)
    clip = Dual(image=vit("B/32"), text=text, width=512)
    return [
        Case("vit_base_patch16_224", 256, 224, Classify(vit("B/16", num_classes=1000))),
        Case("vit_large_patch16_224", 128, 224, Classify(vit("L/16", num_classes=1000))),
        Case("resnet50", 512, 224, Classify(resnet)),
        Case("ViT-B-32", 1024, 224, Contrast(clip), 77),
    ]


def tiny() -> list[Case]:
    """The same code in seconds, on any device."""
    tower: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2}
    text = TextTransformer(vocab_size=20, context=5, pool="argmax", precision=HALF, **tower)
    image = ViT(patch=8, precision=HALF, **tower)
    clip = Dual(image=image, text=text, width=8)
    return [
        Case("vit", 4, 16, Classify(ViT(patch=8, num_classes=1000, precision=HALF, **tower))),
        Case("clip", 4, 16, Contrast(clip), 5),
    ]


def batch_of(case: Case) -> dict[str, np.ndarray]:
    batch = fake_batch(case.batch, case.size, 3, 1000)
    if case.context:
        rng = np.random.default_rng(1)
        batch["text"] = rng.integers(1, 20, (case.batch, case.context)).astype(np.int32)
    return batch


class Ours:
    """Our compiled step on one batch."""

    def __init__(self, case: Case) -> None:
        optimizer = Optimizer(adamw(), 1e-4, weight_decay=0.05, clip_norm=1.0)
        step = Step(case.objective, optimizer, TrainLength(10**6, case.batch, 10**4))
        mesh = Mesh().build(jax.devices()[:1])
        host = batch_of(case)
        shapes = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in host.items()}
        self.compiled = compile_step(step, shapes, mesh)
        self.state, self.batch = self.compiled.init(), to_device(host, mesh)
        self.flops = step.flops(self.compiled.abstract, shapes)  # pyright: ignore[reportArgumentType] - shapes do
        self(1)

    def __call__(self, steps: int) -> float:
        """Seconds of so many steps."""
        start = time.perf_counter()
        for _ in range(steps):
            self.state, metrics = self.compiled.update(self.state, self.batch)
        loss = float(metrics["loss"])
        assert np.isfinite(loss), loss
        return time.perf_counter() - start


def memory_gib() -> float | str:
    """Peak of the device's memory; empty where it is not told."""
    stats = jax.devices()[0].memory_stats() or {}
    return round(stats["peak_bytes_in_use"] / 2**30, 2) if "peak_bytes_in_use" in stats else ""


def measure(case: Case, python: str, rounds: int, steps: int) -> dict[str, Any]:
    """A row of the table; without a ``python`` for the peer, ours alone."""
    ours = Ours(case)
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    row: dict[str, Any] = {"model": case.name, "batch": case.batch}
    peer = None
    if python:
        arguments = (case.name, str(case.batch), str(case.size), str(case.context))
        peer = Peer(python, "gpu_step.py", steps, *arguments)
        row |= {f"peer_{key}": value for key, value in json.loads(peer.line()).items()}
        if "peer_failed" in row:
            peer.close()
            raise SystemExit(f"{case.name}: the peer says {row['peer_failed']}")
    for i in range(rounds):
        for which in ("ours", "peer") if i % 2 == 0 else ("peer", "ours"):
            if which == "ours":
                times[which].append(ours(steps))
            elif peer is not None:
                times[which].append(peer())
    device = jax.devices()[0]
    seconds = statistics.median(times["ours"]) / steps
    share = flops.mfu(ours.flops, seconds, [device], "bfloat16")
    row |= {
        "images_per_s": round(case.batch / seconds, 1),
        "mfu": "" if share is None else round(share, 3),
        "memory_gib": memory_gib(),
        "temporaries_gib": round(ours.compiled.memory.get("temporaries", 0) / 2**30, 2),
        "compile_s": round(sum(ours.compiled.seconds.values()), 1),
    }
    if peer is not None:
        peer.close()
        theirs = statistics.median(times["peer"]) / steps
        share = flops.mfu(ours.flops, theirs, [device], "bfloat16")
        middle, low, high = ratio(times["peer"], times["ours"])
        row |= {
            "peer_images_per_s": round(case.batch / theirs, 1),
            "peer_mfu": "" if share is None else round(share, 3),
            "speed_over_peer": round(middle, 3),
            "ratio_min": round(low, 3),
            "ratio_max": round(high, 3),
        }
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", default="", help="Python with torch, timm and open_clip")
    parser.add_argument("--tiny", action="store_true", help="small towers; records nothing")
    options = parser.parse_args(arguments)
    if options.tiny:
        for case in tiny():
            print(measure(case, options.peer, rounds=1, steps=2))
        return
    if jax.default_backend() != "gpu":
        raise SystemExit(f"no GPU here, JAX has {jax.default_backend()}: --tiny runs anywhere")
    record("gpu", [measure(case, options.peer, ROUNDS, STEPS) for case in cases()])


if __name__ == "__main__":
    main()
