"""Features kept by ``evaluate.py --features``: made once, then there for the next evaluator.

    python -m bench.features

50,000 pictures of 32 pixels (digits enlarged, each with noise of its own) go through a small ViT
of a run that is read from its folder. ``extract_s`` is the first evaluator's wait for features and
labels: hashing weights, code and data, running the model, writing. ``again_s`` is the second's, in
a store, a source and a reader of their own, as in a new process after its imports: hashing all of
that once more, and mapping the files. It is the median of the repeats, ``longest_s`` their longest;
``sum_s`` is what going through every kept number takes after that.
"""

from __future__ import annotations

import copy
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.common import record
from configs.digits_vit import get_config
from vision.config.specs import spec
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.data.sources.digits import Digits
from vision.evaluate.evaluator import context
from vision.evaluators.features.store import FeatureStore
from vision.evaluators.image_text.embeddings import embed
from vision.run import loop
from vision.run.restore import Run, load_run

COUNT, SIZE, BATCH = 50_000, 32, 500


def pictures() -> dict[str, np.ndarray]:
    digits, rng = Digits("all"), np.random.default_rng(0)
    chosen = digits.__getitems__(rng.integers(0, len(digits), COUNT))
    large = np.repeat(np.repeat(chosen["image"], SIZE // 8, 1), SIZE // 8, 2).astype(np.int16)
    noise = rng.integers(-24, 25, large.shape, np.int16)
    image = np.clip(large + noise, 0, 255).astype(np.uint8)
    return {"image": image, "label": np.asarray(chosen["label"])}


def trained(workdir: Path) -> Run:
    """A run of one step: how good its features are does not matter to how long they take."""
    config: Any = copy.deepcopy(get_config())
    config.data.ops = [spec(ops.Resize, size=SIZE)]
    config.model.patch, config.total, config.optimizer.schedule.warmup = 4, "1 steps", "0 steps"
    config.evaluators = None
    loop.train(config, workdir, progress_s=math.inf)
    return load_run(workdir)


def wait(run: Run, workdir: Path, root: Path, arrays: dict[str, np.ndarray]) -> tuple[float, Any]:
    """Seconds until an evaluator has its rows, and the rows."""
    began = time.perf_counter()
    store = FeatureStore.of(run, workdir, root)
    source = Arrays(arrays, "enlarged digits")
    data = EvalData(source, batch_size=BATCH, ops=(ops.ValueRange(low=-1, high=1),), threads=2)
    with jax.set_mesh(run.mesh):
        asked = context(run.variables, run.step, run.mesh, store=store)
        rows = embed(run.predict, asked, data, ("embedding",), ("label",))
    return time.perf_counter() - began, rows


def main(repeats: int = 5) -> None:
    arrays = pictures()
    with tempfile.TemporaryDirectory() as folder:
        workdir, root = Path(folder) / "run", Path(folder) / "features"
        run = trained(workdir)
        extract_s, first = wait(run, workdir, root, arrays)
        times, sums = [], []
        for _ in range(repeats):
            seconds, rows = wait(run, workdir, root, arrays)
            times.append(seconds)
            began = time.perf_counter()
            total = float(rows["embedding"].sum(dtype=np.float64))
            sums.append(time.perf_counter() - began)
            assert np.array_equal(rows["embedding"], first["embedding"])
            assert np.isfinite(total)
            assert isinstance(rows["embedding"], np.memmap)
        size = sum(path.stat().st_size for path in root.rglob("*.npy"))
    row = {
        "images": COUNT,
        "size_px": SIZE,
        "width": first["embedding"].shape[1],
        "extract_s": round(extract_s, 2),
        "images_per_s": round(COUNT / extract_s),
        "again_s": round(statistics.median(times), 3),
        "longest_s": round(max(times), 3),
        "sum_s": round(statistics.median(sums), 3),
        "times_faster": round(extract_s / statistics.median(times), 1),
        "kept_mb": round(size / 1e6, 1),
        "repeats": repeats,
    }
    record("features", [row])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
