"""Our train step in a process of its own, driven line by line from ``bench/compare.py``.

    python bench/peers/our_step.py MODEL BATCH SIZE FORM CLOCK

The step is ``compile_step`` of the objective, optimizer and model that a config would name. FORM
is ``ours``, or ``lax`` for convolutions and pooling as ``jax.lax`` has them. CLOCK is ``wall`` or
``cpu``. The first line it prints is a JSON object; then each line ``N`` on standard input runs N
steps and answers with the seconds. Threads are as many as the process has cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from bench.step import fake_batch
from vision.core.compile import compile_step
from vision.core.mesh import Mesh, to_device
from vision.core.net import Tower, count_params
from vision.core.optim import Optimizer, adamw
from vision.core.schedule import Horizon
from vision.core.step import Step
from vision.models import convolution
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify


def tower(name: str) -> Tower:
    if name.startswith("ViT-"):
        return ViT(variant=name.removeprefix("ViT-"), num_classes=1000)
    if name == "ConvNeXt-T":
        return ConvNeXt(variant="tiny", num_classes=1000)
    return ResNet(depth=50, num_classes=1000)


def main() -> None:
    name, form, clock_name = sys.argv[1], sys.argv[4], sys.argv[5]
    rows, size = int(sys.argv[2]), int(sys.argv[3])
    clock = time.process_time if clock_name == "cpu" else time.perf_counter
    if form == "lax":
        convolution._alone_on_cpu = lambda: False
    start = time.perf_counter()
    batch = fake_batch(rows, size, 3, 1000)
    optimizer = Optimizer(adamw(), 1e-4, weight_decay=0.05, clip_norm=1.0)
    step = Step(Classify(tower(name)), optimizer, Horizon(1000, rows, 1000))
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
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        begin = clock()
        for _ in range(int(line)):
            state, metrics = compiled.update(state, to_device(batch, mesh))
            float(metrics["loss"])
        jax.block_until_ready(state.params)
        print(clock() - begin, flush=True)


if __name__ == "__main__":
    main()
