"""kill -9 at random moments of training runs, then resume: is the end that of the undisturbed run?

    python -m bench.kill [--kills=100] [--kills_per_run=1] [--seed=0] [--record=yes]

Every run is the real training loop on a small config that saves every few steps, asynchronously.
It is killed ``kills_per_run`` times, is started again each time, and must end with the SHA-256 of
the run that nothing happened to, with every step once in its ``metrics.jsonl``. Moments are
random: one in five within the start-up, the others between the first and the last step. What the
kill met is read off the disk afterwards: a half-written checkpoint, a half-deleted one, and so on.

This process imports everything but touches no device, and forks one child per start, so that a
start costs a second or two.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.common import record

_ROOT = Path(__file__).resolve().parents[1]
_TOTAL = 60
_OVERRIDES = {
    "model.width": "16",
    "model.depth": "1",
    "model.dropout": "0.1",
    "data.batch_size": "16",
    "total": f"{_TOTAL} steps",
    "optimizer.schedule.warmup": "0 steps",
    "log_every": "1 steps",
    "checkpoints.every": "4 steps",
    "evaluators": "None",
}
_LIMIT_S = 300


@dataclasses.dataclass(frozen=True)
class Kill:
    """What a killed process left behind, and how many steps it had logged."""

    met: str
    steps: int


def train(workdir: Path) -> bool:
    """Trains the small config; returns whether the last state was saved."""
    from vision.config import specs as config
    from vision.run import experiment, loop

    path = str(_ROOT / "configs" / "digits_vit.py")
    loaded = config.load(path, _OVERRIDES)
    experiment.check(loaded, path)
    return loop.train(loaded, workdir).saved


def start(workdir: Path, cache: Path, run: Callable[[Path], bool] = train) -> int:
    """Forks a process that calls ``run`` with the workdir; returns its process id. It ends with
    status 0 when that returns True."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        import jax

        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        status = 0 if run(workdir) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, until_s: float) -> int | None:
    """The child's wait status; None if it still runs at ``until_s``."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.perf_counter() >= until_s:
            return None
        time.sleep(0.001)


def logged(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finish(workdir: Path, cache: Path) -> tuple[float, float]:
    """Runs to the end; returns seconds to the first new step and from there to the end.

    Raises:
      RuntimeError: the run failed; the message has its last lines.
    """
    began = time.perf_counter()
    before = logged(workdir)
    child = start(workdir, cache)
    first = None
    while (status := wait(child, time.perf_counter() + 0.001)) is None:
        if first is None and logged(workdir) != before:
            first = time.perf_counter()
        if time.perf_counter() > began + _LIMIT_S:
            os.kill(child, signal.SIGKILL)
    if status:
        tail = (workdir.parent / f"{workdir.name}.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"a resumed run ended with wait status {status}:\n{tail}")
    end = time.perf_counter()
    return (first or end) - began, end - (first or end)


def end_of(workdir: Path) -> tuple[str, list[int]]:
    """Digest of the last state, and the steps in ``metrics.jsonl``; read in a child."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            from vision.checkpoint.reading import load_state
            from vision.train.state import digest

            step, state = load_state(workdir)
            os.write(writer, f"{digest(state)} at {step}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        found = pipe.read()
    os.waitpid(child, 0)
    from vision.run.log import read_rows

    return found, [int(row["step"]) for row in read_rows(workdir / "metrics.jsonl")]


def met(workdir: Path) -> str:
    """What was going on, by what is on disk."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return "start-up"
    if any("tmp" in path.name for path in folder.iterdir()):
        return "saving"
    if any((folder / "trash").glob("*")):
        return "deleting"
    if not any(path.name.isdigit() for path in folder.iterdir()):
        return "before the first checkpoint"
    return "between saves"


def kill(workdir: Path, cache: Path, times: tuple[float, float], generator) -> Kill | None:
    """Starts or resumes a run and kills it at a random moment; None if it ended before."""
    to_first, to_end = times
    began, before = time.perf_counter(), logged(workdir)
    child = start(workdir, cache)
    if generator.random() < 0.2:
        status = wait(child, began + generator.uniform(0, to_first))
    else:
        status = None
        while status is None and logged(workdir) == before:
            status = wait(child, time.perf_counter() + 0.002)
            if time.perf_counter() > began + _LIMIT_S:
                break
        if status is None:
            left = 1 - before / _TOTAL
            status = wait(child, time.perf_counter() + generator.uniform(0, to_end * left))
    if status is not None:
        if status:
            raise RuntimeError(f"a run failed by itself: {workdir}.log, status {status}")
        return None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Kill(met(workdir), logged(workdir))


def main(kills: int = 100, kills_per_run: int = 1, seed: int = 0, *, store: bool = True) -> int:
    """Returns how many runs did not end as the undisturbed one."""
    # Whatever a run needs is imported before forking; none of it starts a device.
    for module in ("configs.digits_vit", "vision.run.loop", "sklearn.datasets"):
        importlib.import_module(module)

    generator = np.random.default_rng(seed)
    found: list[Kill] = []
    trials = runs = different = 0  # a trial that ends before it is killed is no run
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        cache = folder / "cache"
        times = finish(folder / "undisturbed", cache)
        expected = end_of(folder / "undisturbed")
        assert expected[0].endswith(f" at {_TOTAL}"), expected
        assert expected[1] == list(range(1, _TOTAL + 1))
        while len(found) < kills:
            workdir = folder / f"run{trials}"
            goal = min(kills_per_run, kills - len(found))
            mine: list[Kill] = []
            while len(mine) < goal and (happened := kill(workdir, cache, times, generator)):
                mine.append(happened)
            finish(workdir, cache)
            trials += 1
            runs += bool(mine)
            found += mine
            print(f"run {trials}: " + ", ".join(f"{x.met} at {x.steps}" for x in mine), flush=True)
            if end_of(workdir) != expected:
                different += 1
                print(f"DIFFERENT: {workdir.name} after {mine}", flush=True)
    tally = collections.Counter(kill.met for kill in found)
    rows = [{"kill met": name, "kills": count} for name, count in sorted(tally.items())]
    rows = [{**row, "runs": "", "different ends": ""} for row in rows]
    rows.append({"kill met": "all", "kills": len(found), "runs": runs, "different ends": different})
    if store:
        record("kill", rows)
    else:
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    return different


if __name__ == "__main__":
    flags = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    numbers = {
        name: int(flags[name]) for name in ("kills", "kills_per_run", "seed") if name in flags
    }
    sys.exit(1 if main(**numbers, store=flags.get("record", "yes") == "yes") else 0)
