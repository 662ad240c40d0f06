"""Temporary memory of a contrastive gradient over eight devices, for batches up to 32,768.

    python -m bench.contrast_memory

Compiles the gradient of the loss with respect to embeddings (B, 256), split over eight virtual
CPU devices, and reads the compiler's plan: peak temporary bytes per device. Nothing is run.
``matrix``: all pairs on one device; ``compiler``: the same program with rows split over the
devices by the compiler; ``ring``: texts go round the devices (``vision.blocks.sharded_contrast``).
``per_pair`` is bytes / (B x B / devices): constant where memory grows as the pairs of a device.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from bench.common import record
from vision.blocks.contrast import Loss, Sigmoid, Softmax
from vision.blocks.sharded_contrast import Modality, compare
from vision.blocks.similarity import Dot
from vision.parallel.mesh import BATCH_AXES, Mesh

WIDTH = 256
BATCHES = tuple(1024 * 2**i for i in range(6))
FORMS = {"matrix": Dot(), "compiler": Dot(), "ring": Dot(), "ring, chunks of 256": Dot(chunk=256)}


def temporary_bytes(loss: Loss, form: str, rows: int) -> int:
    """Peak temporary bytes of a device."""
    mesh = Mesh(data=8).build()
    alone = SingleDeviceSharding(jax.devices()[0])
    split = alone if form == "matrix" else NamedSharding(mesh, P(BATCH_AXES))
    embedding = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32, sharding=split)

    def total(image: jax.Array, text: jax.Array) -> jax.Array:
        key, valid = jnp.arange(rows), jnp.ones(rows, bool)
        images, texts = (Modality({"embedding": x}, key, valid) for x in (image, text))
        coefficients = loss.coefficients(loss.parameters())
        return compare(loss, FORMS[form], coefficients, images, texts).loss

    ring = form.startswith("ring")
    with jax.set_mesh(mesh) if ring else contextlib.nullcontext():
        compiled = jax.jit(jax.grad(total, (0, 1))).lower(embedding, embedding).compile()
    plan: Any = compiled.memory_analysis()
    return plan.temp_size_in_bytes


def main() -> None:
    rows = []
    for name, loss in (("softmax", Softmax()), ("sigmoid", Sigmoid())):
        for form in FORMS:
            for batch in BATCHES:
                size = temporary_bytes(loss, form, batch)
                pairs = batch * batch if form == "matrix" else batch * batch // 8
                rows.append(
                    {
                        "loss": name,
                        "form": form,
                        "batch": batch,
                        "width": WIDTH,
                        "devices_used": 1 if form == "matrix" else 8,
                        "temporary_mib": round(size / 2**20, 2),
                        "per_pair": round(size / pairs, 2),
                    }
                )
    record("contrast_memory", rows)


if __name__ == "__main__":
    main()
