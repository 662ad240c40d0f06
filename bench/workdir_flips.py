"""Single flipped bits in any file of a workdir: does a reader ever take it for what was written?

    python -m bench.workdir_flips [--flips=2000] [--seed=0]

A run of a config with a class of its own is trained and evaluated, and a scenario of a run and a
job. Each flip changes one random bit of one random file (kinds of files chosen evenly), and all
that comes across that file reads it: ``resume`` (the workdir opened with its config, the newest
checkpoint, rows, heartbeat, what was evaluated), ``evaluate`` (config, run.json, the state),
``verify``, ``report``, and going on with the scenario. Written: for each file how many flips were
harmless (all readers returned what they had before), noticed (an error or a warning), how many of
those were named by the file, its folder's step or the key that differs, and how many were silent
(another value and not a word) or ended in a traceback: must be 0.

TensorBoard's files and compiled programs are left out: nothing of ours reads them, and their own
checksums (CRC-32C, Adler-32) are looked at by who does. So are average.json and compare.json, which
people read alone.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.common import record
from vision.checkpoint import commands
from vision.checkpoint.evaluations import read_evaluations
from vision.checkpoint.reading import load_state
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.config import specs
from vision.config.errors import UserError
from vision.config.specs import to_json
from vision.programs.workdir import evaluate_workdir
from vision.report.files import read_run
from vision.run.clock import last_heartbeat
from vision.run.cursor import RunCursor
from vision.run.experiment import DataSpec
from vision.run.log import read_rows
from vision.run.workdir import open_workdir, read_config
from vision.scenario import stages
from vision.train.state import digest

_LEFT_OUT = ("compilation_cache/", ".lock", ".tfevents.")
_NET = """
import flax.linen as nn


class Net(nn.Module):
    num_classes: int = 3

    @nn.compact
    def __call__(self, x, *, train=False, tap=None):
        x = nn.Dense(8)(x.mean((1, 2)))
        return x, {"embedding": x, "logits": nn.Dense(self.num_classes)(x)}
"""
_RECIPE = """
import dataclasses
import json

from net import Net
from vision import spec
import vision as v
from vision.data import ops
from vision.data.sources.fake import Fake
from vision.scenario.stages import Scenario, Stage


def get_config() -> v.Config:
    source = spec(Fake, num_examples=24, image_size=4, num_classes=3)
    values = [spec(ops.ValueRange)]
    test = spec(v.EvalData, source=source, batch_size=8, ops=values)
    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=source, batch_size=8, ops=values),
        model=spec(Net),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.1),
        total="6 steps",
        log_every="1 steps",
        evaluators={"test": spec(v.Classification, data=test)},
        evaluate_every="3 steps",
        checkpoints=spec(v.Checkpoints, every="3 steps", keep=2),
    )


@dataclasses.dataclass(frozen=True)
class Count:
    upto: int = 3

    def run(self, folder):
        (folder / "count.json").write_text(json.dumps(list(range(self.upto))))
        return {"upto": float(self.upto)}


def scenario() -> v.Config:
    return spec(
        Scenario,
        stages=[
            spec(Stage, name="learn", do=get_config()),
            spec(Stage, name="count", do=spec(Count)),
        ],
    )
"""


@dataclasses.dataclass(frozen=True)
class Read:
    """What one reader made of a workdir.

    Attributes:
      value: comparable; None where an error says why there is none.
      said: errors and warnings.
      traceback: an exception that is no ``UserError``.
    """

    value: Any
    said: str = ""
    traceback: str = ""


@dataclasses.dataclass(frozen=True)
class Flip:
    """One changed bit and what came of it.

    Attributes:
      outcome: ``harmless``, ``noticed``, ``silent`` or ``traceback``.
      named: whether what was said names the file, or the step that it is of.
      detail: reader and value or message, for people.
    """

    file: str
    byte: int
    bit: int
    outcome: str
    named: bool
    detail: str


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def listening() -> Iterator[_Said]:
    """What is logged as a warning or worse, by us."""
    said = _Said()
    ours = logging.getLogger("vision")
    ours.addHandler(said)
    try:
        yield said
    finally:
        ours.removeHandler(said)


def reading(reader: Callable[[], Any]) -> Read:
    """A reader's value, with what it said; whatever it raises is caught."""
    out = io.StringIO()
    with listening() as said, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        value, errors, traceback = None, [], ""
        try:
            value = reader()
        except UserError as error:
            errors = [str(error)]
        except Exception as error:
            traceback = f"{type(error).__name__}: {error}"
    return Read(value, "\n".join([*said.lines, *errors]), traceback)


class Workdirs:
    """A trained run and a finished scenario, with everything that reads them."""

    def __init__(self, root: Path) -> None:
        self.run, self.scenario = root / "run", root / "scenario"
        (root / "recipe").mkdir()
        (root / "recipe" / "net.py").write_text(_NET)
        (root / "recipe" / "recipe.py").write_text(_RECIPE)
        self.config = specs.load(f"{root / 'recipe' / 'recipe.py'}", {})
        self.stages = specs.load(f"{root / 'recipe' / 'recipe.py'}:scenario", {})
        for config, workdir in ((self.config, self.run), (self.stages, self.scenario)):
            stages.check(config, "recipe.py")
            outcome = stages.train(config, workdir, progress_s=float("inf"))
            assert outcome.saved
            assert not outcome.failed
        evaluate_workdir(self.run, self.run)
        _, state = load_state(self.run, None)
        self.abstract = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in state.items()}

    def resume(self) -> Any:
        with open_workdir(self.run, self.config):
            store = CheckpointStore(self.run, Checkpoints(keep=2))
            restored = store.restore(self.abstract)
            store.close()
            beat = last_heartbeat(self.run)
            assert restored is not None
            return (
                *(digest(restored[0]), RunCursor.from_json(restored[1])),
                *(beat, read_rows(self.run / "metrics.jsonl")),
                read_evaluations(self.run / "checkpoints"),
            )

    def evaluate(self) -> Any:
        step, state = load_state(self.run, None)
        spec = DataSpec.load(self.run / "run.json")
        return to_json(read_config(self.run)), spec, step, digest(state)

    def verify(self) -> Any:
        lines = io.StringIO()
        with contextlib.redirect_stdout(lines):
            status = commands.verify(self.run)
        if status:
            raise commands.CheckpointError(lines.getvalue())
        return lines.getvalue()

    def report(self) -> Any:
        files = read_run(self.run)
        problems = [f"{name}: {problem}" for name, problem in files.problems.items()]
        if problems:
            raise UserError("\n".join(problems))
        series = {k: (x.steps.tolist(), x.values.tolist()) for k, x in files.series.items()}
        return files.config, series, files.evaluation

    def going_on(self) -> Any:
        outcome = stages.train(self.stages, self.scenario, progress_s=float("inf"))
        return outcome.step, outcome.metrics, outcome.failed

    def readers(self, workdir: Path, file: str) -> dict[str, Callable[[], Any]]:
        """Those that come across a file."""
        if workdir == self.scenario:
            return {"going on": self.going_on}
        every = {
            "verify": self.verify,
            "report": self.report,
            "evaluate": self.evaluate,
            "resume": self.resume,
        }
        if file in ("metrics.jsonl", "heartbeat.json", "run.json", "evaluation.json"):
            every.pop("verify")
        if file.startswith("checkpoints/"):
            every.pop("report")
        return every


def files_of(workdir: Path) -> list[str]:
    """Paths in a workdir of all files that are not empty or left out."""
    found = [str(p.relative_to(workdir)) for p in sorted(workdir.rglob("*")) if p.is_file()]
    return [f for f in found if (workdir / f).stat().st_size and not any(x in f for x in _LEFT_OUT)]


def flips(root: Path, count: int, seed: int) -> list[Flip]:
    """Trains in ``root`` and reads under ``count`` flips of one bit each."""
    made = Workdirs(root)
    pristine = root / "pristine"
    shutil.copytree(made.run, pristine / "run")
    shutil.copytree(made.scenario, pristine / "scenario")
    targets: dict[str, list[tuple[Path, str]]] = collections.defaultdict(list)
    for file in files_of(made.run):
        targets[kind(file)].append((made.run, file))
    for file in ("stages.json", "config.json", "modules.json"):
        targets[f"scenario/{file}"].append((made.scenario, file))
    before: dict[str, Read] = {}
    for workdir, file in [target for group in targets.values() for target in group]:
        for name, reader in made.readers(workdir, file).items():
            if name not in before:
                before[name] = reading(reader)
                assert not before[name].said, before[name]
                assert not before[name].traceback, before[name]
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        group = [*targets.values()][generator.integers(len(targets))]
        workdir, file = group[generator.integers(len(group))]
        content = bytearray((workdir / file).read_bytes())
        byte, bit = int(generator.integers(len(content))), int(generator.integers(8))
        content[byte] ^= 1 << bit
        results: dict[str, Read] = {}
        for name, reader in made.readers(workdir, file).items():
            (workdir / file).write_bytes(content)
            results[name] = reading(reader)
            if name in ("resume", "going on"):  # the others write nothing
                shutil.rmtree(workdir)
                shutil.copytree(pristine / workdir.name, workdir)
        (workdir / file).write_bytes((pristine / workdir.name / file).read_bytes())
        found.append(judged(f"{workdir.name}/{file}", byte, bit, results, before))
    return found


def judged(
    file: str, byte: int, bit: int, results: dict[str, Read], before: dict[str, Read]
) -> Flip:
    """The worst of what the readers made of a flip."""
    for name, read in results.items():
        if read.traceback:
            return Flip(file, byte, bit, "traceback", False, f"{name}: {read.traceback}")
    for name, read in results.items():
        if not read.said and read.value != before[name].value:
            return Flip(file, byte, bit, "silent", False, f"{name}: {str(read.value)[:300]}")
    said = {name: read.said for name, read in results.items() if read.said}
    if not said:
        return Flip(file, byte, bit, "harmless", True, "")
    words = [Path(file).name, *(part for part in Path(file).parts if part.isdigit())]
    named = all(any(word in text for word in words) for text in said.values())
    return Flip(file, byte, bit, "noticed", named, json.dumps(said)[:600])


def kind(file: str) -> str:
    """The file without names that differ from run to run."""
    parts = file.split("/")
    parts = ["*" if part.isdigit() else part for part in parts]
    return "/".join([*parts[:-1], "*"]) if "d" in parts[:-1] else "/".join(parts)


def main(count: int = 2000, seed: int = 0) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("vision").propagate = False
    with tempfile.TemporaryDirectory() as folder:
        found = flips(Path(folder).resolve(), count, seed)
    rows = []
    for name in [*sorted({kind(flip.file) for flip in found}), "all files"]:
        mine = [flip for flip in found if name in ("all files", kind(flip.file))]
        tally = collections.Counter(flip.outcome for flip in mine)
        row: dict[str, Any] = {"file": name, "flips": len(mine), "harmless": tally["harmless"]}
        row |= {"noticed": tally["noticed"]}
        row["named"] = sum(flip.named for flip in mine if flip.outcome == "noticed")
        rows.append({**row, "silent": tally["silent"], "traceback": tally["traceback"]})
    for flip in found:
        if flip.outcome in ("silent", "traceback"):
            print(f"{flip.file} byte {flip.byte} bit {flip.bit}: {flip.outcome}: {flip.detail}")
    record("workdir_flips", rows)
    if rows[-1]["silent"] or rows[-1]["traceback"]:
        sys.exit("a reader took a flipped bit for what was written, or ended in a traceback")


if __name__ == "__main__":
    flags = dict(argument.removeprefix("--").split("=") for argument in sys.argv[1:])
    main(int(flags.get("flips", 2000)), int(flags.get("seed", 0)))
