"""Our train step on virtual CPU devices, driven line by line from ``bench/scaling.py``.

    python bench/peers/our_scaled_step.py MODEL BATCH DATA FSDP

DATA times FSDP is the number of devices. The first line it prints is a JSON object with the
collectives of the compiled step; then each line ``N`` on standard input runs N steps and answers
with the wall seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count={int(sys.argv[3]) * int(sys.argv[4])}"
)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

from bench.step import fake_batch
from vision.models import convolution
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, ShardingRule, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import TrainLength
from vision.train.step import Step

MODELS = {
    "ViT d4 w192 p4 @32": ViT(width=192, depth=4, heads=4, patch=4, pool="mean", num_classes=100),
    "ResNet-10 x0.5 @32": ResNet(depth=10, stem="cifar", width_multiplier=0.5, num_classes=100),
}


def main() -> None:
    name, rows, data, fsdp = sys.argv[1], *map(int, sys.argv[2:5])
    # Several devices compute convolutions as lax does; so does one, to compare like with like.
    convolution._alone_on_cpu = lambda: False
    mesh = Mesh(data=data, fsdp=fsdp).build()
    rules = (ShardingRule(".*", "fsdp", min_size=1),) if fsdp > 1 else ()
    batch = fake_batch(rows, 32, 3, 100)
    optimizer = Optimizer(adamw(), 1e-4, weight_decay=0.05, clip_norm=1.0)
    step = Step(Classify(MODELS[name]), optimizer, TrainLength(1000, rows, 1000))
    shapes = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}
    compiled = compile_step(step, shapes, mesh, rules)
    state = compiled.init()
    size = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    print(json.dumps({"collectives": dict(compiled.collectives), "bytes": size}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            state, metrics = compiled.update(state, to_device(batch, mesh))
            float(metrics["loss"])
        jax.block_until_ready(state.params)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
