"""Losses and collectives of a small tower on meshes of eight devices, as JSON on stdout.

A process of its own, without a compilation cache: what the partitioner complains about goes to
stderr only while it compiles. After the line ``control`` a program follows that it must complain
about.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
from tests.fast_compilation import with_devices

os.environ["XLA_FLAGS"] = with_devices(8)

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vision.models import convnext, vit
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, ShardingRule, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Cosine, TrainLength
from vision.train.step import Step

STEPS, BATCH = 4, 16
MESHES = {
    "data": Mesh(),
    "fsdp": Mesh(data=1, fsdp=8),
    "tensor": Mesh(data=1, tensor=8),
    "data x tensor": Mesh(data=4, tensor=2),
    "fsdp x tensor": Mesh(data=1, fsdp=4, tensor=2),
    "replica x fsdp": Mesh(replica=2, data=1, fsdp=4),
}
# The towers are small: split their small arrays too.
FSDP = ShardingRule(".*", "fsdp", min_size=1)
VIT = ViT(width=32, depth=2, heads=8, patch=4, num_classes=5, pool="mean", head_zero_init=False)
MODELS = {
    "vit": (VIT, (*vit.TENSOR_PARALLEL[:-1], FSDP), tuple(MESHES)),
    "unrolled vit": (
        ViT(
            width=32,
            depth=2,
            heads=8,
            patch=4,
            num_classes=5,
            pool="map",
            scan=False,
            head_zero_init=False,
        ),
        (*vit.TENSOR_PARALLEL[:-1], FSDP),
        ("fsdp x tensor",),
    ),
    "convnext": (
        ConvNeXt(
            depths=(1, 1),
            dims=(8, 16),
            stem_stride=2,
            num_classes=5,
            layer_scale=None,
            head_zero_init=False,
        ),
        (*convnext.TENSOR_PARALLEL[:-1], FSDP),
        ("fsdp x tensor",),
    ),
    "resnet": (
        ResNet(depth=10, stem="cifar", width_multiplier=0.125, num_classes=5, head_zero_init=False),
        (FSDP,),
        ("fsdp x tensor",),
    ),
}


def main(name: str) -> None:
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(BATCH, 8, 8, 3)).astype(np.float32),
        "label": rng.integers(0, 5, BATCH).astype(np.int32),
        "_mask": np.ones(BATCH, bool),
        "_index": np.arange(BATCH, dtype=np.int32),
    }
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
    one = Mesh().build(jax.devices()[:1])
    model, rules, chosen = MODELS[name]
    step = Step(
        objective=Classify(model),
        optimizer=Optimizer(sgd(), 0.05, Cosine()),
        train_length=TrainLength(num_examples=160, batch_size=BATCH, total_steps=20),
    )
    start = None
    for mesh_name in ("one device", *chosen):
        print(f"{name}, {mesh_name}", file=sys.stderr, flush=True)
        mesh = one if mesh_name == "one device" else MESHES[mesh_name].build()
        compiled = compile_step(step, shapes, mesh, rules)
        if start is None:
            start = jax.device_get(compiled.init())
        shardings = jax.tree.map(lambda x: x.sharding, compiled.abstract)
        state, losses = jax.device_put(start, shardings), []
        for _ in range(STEPS):
            state, metrics = compiled.update(state, to_device(batch, mesh))
            losses.append(float(metrics["loss"]))
        split = [x for x in jax.tree.leaves(state.params) if not x.is_fully_replicated]
        row = {"model": name, "mesh": mesh_name, "losses": losses, "split": len(split)}
        print(json.dumps({**row, "collectives": compiled.collectives}), flush=True)

    print("control", file=sys.stderr, flush=True)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()).reshape(2, 4), ("a", "b"))
    before, after = (NamedSharding(mesh, P(*p)) for p in (("a", None, "b"), (None, ("a", "b"))))
    function = jax.jit(lambda x: jax.lax.with_sharding_constraint(x, after) + 1)
    function.lower(jax.ShapeDtypeStruct((8, 8, 8), np.float32, sharding=before)).compile()


if __name__ == "__main__":
    main(sys.argv[1])
