"""Trains papers twice, once killed in the middle; prints what each time ended with, as JSON.

    python -m tests.papers.killed_papers cil_survey:small,learner=wa@4 ...

A number after an @ is how many stages of a scenario are gone through; all without it.
This process imports what training needs and touches no device, so that it can fork a child per
start. Every run has few steps and saves every third. The kill comes when two thirds of all steps
are logged.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

STEPS = 12
LIMIT_S = 240


def shortened(reference: str) -> Any:
    """The config with little to do in every run."""
    from vision.config import specs as config
    from vision.scenario import stages

    name, _, count = reference.partition("@")
    loaded: Any = config.load(name)
    if count:
        loaded.stages = loaded.stages[: int(count)]
    each: dict[str, Any] = stages.runs(loaded)
    for run in each.values():
        run.total, run.log_every, run.evaluators = f"{STEPS} steps", "1 steps", None
        run.checkpoints.every = "3 steps"
        schedule = getattr(run.optimizer, "schedule", {})  # none of its own with phases
        for length in ("warmup", "cooldown"):
            if length in schedule:
                schedule[length] = "0 steps"
    stages.check(loaded, reference)
    return loaded


def start(reference: str, workdir: Path) -> int:
    """Forks a training; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        from vision.scenario import stages

        status = 0 if stages.train(shortened(reference), workdir, progress_s=math.inf).saved else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def logged(workdir: Path) -> int:
    """Steps in the logs of all runs."""
    found = 0
    for path in (workdir / "metrics.jsonl", *workdir.glob("*/metrics.jsonl")):
        with contextlib.suppress(FileNotFoundError):
            found += path.read_bytes().count(b"\n")
    return found


def go_on(reference: str, workdir: Path, until: float = math.inf) -> None:
    """Trains to the end, or until so many steps are logged and then it is killed."""
    child, began = start(reference, workdir), time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if logged(workdir) >= until or time.monotonic() > began + LIMIT_S:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    killed = os.WIFSIGNALED(status)
    if killed != math.isfinite(until) or (not killed and status):
        tail = (workdir.parent / f"{workdir.name}.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{reference}: wait status {status}\n{tail}")


def ends(workdir: Path) -> dict[str, str]:
    """The digest of every run's last state, of every file that jobs left, and of what was
    logged."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            from vision.checkpoint.reading import load_state
            from vision.run.log import read_rows
            from vision.train.state import digest

            found: dict[str, str] = {}
            runs = [path.parent for path in sorted(workdir.rglob("metrics.jsonl"))]
            for run in runs:
                step, state = load_state(run)
                rows = read_rows(run / "metrics.jsonl")
                losses = [(row["step"], row["train/loss"]) for row in rows]
                name = str(run.relative_to(workdir))
                found[name] = f"{digest(state)} at {step}"
                found[f"{name} losses"] = hashlib.sha256(repr(losses).encode()).hexdigest()
                kept = sorted({n for n in state if "extra_state" in str(n)})
                found[f"{name} extra_state"] = " ".join(kept)
            for path in sorted(workdir.rglob("*")):
                job_files = {".npy", ".npz", ".txt", ".json"}
                inside = any(run in path.parents for run in runs) or path.parent == workdir
                if path.is_file() and path.suffix in job_files and not inside:
                    found[str(path.relative_to(workdir))] = hashlib.sha256(
                        path.read_bytes()
                    ).hexdigest()
            os.write(writer, json.dumps(found).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def main(references: list[str]) -> None:
    importlib.import_module("vision.run.loop")
    found = {}
    for reference in references:
        importlib.import_module(f"papers.{reference.partition(':')[0]}.config")
        with tempfile.TemporaryDirectory() as folder:
            # The same path, since a stage's config names the folders of earlier ones.
            workdir = Path(folder) / "w"
            go_on(reference, workdir)
            undisturbed, steps = ends(workdir), logged(workdir)
            workdir.rename(Path(folder) / "undisturbed")
            go_on(reference, workdir, until=2 * steps // 3)
            at = logged(workdir)
            go_on(reference, workdir)
            found[reference] = {
                "undisturbed": undisturbed,
                "killed": ends(workdir),
                "steps": steps,
                "killed_at": at,
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
