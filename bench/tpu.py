"""What a TPU's own compiler says of all full recipes, without a TPU: bench/results/tpu.csv.

    make tpu-env
    .venv-tpu/bin/python -m bench.tpu                    # every row that is not in the table yet
    .venv-tpu/bin/python -m bench.tpu vit_s16 clip_b32@v5e:4x4   # some recipes, or one slice of one
    .venv-tpu/bin/python -m bench.tpu --program=NAME     # rows of a changed program beside the old

A row is a recipe on a slice: whether it fits, what bounds it, the highest MFU and the compiler's
estimate, as ``python -m vision.programs.layout --target=... --compile`` prints them. A row takes
minutes of a CPU and is written when it is done; run again, the command goes on with the next. The
columns are explained in docs/scaling.md.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from vision.config import specs as configs
from vision.parallel.targets import parse_target
from vision.programs import roofline
from vision.programs.target import Outcome, measure
from vision.run.experiment import DataSpec

PATH = Path(__file__).parent / "results" / "tpu.csv"
SMALL, POD = "v5e:4x4", "v5e:16x16"
Shapes = Mapping[str, tuple[tuple[int, ...], str]]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A full recipe.

    Attributes:
      config: reference of the config.
      per_chip: rows of the batch on a chip, by target.
      changes: of the config.
      entries: of the batch, shapes of one row and dtypes; all have ``_mask`` and ``_index``.
      classes, examples: of the data.
    """

    config: str
    per_chip: Mapping[str, int]
    changes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    entries: Shapes = dataclasses.field(default_factory=dict)
    classes: int = 1000
    examples: int = 1_281_167


def _labelled(side: int = 224) -> Shapes:
    return {"image": ((side, side, 3), "float32"), "label": ((), "int32")}


def _pairs(context: int) -> Shapes:
    return {
        "image": ((224, 224, 3), "float32"),
        "text": ((context,), "int32"),
        "text_mask": ((), "bool"),
    }


_CROPS: Shapes = {
    "image/global": ((2, 518, 518, 3), "uint8"),
    "image/local": ((8, 196, 196, 3), "uint8"),
    "mask": ((2, 37, 37), "bool"),
}
_VIT, _RESNET = "configs/vit_s16_i1k.py", "configs/resnet50_i1k.py"
_B32 = {"model.image.variant": "B/32"}

RECIPES: Mapping[str, Recipe] = {
    "vit_s16": Recipe(_VIT, {SMALL: 64, POD: 64}, {}, _labelled()),
    "vit_s16_unrolled": Recipe(_VIT, {SMALL: 64}, {"model.scan": "False"}, _labelled()),
    "vit_b16": Recipe(_VIT, {SMALL: 64, POD: 64}, {"model.variant": "B/16"}, _labelled()),
    "vit_l16": Recipe(
        _VIT, {"v5p:2x2x4": 64, "v5p:4x8x8": 16}, {"model.variant": "L/16"}, _labelled()
    ),
    "resnet50": Recipe(_RESNET, {SMALL: 64, POD: 32}, {}, _labelled()),
    "convnext_t": Recipe("configs/convnext_t_i1k.py", {SMALL: 64, POD: 16}, {}, _labelled()),
    "clip_b32": Recipe(
        "configs/clip_vit_b16.py", {SMALL: 128, POD: 128}, _B32, _pairs(77), 0, 400_000_000
    ),
    "clip_b16": Recipe(
        "configs/clip_vit_b16.py", {SMALL: 128, POD: 128}, {}, _pairs(77), 0, 400_000_000
    ),
    "siglip_b16": Recipe(
        "configs/siglip_vit_b16.py", {SMALL: 128, POD: 128}, {}, _pairs(64), 0, 1_000_000_000
    ),
    "dino_b14": Recipe("papers/rad_dino/config.py", {SMALL: 4, POD: 3}, {}, _CROPS, 0, 882_775),
    "unet": Recipe("papers/diffusion_cls/config.py", {SMALL: 4, POD: 1}, {}, _labelled(256), 0),
}


def data_spec(recipe: Recipe, batch_size: int) -> DataSpec:
    """What the first batch of a recipe would say."""
    entries = {**recipe.entries, "_mask": ((), "bool"), "_index": ((), "int32")}
    batch = {name: ((batch_size, *shape), dtype) for name, (shape, dtype) in entries.items()}
    return DataSpec(recipe.examples, tuple(f"class {i}" for i in range(recipe.classes)), batch)


def compiled(recipe: Recipe, name: str) -> Outcome:
    """A recipe compiled for a target."""
    target = parse_target(name)
    batch_size = recipe.per_chip[name] * target.chips
    changes = {"data.batch_size": str(batch_size), **recipe.changes}
    config: Any = configs.load(recipe.config, changes)
    return measure(config, data_spec(recipe, batch_size), target)[1]


def row_of(outcome: Outcome) -> dict[str, Any]:
    """The columns that the compiler decides."""
    gib = 2**30
    fit, found = outcome.fit, outcome.roofline
    row: dict[str, Any] = {
        "fits": "" if fit.fits is None else fit.fits,
        "needed_gib": round(fit.needed / gib, 2),
        "available_gib": "" if fit.available is None else round(fit.available / gib, 2),
        "temporaries_gib": round(fit.parts["temporaries"] / gib, 2),
    }
    if outcome.summary is None or found is None:
        return row
    kinds = roofline.by_kind(outcome.summary.collectives).items()
    ms = {f"{name}_ms": round(s * 1e3, 3) for name, s in found.seconds.items()}
    return {
        **row,
        "hbm_gb": round(outcome.summary.hbm_bytes / 1e9, 2),
        **{f"{name}_ms": "" for name in ("products", "memory", "interconnect")},
        **{name: value for name, value in ms.items() if name != "slices_ms"},
        "bound": found.bound,
        "mfu_ceiling": round(found.ceiling, 3),
        "estimate_ms": "" if found.estimate_s is None else round(found.estimate_s * 1e3, 2),
        "estimate_mfu": "" if found.estimate is None else round(found.estimate, 3),
        "collectives": " ".join(
            f"{kind}:{each['count']}/{each['bytes'] / 1e6:.1f}MB/{each['overlapped']}"
            for kind, each in kinds
        ),
        "unknown_loops": outcome.summary.unknown_loops,
    }


COLUMNS = (
    "recipe", "target", "program", "batch_per_chip", "fits", "needed_gib", "available_gib",
    "temporaries_gib", "hbm_gb", "products_ms", "memory_ms", "interconnect_ms", "bound",
    "mfu_ceiling", "estimate_ms", "estimate_mfu", "collectives", "unknown_loops",
    "compile_s", "date", "jax", "libtpu",
)  # fmt: skip


def read() -> list[dict[str, str]]:
    if not PATH.exists():
        return []
    with PATH.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(row: Mapping[str, Any]) -> None:
    """Adds a row to the table, behind the others of its recipe and target."""
    rows: list[Mapping[str, Any]] = [*read(), row]
    order = {name: i for i, name in enumerate(RECIPES)}
    rows.sort(key=lambda each: (order[each["recipe"]], parse_target(each["target"]).chips))
    with PATH.open("w", newline="", encoding="utf-8") as file:
        writer: Any = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)


def wanted(argument: str) -> list[tuple[str, str]]:
    """The rows, recipe and slice, that ``vit_s16`` or ``vit_s16@v5e:4x4`` names."""
    name, _, target = argument.partition("@")
    if name not in RECIPES:
        raise SystemExit(f"{argument}: recipes are {', '.join(RECIPES)}; --program=NAME")
    targets = RECIPES[name].per_chip
    if target and target not in targets:
        raise SystemExit(f"{argument}: {name} has rows of {', '.join(targets)}")
    return [(name, each) for each in targets if target in ("", each)]


def main(arguments: list[str]) -> int:
    program, rows = "now", []
    for argument in arguments:
        if argument.startswith("--program="):
            program = argument.partition("=")[2]
        else:
            rows += wanted(argument)
    jax.config.update("jax_platforms", "cpu")
    done = {(each["recipe"], each["target"], each["program"]) for each in read()}
    for name, target in rows or [row for recipe in RECIPES for row in wanted(recipe)]:
        if (name, target, program) in done:
            continue
        started = time.perf_counter()
        outcome = compiled(RECIPES[name], target)
        row = {
            "recipe": name,
            "target": target,
            "program": program,
            "batch_per_chip": RECIPES[name].per_chip[target],
            **row_of(outcome),
            "compile_s": round(time.perf_counter() - started),
            "date": datetime.date.today().isoformat(),
            "jax": metadata.version("jax"),
            "libtpu": metadata.version("libtpu"),
        }
        append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
