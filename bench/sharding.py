"""Losses over 20 steps on 1 device and on 8 virtual ones, data-parallel and fully sharded.

    python -m bench.sharding

Same seed, same batch at every step, float32. Written to bench/results/sharding.csv.
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

from typing import Any

import jax
import numpy as np

from bench.common import record
from bench.step import fake_batch
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, ShardingRule, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import Cosine, TrainLength
from vision.train.step import Step

STEPS, BATCH = 20, 32


def losses(model: Any, mesh: jax.sharding.Mesh, rules: tuple[ShardingRule, ...]):
    """The loss of every step, and the bytes of parameters and moments on one device."""
    optimizer = Optimizer(adamw(), 1e-3, Cosine("5 steps"), weight_decay=0.05, clip_norm=1.0)
    step = Step(Classify(model), optimizer, TrainLength(1000, BATCH, STEPS))
    first = fake_batch(BATCH, 32, 3, 10)
    shapes = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in first.items()}
    compiled = compile_step(step, shapes, mesh, rules)
    state = compiled.init()
    # The same batch again and again: it is learned by heart, so the losses move far.
    batch = to_device(first, mesh)
    values = []
    for _ in range(STEPS):
        state, metrics = compiled.update(state, batch)
        values.append(float(metrics["loss"]))
    size = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    return np.asarray(values), size


def main() -> None:
    models = {
        "ViT d4 w96 p4 @32": ViT(
            width=96, depth=4, heads=4, patch=4, pool="mean", num_classes=10, drop_path=0.1
        ),
        "ResNet-10 x0.25 @32": ResNet(
            depth=10, stem="cifar", width_multiplier=0.25, num_classes=10
        ),
    }
    sharded = (ShardingRule(".*", "fsdp", min_size=1),)
    rows = []
    for name, model in models.items():
        one, whole = losses(model, Mesh().build(jax.devices()[:1]), ())
        for layout, mesh, rules in (
            ("data 8", Mesh(data=8), ()),
            ("fsdp 8", Mesh(data=1, fsdp=8), sharded),
            ("data 2 x fsdp 4", Mesh(data=2, fsdp=4), sharded),
        ):
            found, size = losses(model, mesh.build(), rules)
            difference = np.abs(found - one) / np.abs(one)
            rows.append(
                {
                    "model": name,
                    "mesh": layout,
                    "steps": STEPS,
                    "first_loss": round(float(one[0]), 4),
                    "last_loss": round(float(one[-1]), 4),
                    "max_relative_difference_first_step": f"{difference[0]:.1e}",
                    "max_relative_difference": f"{difference.max():.1e}",
                    "state_bytes_on_a_device": size,
                    "share_of_one_device": round(size / whole, 3),
                }
            )
    record("sharding", rows)


if __name__ == "__main__":
    main()
