"""Losses and gradients of contrastive objectives, over the devices of all processes.

    python -m vision.programs.launch --processes 2 --devices 2 -- contrast_process.py FILE

writes an array per leaf into FILE.npz; the first of every case's leaves is the loss.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vision.parallel import cluster

sys.path.insert(0, str(Path(__file__).parent))
if __name__ == "__main__":
    cluster.join(detect=False)

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_contrast import Dual, batch, start

from vision.blocks.contrast import Sigmoid
from vision.blocks.grouping import Grouping
from vision.objectives.contrast import Contrast, SameKey
from vision.parallel.mesh import Mesh, batch_share, to_device
from vision.train.accumulate import loss_and_gradient

# Objective, and micro-batches. The ring of a group of two devices stays within a process.
CASES: dict[str, tuple[Contrast, int]] = {
    "cached": (Contrast(Dual(), duplicates="ignore", grouping=Grouping()), 2),
    "groups": (Contrast(Dual(), Sigmoid(), targets=SameKey(), groups=2), 1),
}


def leaves(name: str, data: Any, accumulate: int) -> list[jax.Array]:
    """Loss, and gradient of every parameter. Traceable."""
    objective = CASES[name][0]
    variables, context = start(objective, batch())
    loss, _, gradient = loss_and_gradient(
        objective, variables.params, variables, data, context, accumulate
    )
    return [loss, *jax.tree.leaves(gradient)]


def main(path: str) -> None:
    mesh = Mesh(data=-1, fsdp=2).build()
    part, parts = batch_share(mesh)
    actual = {}
    with jax.set_mesh(mesh):
        for name, (_, accumulate) in CASES.items():
            rows = {k: np.split(x, parts)[part] for k, x in batch().items()}
            outputs = jax.jit(
                lambda data, name=name, accumulate=accumulate: leaves(name, data, accumulate),
                out_shardings=NamedSharding(mesh, P()),
            )(to_device(rows, mesh))
            actual |= {f"{name}/{i}": np.asarray(x) for i, x in enumerate(outputs)}
    actual["devices"] = np.asarray([jax.process_count(), jax.device_count(), parts])
    if cluster.is_main():
        np.savez(path, **actual)
    cluster.leave()


if __name__ == "__main__":
    main(sys.argv[1])
