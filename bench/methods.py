"""A step of every method that trains, beside plain supervised training of the same tower.

    python -m bench.methods [slug ...]      # or a mode: ulsam:small,rival=plain

Takes ``papers/<slug>/config.py:small`` of every paper, and of a scenario each run, after its
earlier stages went through with two steps each. ``plain`` is ``Classify`` with the run's tower (ten
classes where it has no head), the first view of its batch, and its optimizer without rules; where
the run is plain classification by a tower of the paper, it is a ResNet-10 whose width comes nearest
to the tower's arithmetic. ``flops`` is the ratio of the arithmetic of loss and gradient; ``over``
is the ratio of the times divided by it: what a method costs that its arithmetic does not explain.
Methods that only evaluate, and those whose tower cannot classify an image, have no row; they are
named at the end. Written to bench/results/methods.csv, where rows of other methods stay.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.common import RESULTS, alternate, ratio, record
from vision.config import specs as configs
from vision.models.resnet import ResNet
from vision.objectives.classify import Classify
from vision.parallel.mesh import to_device
from vision.run.compile import Compiled, compile_step
from vision.run.prepare import prepare
from vision.run.workdir import read_config
from vision.scenario import stages
from vision.train.optim import DECAY_KERNELS, Optimizer
from vision.train.step import Step

_ROOT = Path(__file__).resolve().parents[1]
STEPS, PAIRS = 10, 8
CLASSES = 10


def runs(name: str, folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and config of every run of a paper that is more than classification."""
    config: Any = configs.load(name if ":" in name else f"{name}:small")
    for run in stages.runs(config).values():
        run.evaluators = None
        if stages.is_scenario(config):
            run.total = "2 steps"
    stages.check(config, name)
    needed = [key for key, run in stages.runs(config).items() if not _plain(run) or _own(run)]
    if stages.is_scenario(config) and needed:
        last = 1 + [stage.name for stage in config.stages].index(needed[-1])
        config.stages = config.stages[:last]
        stages.train(config, folder, progress_s=math.inf)
    for key in needed:
        run = read_config(folder / key) if key else config
        yield key, run


def _plain(run: Any) -> bool:
    return configs.locate(run.objective["_constructor"]) is Classify


def _own(run: Any) -> bool:
    """Whether the tower is one of the paper's."""
    return str(run.model["_constructor"]).startswith("papers.")


def measure(name: str, stage: str, config: Any) -> dict[str, Any]:
    """One row.

    Raises:
      ValueError, TypeError, KeyError: the tower is no classifier of the batch's images.
    """
    prepared = prepare(config)
    experiment, step, mesh = prepared.experiment, prepared.step, prepared.mesh
    loader = experiment.data.loader(seed=0, first_batch=0, process_index=0, process_count=1)
    batch = next(loader)
    loader.close()
    image = batch["image"]
    classes = experiment.model.num_classes or CLASSES  # pyright: ignore
    tower = dataclasses.replace(experiment.model, num_classes=classes)  # pyright: ignore
    alone = {
        "image": image if _takes(tower, image) else image[:, 0],
        "label": np.arange(len(image), dtype=np.int32) % classes,
        "_mask": batch["_mask"],
        "_index": batch["_index"],
    }
    optimizer = experiment.optimizer
    if not isinstance(optimizer, Optimizer):
        optimizer = next(iter(optimizer.values()))
    optimizer = dataclasses.replace(optimizer, rules=DECAY_KERNELS)
    ours, flops = _compiled(step, batch, mesh)
    plain = dataclasses.replace(step, objective=Classify(tower), optimizer=optimizer)
    if isinstance(step.objective, Classify):
        plain = _as_dear(plain, alone, flops, classes)
    theirs, plain_flops = _compiled(plain, alone, mesh)

    def repeat(compiled: Compiled, of: dict[str, np.ndarray]):
        arrays, holder = to_device(of, mesh), [compiled.init()]

        def run() -> None:
            for _ in range(STEPS):
                holder[0], _ = compiled.update(holder[0], arrays)
            jax.block_until_ready(holder[0].params)

        return run

    a, b = alternate(repeat(ours, batch), repeat(theirs, alone), PAIRS)
    middle, low, high = ratio(a, b)
    return {
        "method": name,
        "stage": stage,
        "rows": len(image),
        "method_ms": round(1e3 * float(np.median(a)) / STEPS, 2),
        "plain_ms": round(1e3 * float(np.median(b)) / STEPS, 2),
        "ratio": round(middle, 2),
        "ratio_min": round(low, 2),
        "ratio_max": round(high, 2),
        "flops": round(flops / plain_flops, 2),
        "over": round(middle * plain_flops / flops, 2),
    }


def _takes(tower: Any, image: np.ndarray) -> bool:
    """Whether the tower is called with the whole of an image of the batch, not with its views."""
    floats = jax.ShapeDtypeStruct(image.shape, np.float32)  # as batch ops leave it
    try:
        jax.eval_shape(tower.init, jax.random.key(0), floats)
    except ValueError:
        return False
    return True


def _as_dear(step: Step, batch: dict[str, np.ndarray], flops: int, classes: int) -> Step:
    """The step of a ResNet-10 whose arithmetic comes nearest to ``flops``."""

    def plain(width: float) -> Step:
        tower = ResNet(10, width_multiplier=width / 16, num_classes=classes)
        return dataclasses.replace(step, objective=Classify(tower))

    middle = max(2, round(16 * math.sqrt(flops / _flops(plain(16), batch))))
    around = [plain(width) for width in range(max(1, middle - 2), middle + 3)]
    return min(around, key=lambda each: abs(_flops(each, batch) - flops))


def _shapes(batch: dict[str, np.ndarray]) -> Any:
    return {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in batch.items()}


def _flops(step: Step, batch: dict[str, np.ndarray]) -> int:
    """Of an update."""
    zeros: Any = {key: np.zeros_like(x) for key, x in batch.items()}
    return step.flops(jax.eval_shape(lambda: step.init(zeros)), _shapes(batch))


def _compiled(step: Step, batch: dict[str, np.ndarray], mesh: Any) -> tuple[Compiled, int]:
    shapes = _shapes(batch)
    compiled = compile_step(step, shapes, mesh, ())
    return compiled, step.flops(compiled.abstract, shapes)


def main() -> None:
    jax.config.update("jax_compilation_cache_dir", str(_ROOT / ".cache" / "jax"))
    names = sys.argv[1:] or sorted(
        path.parent.name
        for path in (_ROOT / "papers").glob("*/config.py")
        if "def get_config(" in path.read_text()
    )
    with (RESULTS / "methods.csv").open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [x for x in csv.DictReader(file) if x["method"] not in names]
    left_out: list[str] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found = list(runs(name, Path(folder) / "stages"))
            if not found:
                left_out.append(f"{name}: trains by Classify, or evaluates")
            for stage, config in found:
                try:
                    rows.append(measure(name, stage, config))
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    said = str(error).split("\n")[0][:100]
                    left_out.append(f"{name} {stage}: {type(error).__name__}: {said}")
                else:
                    print(*rows[-1].values(), flush=True)
    print("without a row:", *left_out, sep="\n  ")
    record("methods", sorted(rows, key=lambda row: (row["method"], row["stage"])))


if __name__ == "__main__":
    main()
