"""Our train step and loop beside a bare hand-written ``jax.jit`` loop, in alternating runs.

    python -m bench.step

Same model, batch and optimizer (AdamW, clipping, cosine schedule). The bare loop is what one
writes by hand in twenty lines; ours adds the mesh, metrics, learning-rate rules, the transfer
guard and the bound on steps in flight. Written to bench/results/step.csv.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bench.common import alternate, ratio, record
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, to_device
from vision.run.compile import compile_step
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import Cosine, TrainLength
from vision.train.step import Step

STEPS, PAIRS = 10, 12


def bare(model: Any, batch: dict[str, np.ndarray], total: int):
    """A train step as one writes it by hand."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, total)
    kernels = functools.partial(
        jax.tree_util.tree_map_with_path, lambda path, _: path[-1].key == "kernel"
    )
    transform = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05, mask=kernels)
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, image, label):
        variables, opt_state, key, count = state
        params, rest = variables

        def loss(params):
            (_, out), updated = model.apply(
                {"params": params, **rest},
                image,
                train=True,
                rngs={"dropout": jax.random.fold_in(key, count)},
                mutable=list(rest),
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(out["logits"], label)
            return losses.mean(), updated

        (value, updated), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = transform.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return ((params, updated), opt_state, key, count + 1), value

    variables = dict(model.init(jax.random.key(0), batch["image"], train=False))
    params = variables.pop("params")
    return step, (
        (params, variables),
        transform.init(params),
        jax.random.key(1),
        jnp.zeros([], int),
    )


def measure(name: str, model: Any, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    total = STEPS * (PAIRS + 1)
    optimizer = Optimizer(adamw(), 1e-3, Cosine("10 steps"), weight_decay=0.05, clip_norm=1.0)
    step = Step(Classify(model), optimizer, TrainLength(1000, len(batch["label"]), total))
    mesh = Mesh().build()
    compiled = compile_step(
        step, {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch.items()}, mesh
    )
    holder: dict[str, Any] = {"ours": compiled.init()}
    their_step, holder["bare"] = bare(model, batch, total)

    def ours() -> None:
        pending = []
        for _ in range(STEPS):
            arrays = to_device(batch, mesh)
            with jax.transfer_guard("disallow"):
                holder["ours"], metrics = compiled.update(holder["ours"], arrays)
            pending.append(metrics)
            if len(pending) > 2:
                jax.block_until_ready(pending.pop(0)["loss"])
        jax.block_until_ready(holder["ours"].params)

    def theirs() -> None:
        for _ in range(STEPS):
            holder["bare"], _ = their_step(holder["bare"], batch["image"], batch["label"])
        jax.block_until_ready(holder["bare"][0])

    a, b = alternate(ours, theirs, PAIRS)
    middle, low, high = ratio(a, b)
    return {
        "model": name,
        "batch": len(batch["label"]),
        "ours_ms": round(1e3 * float(np.median(a)) / STEPS, 2),
        "bare_ms": round(1e3 * float(np.median(b)) / STEPS, 2),
        "ratio": round(middle, 3),
        "ratio_min": round(low, 3),
        "ratio_max": round(high, 3),
    }


def fake_batch(rows: int, size: int, channels: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(rows, size, size, channels)).astype(np.float32),
        "label": rng.integers(0, classes, rows).astype(np.int32),
        "_mask": np.ones(rows, bool),
        "_index": np.arange(rows, dtype=np.int32),
    }


def main() -> None:
    digits = ViT(width=48, depth=3, heads=4, patch=2, pool="mean", num_classes=10)
    small = ViT(width=96, depth=4, heads=4, patch=4, pool="mean", num_classes=100)
    convolutions = ResNet(depth=10, stem="cifar", width_multiplier=0.25, num_classes=100)
    record(
        "step",
        [
            measure("ViT d3 w48 p2 @8 (demo)", digits, fake_batch(64, 8, 1, 10)),
            measure("ViT d4 w96 p4 @32", small, fake_batch(32, 32, 3, 100)),
            measure("ResNet-10 x0.25 @32", convolutions, fake_batch(32, 32, 3, 100)),
        ],
    )


if __name__ == "__main__":
    main()
