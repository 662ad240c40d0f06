"""Images per second of a real run, beside the bare compiled step on one batch.

    python -m bench.end_to_end [--rounds 5]

The run is ``vision.run.loop.train`` on a config: reading, decoding, the step, rows in
``metrics.jsonl`` and TensorBoard, no evaluation and no checkpoint but the last. Its time is from
the request for batch 8 to the request for the last one, so compilation is not in it. The bare
step is the same compiled function, called with the same batch again and again. Both run in turn
in this process; ``kept`` is the run's speed over the bare step's in the same round, and what is
missing from 1 is what data and the loop cost.

    digits    configs/digits_vit.py: 8x8 images in memory, a step of a few milliseconds
    folder    a ViT-Ti/16 at 224 px on a folder of 500x375 JPEGs, batch of 8

Written to bench/results/end_to_end.csv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from bench.common import ratio, record
from bench.input import photographs
from bench.stamps import STAMPS
from configs import digits_vit, folder_vit
from vision.config.cli import cache_compilations
from vision.config.specs import spec
from vision.data import ops
from vision.models.vit import ViT
from vision.parallel.mesh import to_device
from vision.run import experiment, loop
from vision.run.compile import compile_step
from vision.run.prepare import prepare

FIRST = 8  # steps until everything is warm


def bare(config: Any):
    """A function that runs N bare steps and returns images per second."""
    prepared = prepare(config)
    data, rules = prepared.experiment.data, prepared.experiment.sharding
    compiled = compile_step(prepared.step, prepared.batch, prepared.mesh, rules)
    loader = data.loader(seed=0, first_batch=0, process_index=0, process_count=1)
    batch = next(loader)
    loader.close()
    state = compiled.init()

    def run(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        metrics: list[Any] = []
        for _ in range(steps):
            state, latest = compiled.update(state, to_device(batch, prepared.mesh))
            metrics.append(latest["loss"])
            if len(metrics) > 2:
                jax.block_until_ready(metrics.pop(0))
        jax.block_until_ready(state.params)
        return steps * data.batch_size / (time.perf_counter() - start)

    return run


def measure(name: str, config: Any, steps: int, rounds: int, folder: Path) -> dict[str, Any]:
    config.evaluators = None
    config.total = f"{FIRST + steps} steps"
    config.data._constructor = "bench.stamps.StampedData"
    experiment.check(config, name)
    run_bare = bare(config)
    run_bare(FIRST)
    speeds: dict[str, list[float]] = {"loop": [], "bare": []}
    for i in range(rounds):
        for which in ("bare", "loop") if i % 2 == 0 else ("loop", "bare"):
            if which == "bare":
                speeds[which].append(run_bare(steps))
                continue
            workdir = folder / f"{name}{i}"
            STAMPS.clear()
            loop.train(config, workdir, progress_s=1e9)
            stamps = STAMPS[-(FIRST + steps) :]  # before them: the batch that shows its shapes
            taken = stamps[-1] - stamps[FIRST]
            speeds[which].append((len(stamps) - 1 - FIRST) * config.data.batch_size / taken)
    middle, low, high = ratio(speeds["loop"], speeds["bare"])
    return {
        "case": name,
        "batch": config.data.batch_size,
        "loop_images_per_s": round(statistics.median(speeds["loop"]), 1),
        "bare_images_per_s": round(statistics.median(speeds["bare"]), 1),
        "kept": round(middle, 3),
        "ratio_min": round(low, 3),
        "ratio_max": round(high, 3),
        "steps": steps,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        cache_compilations(root / "compilations")
        for i, data in enumerate(photographs(64)):
            path = root / "images" / f"class{i % 2}" / f"{i:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        pictures: Any = folder_vit.get_config(str(root / "images"))
        pictures.data.batch_size = 8
        pictures.data.ops = (
            spec(ops.DecodeCrop, crop=spec(ops.RandomResizedCrop, size=224)),
            spec(ops.RandomFlip),
            spec(ops.ValueRange, low=-1, high=1),
        )
        pictures.model = spec(ViT, variant="Ti/16")
        record(
            "end_to_end",
            [
                measure("digits", digits_vit.get_config(), 400, rounds, root),
                measure("folder", pictures, 12, rounds, root),
            ],
        )


if __name__ == "__main__":
    main()
