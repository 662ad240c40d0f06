"""Making members of the zoo: train, export in half precision, measure, write the card."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import jax

from vision.config.config_files import find
from vision.config.errors import UserError
from vision.config.hints import CONSTRUCTOR
from vision.config.schema import locate
from vision.config.specs import differences, from_plain, load, to_plain, without_defaults
from vision.papers.ledger import ROOT, depends
from vision.programs import train
from vision.run.experiment import DataSpec
from vision.run.workdir import DATA_SPEC, read_config, write_text
from vision.weights import zoo
from vision.weights.export import export
from vision.weights.reader import open_weights
from vision.weights.stored import Weights
from vision.zoo import features
from vision.zoo.measure import member

PLAN = "plan.json"
"""Beside the members: name to config and seed of all that are to be there."""
_DECIDE = (
    *("data", "model", "objective", "optimizer", "total", "init_from", "batch_shapes", "ema"),
    *("accumulate", "nonfinite", "seed"),
)
MOST_BYTES = 2_000_000
SAMPLE = 256
"""Examples of the first evaluator that tests ask about again."""
LICENCE = "apache-2.0"


def plan() -> dict[str, dict[str, Any]]:
    """Name of every member that ``make zoo`` makes to its ``config`` and ``seed``, or to the
    source of the tower whose ``features`` it has."""
    return json.loads((zoo.zoo_folder() / PLAN).read_text(encoding="utf-8"))


def make(name: str, workdirs: Path) -> None:
    """Makes a member, or goes on where that was broken off, and writes its folder.

    A run that has ended in ``workdirs`` is not trained again.

    Args:
      name: of ``plan``.
      workdirs: folder for the runs.

    Raises:
      UserError: no such name, training failed or was broken off, or the weights are too large.
    """
    known = plan()
    if name not in known:
        raise UserError(f"{name} is not in {zoo.zoo_folder() / PLAN}: {', '.join(known)}")
    if "features" in known[name]:
        features.make(name, known[name], workdirs)
        return
    config, seed = str(known[name]["config"]), int(known[name]["seed"])
    workdir, folder = workdirs / name, zoo.zoo_folder() / name
    arguments = [f"--config={config}", f"--workdir={workdir}", f"--config.seed={seed}"]
    if (workdir / zoo.CONFIG).exists():
        begun = told(to_plain(read_config(workdir)))
        if not differences(begun, planned(config, seed)):  # what else differs decides no weight
            arguments.append("--accept_config_change")
    if status := train.main(arguments):
        raise UserError(f"{name}: training ended with status {status}; the same command goes on")
    export(workdir, folder, dtype="float16", licence=LICENCE)
    (folder / "README.md").unlink()  # the card and docs/zoo.md say more
    size = (folder / zoo.WEIGHTS).stat().st_size
    if size > MOST_BYTES:
        raise UserError(f"{folder / zoo.WEIGHTS} has {size:,} bytes; at most {MOST_BYTES:,} ship")
    spec = DataSpec.load(workdir / DATA_SPEC)
    weights = open_weights(folder / zoo.WEIGHTS)
    card: dict[str, Any] = {
        "config": config,
        "config_sha256": config_digest(folder),
        "seed": seed,
        "command": f"python -m vision.zoo --make={name}",
        "step": _last(workdir, "step"),
        "minutes": round(_seconds(workdir) / 60, 1),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
        "weights_sha256": hashlib.sha256((folder / zoo.WEIGHTS).read_bytes()).hexdigest(),
        "bytes": size,
        "parameters": _parameters(weights),
        "data": data_digests(json.loads((folder / zoo.CONFIG).read_text())["data"]),
        "code": code_digests(config),
        "num_examples": spec.num_examples,
        "class_names": list(spec.class_names),
        "batch": {key: [list(shape), dtype] for key, (shape, dtype) in spec.batch.items()},
    }
    write(folder, card)
    ready = member(name)
    card["reaches"] = ready.reached()
    card["sample"] = {"examples": SAMPLE, "reaches": ready.reached(SAMPLE)}
    write(folder, card)


def write(folder: Path, card: dict[str, Any]) -> None:
    """Writes the card of a member into its folder."""
    text = json.dumps(card, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / zoo.CARD, text + "\n")


def told(plain: Any) -> Any:
    """What decides the weights in a resolved config, without the defaults of constructors.

    A constructor that has got one more argument since changes nothing here, nor does what is only
    measured, logged or saved.
    """
    config = without_defaults(from_plain(plain))
    return {key: config[key] for key in _DECIDE if key in config}


def config_digest(folder: Path) -> str:
    """SHA-256 of a member's resolved config."""
    return hashlib.sha256((folder / zoo.CONFIG).read_bytes()).hexdigest()


def planned(config: str, seed: int) -> Any:
    """What ``make`` would train, told as of a member's own ``config.json``."""
    return told(to_plain(load(config, {"seed": str(seed)})))


def data_digests(data: Any) -> dict[str, str]:
    """Packed files beside the sources of a data config, by name, to their SHA-256."""
    found: dict[str, str] = {}
    waiting = [data]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            module = (
                getattr(locate(node[CONSTRUCTOR]), "__module__", "") if CONSTRUCTOR in node else ""
            )
            if module.startswith("vision.data.sources."):
                place = ROOT.joinpath(*module.split(".")).parent
                for path in sorted(place.glob("*.zip")):
                    name = path.relative_to(ROOT).as_posix()
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def code_digests(config: str) -> dict[str, str]:
    """Path of every file that a config depends on to the hash of what it uses there.

    As of claims, see ``vision.papers.ledger``: without the loop, the data layer and pages.
    """
    path = find(config.partition(":")[0])
    if path is None:
        raise UserError(f"{config}: no such config")
    return depends(path.resolve())


def _parameters(weights: Weights) -> int:
    return sum(math.prod(x.shape) for k, x in weights.items() if k.startswith("params."))


def _last(workdir: Path, key: str) -> int:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return int(max(row[key] for row in rows if key in row))


def _seconds(workdir: Path) -> float:
    """Wall time of a run by activity, all together, from the last row that has it."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if any(key.startswith("seconds/") for key in row)]
    return sum(x for key, x in told[-1].items() if key.startswith("seconds/")) if told else 0.0
