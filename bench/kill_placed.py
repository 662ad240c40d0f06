"""kill -9 at chosen moments of a run, then the same command again: is the end the undisturbed one?

    python -m bench.kill_placed [--only=WORDS] [--record=no]

Beside the random moments of ``bench.kill``: before and after every rename of a save, between the
deletions of an old checkpoint, in the middle of a row, while compiling, evaluating, restoring,
setting a damaged checkpoint aside, and between the stages of a scenario. The child kills itself:
functions of the library, of ``os`` and of Orbax are wrapped in it, and the n-th call with a certain
path is its last. Nothing of this is in the library. A moment that is not reached is a failure.

Compared are the SHA-256 of the last state of every run, and every row of its ``metrics.jsonl`` but
for what is measured in seconds.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.common import record
from bench.kill import end_of, start, wait

_ROOT = Path(__file__).resolve().parents[1]
_LIMIT_S = 300
_TOTAL = 12
_RUN = {
    "model.width": "16",
    "model.depth": "1",
    "model.dropout": "0.1",
    "data.batch_size": "16",
    "total": f"{_TOTAL} steps",
    "optimizer.schedule.warmup": "0 steps",
    "log_every": "1 steps",
    "checkpoints.every": "3 steps",
    "checkpoints.keep": "2",
    "evaluate_every": "6 steps",
    "evaluators.test.data.batch_size": "64",
}
# Names of files and folders: with N for a number and * for what differs from run to run.
_PATTERNS = ((r"[0-9a-f]{32}", "*"), (r"\d+(\.\d+)*", "N"))


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where a process kills itself.

    Attributes:
      name: for people.
      call: ``os.replace``, ``os.fsync`` and so on, or ``module:name`` of a function or method.
      path: of calls of ``os``: what the path must contain, numbers as N.
      nth: which of these calls, from 1.
      after: it has been made, rather than not yet.
      kind: what is trained: ``run``, ``damaged`` (a stopped run whose newest checkpoint a bit was
        flipped in), ``stopped`` (it only goes on) or ``stages``.
    """

    name: str
    call: str
    path: str = ""
    nth: int = 1
    after: bool = False
    kind: str = "run"


def both(name: str, call: str, path: str = "", nth: int = 1, kind: str = "run") -> list[Moment]:
    return [
        Moment(f"{when} {name}", call, path, nth, when == "after", kind)
        for when in ("before", "after")
    ]


def moments() -> list[Moment]:
    """All of them, in the order in which a run meets them."""
    save, trash = r"/checkpoints/N.orbax-checkpoint-tmp", "/checkpoints/trash/N"
    log, evaluations = "/w/metrics.jsonl$", "/checkpoints/evaluations.json$"
    return [
        *both("config.json is replaced", "os.replace", "/w/config.json$"),
        *both("run.json is replaced", "os.replace", "/w/run.json$"),
        *both("the first compilation", "vision.run.loop:compile_step"),
        Moment("after the first update", "vision.run.loop:_Loop._step", after=True),
        Moment("in the middle of a row", "a row", nth=5),
        *both("a heartbeat is replaced", "os.replace", "/w/heartbeat.json$", 4),
        *both("rows are put on the disk", "os.fsync", log, 2),
        *both("the first save is started", "vision.checkpoint.store:CheckpointStore._start"),
        Moment("the folder of a save is made", "os.mkdir", f"{save}$", 2, after=True),
        *both(
            "a manifest is encoded", "vision.checkpoint.manifest:CheckpointManifest.encode", nth=2
        ),
        *both("a manifest gets its name", "os.rename", f"{save}/manifest$", 2),
        *both("a state gets its name", "os.rename", f"{save}/state$", 2),
        *both("the first save gets its name", "os.rename", "/checkpoints/N$"),
        *both("the second save gets its name", "os.rename", "/checkpoints/N$", 2),
        *both("an old checkpoint is moved to the trash", "os.replace", f"{trash}$"),
        *both("the first file of it is deleted", "os.unlink", trash),
        *both("the tenth file of it is deleted", "os.unlink", trash, 10),
        *both("its last folder is deleted", "os.rmdir", f"{trash}$"),
        *both("an evaluation", "vision.run.evaluation:evaluate"),
        Moment("in the middle of an evaluation", "vision.evaluate.evaluator:to_device", nth=3),
        *both("a row gets its evaluation", "os.replace", log),
        *both("evaluations.json is replaced", "os.replace", evaluations),
        *both("the last save gets its name", "os.rename", "/checkpoints/N$", 4),
        *both("the last evaluation", "vision.run.evaluation:evaluate", nth=2),
        *both("rows are cut on resume", "os.replace", log, kind="stopped"),
        *both("a checkpoint is read", "vision.checkpoint.store:read", kind="stopped"),
        Moment("after resume", "vision.run.loop:restore_or_init", after=True, kind="stopped"),
        Moment("the quarantine is made", "os.mkdir", "/quarantine$", after=True, kind="damaged"),
        *both("a checkpoint is set aside", "os.replace", "/quarantine/N-N$", kind="damaged"),
        *both("an older one is read", "vision.checkpoint.store:read", nth=2, kind="damaged"),
        *both("the first stage is noted", "os.replace", "/stages.json$", kind="stages"),
        Moment("a job's folder is made", "os.mkdir", "partial$", after=True, kind="stages"),
        Moment("in the middle of a job", "vision.scenario.features:kmeans", kind="stages"),
        *both("a job's folder gets its name", "os.replace", "/w/clusters$", kind="stages"),
        *both("the job is noted", "os.replace", "/stages.json$", 2, kind="stages"),
        *both("the next stage saves", "os.rename", "/second/checkpoints/N$", kind="stages"),
        *both("the last stage is noted", "os.replace", "/stages.json$", 3, kind="stages"),
    ]


def config_of(kind: str, workdir: Path) -> Any:
    """The config that a kind of run trains."""
    from vision.config import specs
    from vision.config.specs import spec
    from vision.scenario.features import Clusters
    from vision.scenario.stages import Scenario, Stage

    path = str(_ROOT / "configs" / "digits_vit.py")
    if kind != "stages":
        return specs.load(path, _RUN)
    short = {**_RUN, "total": "6 steps", "evaluate_every": "None"}
    first: Any = specs.load(path, short)
    job = spec(Clusters, run_of="stage:first", data=first.evaluators["test"].data, clusters=5)
    first.evaluators = None
    second = specs.load(
        path,
        {**{k: x for k, x in short.items() if "test" not in k}, "evaluators": "None", "seed": "1"},
    )
    return spec(
        Scenario,
        stages=[
            spec(Stage, name="first", do=first),
            spec(Stage, name="clusters", do=job),
            spec(Stage, name="second", do=second),
        ],
    )


def train(kind: str) -> Callable[[Path], bool]:
    def run(workdir: Path) -> bool:
        from vision.scenario import stages

        config = config_of(kind, workdir)
        stages.check(config)
        return stages.train(config, workdir).saved

    return run


def place_of(call: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> str:
    """Which file a call of ``os`` is about; where two are named, the one that it makes."""
    given = arguments[1] if call in ("replace", "rename") else arguments[0]
    if isinstance(given, int):
        path = os.readlink(f"/proc/self/fd/{given}")
    else:
        path = os.fsdecode(given)
        if (folder := keywords.get("dir_fd")) is not None:
            path = f"{os.readlink(f'/proc/self/fd/{folder}')}/{path}"
    for pattern, text in _PATTERNS:
        path = re.sub(pattern, text, path)
    return path


def arm(moment: Moment) -> None:
    """From here on this process kills itself at the moment."""
    calls = itertools.count(1)
    where, _, name = moment.call.partition(":")
    if where == "a row":
        return _tear_a_row(moment.nth)
    owner: Any = os
    if name:
        *path, name = name.split(".")
        owner = importlib.import_module(where)
        for part in path:
            owner = getattr(owner, part)
    else:
        name = where.removeprefix("os.")
    original = getattr(owner, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        meant = owner is not os or re.search(moment.path, place_of(name, args, kwargs))
        last = meant and next(calls) == moment.nth
        if last and not moment.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def _tear_a_row(nth: int) -> None:
    from vision.run.log import METRICS, RowFile

    flush, calls = RowFile.flush, itertools.count(1)

    def torn(self: Any, *, sync: bool = False) -> bool:
        if self._waiting and self._path.name == METRICS and next(calls) == nth:
            data = "".join(self._waiting).encode()
            with self._path.open("ab") as file:
                file.write(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return flush(self, sync=sync)

    RowFile.flush = torn


def killed(moment: Moment, workdir: Path, cache: Path) -> None:
    """Starts a run that kills itself at the moment.

    Raises:
      RuntimeError: it did not get there.
    """

    def run(folder: Path) -> bool:
        arm(moment)
        return train(moment.kind)(folder)

    status = wait(start(workdir, cache, run), time.perf_counter() + _LIMIT_S)
    if status is None or not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError(f"{moment} was not reached: status {status}\n{tail(workdir)}")


def finish(kind: str, workdir: Path, cache: Path) -> None:
    """The same command again, to the end."""
    status = wait(start(workdir, cache, train(kind)), time.perf_counter() + _LIMIT_S)
    if status != 0:
        raise RuntimeError(f"a run ended with status {status}\n{tail(workdir)}")


def tail(workdir: Path) -> str:
    return (workdir.parent / f"{workdir.name}.log").read_text(errors="replace")[-3000:]


def ends(kind: str, workdir: Path) -> list[Any]:
    """Of every run: the digest of its last state and its rows, without what is timed."""
    from vision.run.log import read_rows

    found: list[Any] = []
    for folder in (workdir,) if kind != "stages" else (workdir / "first", workdir / "second"):
        rows = [
            {k: x for k, x in row.items() if k.split("/")[0] in ("step", "train", "test")}
            for row in read_rows(folder / "metrics.jsonl")
        ]
        found.append((end_of(folder)[0], rows))
    if kind == "stages":
        names = [
            row["name"] for row in json.loads((workdir / "stages.json").read_text())["finished"]
        ]
        found.append((names, (workdir / "clusters" / "clusters.npy").read_bytes()))
    return found


def damage(workdir: Path) -> None:
    """Flips a bit in every file with arrays of the newest checkpoint; some are not used."""
    newest = max(workdir.glob("checkpoints/[0-9]*"), key=lambda path: int(path.name))
    for path in newest.rglob("d/*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def main(only: str = "", *, store: bool = True) -> int:
    """Returns how many runs did not end as the undisturbed one."""
    # Whatever a run needs is imported before forking; none of it starts a device.
    for module in (
        "configs.digits_vit",
        "vision.scenario.features",
        "vision.scenario.stages",
        "sklearn.datasets",
    ):
        importlib.import_module(module)

    chosen = [moment for moment in moments() if only in moment.name]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        cache = folder / "cache"
        expected: dict[str, list[Any]] = {}
        for i, moment in enumerate(chosen):
            trained = "stages" if moment.kind == "stages" else "run"
            if trained not in expected:
                finish(trained, folder / trained, cache)
                expected[trained] = ends(trained, folder / trained)
            workdir = folder / str(i) / "w"
            workdir.parent.mkdir()
            if moment.kind in ("stopped", "damaged"):
                before = Moment("a third save", "os.rename", "/checkpoints/N$", 3, after=True)
                killed(before, workdir, cache)
                if moment.kind == "damaged":
                    damage(workdir)
            killed(moment, workdir, cache)
            finish(moment.kind, workdir, cache)
            equal = ends(trained, workdir) == expected[trained]
            rows.append({"killed": moment.name, "of": moment.kind, "equal end": equal})
            print(*rows[-1].values(), flush=True)
            shutil.rmtree(workdir.parent)
    different = sum(not row["equal end"] for row in rows)
    total = {"killed": f"all {len(rows)}", "of": "", "equal end": f"{different} different"}
    if store:
        record("kill_placed", [total, *rows])
    print(f"moments {len(rows)}  different ends {different}")
    return different


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="moments whose name contains this")
    parser.add_argument("--record", default="yes", choices=("yes", "no"))
    arguments = parser.parse_args()
    sys.exit(1 if main(arguments.only, store=arguments.record == "yes") else 0)
