"""Our train step in a process of its own, driven line by line from ``bench/compare.py``.

    python bench/peers/our_step.py MODEL BATCH SIZE FORM CLOCK

The step is ``compile_step`` of the objective, optimizer and model that a config would name. FORM
is ``ours``, or ``lax`` for convolutions and pooling as ``jax.lax`` has them. CLOCK is ``wall`` or
``cpu``. The first line it prints is a JSON object; then each line ``N`` on standard input runs N
steps and answers with the seconds, and ``profile N`` with the milliseconds that a step spends in
each part that ``bench/step_profile.py`` names. Threads are as many as the process has cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from bench.step import fake_batch
from vision.models import convolution
from vision.models.convnext import ConvNeXt
from vision.models.efficientnet_lite import EfficientNetLite
from vision.models.resnet import ResNet
from vision.models.swin_v2 import SwinV2
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step
from vision.train.tower import Tower, count_params


def tower(name: str) -> Tower:
    if name.startswith("ViT-"):
        # As torch runs it: on a CPU a scan's slices and zeros cost time.
        return ViT(variant=name.removeprefix("ViT-"), num_classes=1000, scan=False)
    if name == "ConvNeXt-T":
        return ConvNeXt(variant="tiny", num_classes=1000)
    if name == "SwinV2-T":
        return SwinV2(variant="T", window=8, num_classes=1000)
    if name == "EfficientNet-Lite0":  # as trained with TensorFlow
        return EfficientNetLite("lite0", num_classes=1000, padding="same", norm_epsilon=1e-3)
    return ResNet(depth=50, num_classes=1000)


def products(hlo: str) -> dict[str, str]:
    """Names of the instructions that multiply matrices or convolve, to forward or backward."""
    kinds: dict[str, str] = {}
    inside: dict[str, bool] = {}  # whether a computation has a product
    computation = ""
    for line in hlo.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            computation = opened[1]
            inside.setdefault(computation, False)
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line):
            called = re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", line)
            product = re.search(r" (dot|convolution)\(|onednn|matmul", line)
            if product or any(inside.get(name) for name in called):
                inside[computation] = True
                kinds[found[1]] = "backward" if "transpose(" in line else "forward"
    return kinds


def parts(folder: Path, hlo: str, steps: int) -> dict[str, float]:
    """Milliseconds of a step by the kind of the instruction itself, what it calls left out."""
    (path,) = folder.rglob("*.xplane.pb")
    kinds, found = products(hlo), {"forward": 0.0, "backward": 0.0, "other": 0.0}
    names = set(re.findall(r"^\s+(?:ROOT )?%?([\w.\-]+) = ", hlo, re.M))
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for thread in plane.lines:
            events = [event for event in thread.events if event.name in names]
            under_way: list[tuple[float, str]] = []  # end and kind
            for event in sorted(events, key=lambda e: (e.start_ns, -e.duration_ns)):
                kind = kinds.get(event.name, "other")
                while under_way and event.start_ns >= under_way[-1][0]:
                    under_way.pop()
                if under_way:
                    found[under_way[-1][1]] -= event.duration_ns
                found[kind] += event.duration_ns
                under_way.append((event.start_ns + event.duration_ns, kind))
    return {kind: value / 1e6 / steps for kind, value in found.items()}


def main() -> None:
    name, form, clock_name = sys.argv[1], sys.argv[4], sys.argv[5]
    rows, size = int(sys.argv[2]), int(sys.argv[3])
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    if form == "lax":
        convolution._alone_on_cpu = lambda: False
    start = time.perf_counter()
    batch = fake_batch(rows, size, 3, 1000)
    optimizer = Optimizer(adamw(), 1e-4, weight_decay=0.05, clip_norm=1.0)
    step = Step(Classify(tower(name)), optimizer, TrainLength(1000, rows, 1000))
    mesh = Mesh().build()
    shapes = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}
    compiled = compile_step(step, shapes, mesh)
    state = compiled.init()
    arrays = to_device(batch, mesh)
    state, metrics = compiled.update(state, arrays)
    float(metrics["loss"])
    first = {
        "params": count_params(state.params["model"]),
        "first_step_s": round(time.perf_counter() - start, 1),
        "compile_s": round(sum(compiled.seconds.values()), 1),
        "temporaries_mib": round(compiled.memory.get("temporaries", 0) / 2**20),
    }
    hlo: Any = compiled.update
    hlo = hlo.as_text()
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        begin, steps = clock(), int(line.split()[-1])
        with tempfile.TemporaryDirectory() as folder:
            profiled = line.startswith("profile")
            with jax.profiler.trace(folder) if profiled else contextlib.nullcontext():
                for _ in range(steps):
                    state, metrics = compiled.update(state, to_device(batch, mesh))
                    float(metrics["loss"])
                jax.block_until_ready(state.params)
            seconds = clock() - begin
            answer = parts(Path(folder), hlo, steps) if profiled else seconds
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
