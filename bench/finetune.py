"""What a step of every ``tune=`` of configs/finetune_folder.py needs, as the compiler counts it.

    python -m bench.finetune

ViT-S/16 at 224 px, batch 8, float32, one CPU device; nothing is run. ``gflop`` is the loss and the
gradient of what is trained, ``optimizer_mb`` what the optimizer remembers, ``temporaries_mb``
activations and gradients at their worst moment. Written to bench/results/finetune.csv.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from bench.common import record
from vision.config import specs as configs
from vision.parallel.mesh import Mesh
from vision.programs.layout import described
from vision.run import experiment as experiments
from vision.run.compile import compile_step
from vision.run.prepare import prepare

BATCH = 8
TUNED = ("all", "head", "bias", "lora", "dora", "prompts")


def needs(tune: str, accumulate: int) -> dict[str, Any]:
    mode = f"configs/finetune_folder.py:images,tower=vit_s16,tune={tune}"
    overrides = {"data.batch_size": str(BATCH), "accumulate": str(accumulate)}
    config = configs.load(mode, overrides)
    experiments.check(config)
    data_spec = described("224x224x3", 10, 1000, BATCH)
    prepared = prepare(config, data_spec)
    step, shapes = dataclasses.replace(prepared.step, batch_ops=()), prepared.batch
    compiled = compile_step(step, shapes, Mesh().build(jax.devices()[:1]))
    (update,) = step.phase_updates(compiled.abstract.params)
    rates = update.optimizer.multipliers(compiled.abstract.params)
    leaves = jax.tree.leaves(compiled.abstract.params)
    pairs = zip(leaves, jax.tree.leaves(rates), strict=True)
    remembered = jax.tree.leaves(compiled.abstract.opt_state)
    work = step.flops(compiled.abstract, shapes)  # pyright: ignore[reportArgumentType]
    return {
        "tune": tune,
        "accumulate": accumulate,
        "trained": sum(math.prod(x.shape) for x, rate in pairs if np.any(rate)),
        "gflop": round(work / 1e9, 1),
        "optimizer_mb": round(sum(math.prod(x.shape) * 4 for x in remembered) / 1e6, 1),
        "temporaries_mb": round(compiled.memory["temporaries"] / 1e6),
    }


def main() -> None:
    rows = [needs(tune, 1) for tune in TUNED]
    rows += [needs(tune, 4) for tune in ("all", "head")]
    record("finetune", rows)


if __name__ == "__main__":
    main()
