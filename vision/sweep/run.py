"""The work of a sweep: takes trials that nobody works on, trains them, writes down how they end."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from vision.config import specs
from vision.run.log import duration
from vision.run.sealed import NotAsWrittenError, seal, unseal
from vision.run.workdir import WorkdirError, write_text
from vision.sweep import first, space, trials
from vision.sweep.child import OUTPUT, Child
from vision.sweep.page import write_sweep_page
from vision.sweep.search import Search, described
from vision.sweep.space import Axis, Choice
from vision.sweep.trials import LOCK, Trial

DEFINITION, PAGE = "sweep.json", "sweep.html"
_SWEEP_LOCK, _PAGE_LOCK = "sweep.lock", "page.lock"
_ASKED = (128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is swept.

    Attributes:
      folder: of the sweep.
      reference: the config, as ``--config`` of ``train.py``.
      overrides: key to text, the same in all trials.
      axes: what is varied.
      metric: ``evaluator/metric`` that trials are ranked by.
      mode: whether ``max`` or ``min`` of it is best.
      count: number of trials of a search; None for a grid, which has all its points.
      sampler: of a search, see ``vision.sweep.search``.
      pruner: of a search.
      seed: of the sampler.
    """

    folder: Path
    reference: str
    overrides: Mapping[str, str]
    axes: tuple[Axis, ...]
    metric: str
    mode: str
    count: int | None = None
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0

    def describe(self) -> dict[str, Any]:
        """What may not differ from one start to the next; more trials may be asked for."""
        config = specs.load(self.reference, self.overrides)
        options = {"sampler": self.sampler, "pruner": self.pruner, "seed": self.seed}
        return {
            "axes": described(self.axes),
            "metric": self.metric,
            "mode": self.mode,
            "search": None if self.count is None else options,
            "config": specs.to_plain(config),
        }


def open_sweep(sweep: Sweep) -> None:
    """Makes the folder of a sweep, or finds that it is this one's.

    Raises:
      WorkdirError: it holds another sweep, or cannot be written.
    """
    path = sweep.folder / DEFINITION
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        with trials.locked(sweep.folder / _SWEEP_LOCK):
            if not path.exists():
                if (sweep.folder / "config.json").exists():
                    raise WorkdirError(
                        f"{sweep.folder} is the workdir of a run: a sweep needs a folder of its own"
                    )
                write_text(path, seal(sweep.describe(), indent=2) + "\n")
                return
            before, _ = unseal(path.read_text(encoding="utf-8", errors="backslashreplace"))
    except NotAsWrittenError as error:
        raise WorkdirError(f"{path} is damaged ({error}): delete it, and go on") from error
    except OSError as error:
        raise WorkdirError(f"{sweep.folder} cannot be written: {error.strerror}") from error
    if changed := specs.differences(before, sweep.describe(), "sweep"):
        shown = "\n  ".join(changed[:8]) + ("\n  ..." if len(changed) > 8 else "")
        raise WorkdirError(
            f"{sweep.folder} holds another sweep; what differs from its {DEFINITION}:\n  {shown}\n"
            "take another --workdir"
        )


def check_first(sweep: Sweep) -> None:
    """Finds what every trial would fail of, once and not in each; where one has begun, nothing.

    Keys that are varied are at their first value, or at their lower bound.

    Raises:
      FirstTrialError: what a training with these values would be refused for.
    """
    if not trials.all_trials(sweep.folder):
        varied = {axis.key: axis.ends[0] for axis in sweep.axes}
        first.check(_arguments(sweep, varied), _environment(sweep, 0))


class Worker:
    """Works on trials until none is left that nobody works on.

    Several may work on one sweep, in threads, processes and on machines with a common disk.

    Args:
      sweep: what is swept, opened.
      say: takes lines for people.
      stop: how often the sweep was asked to stop.
    """

    def __init__(self, sweep: Sweep, say: Callable[[str], None], stop: Callable[[], int]):
        self._sweep, self._say, self._stop = sweep, say, stop
        self._tried: set[int] = set()  # of a grid that failed are tried once per start
        self._choosing = threading.Lock()
        self._search: Search | None = None
        if sweep.count is not None:
            options = (sweep.sampler, sweep.pruner, sweep.seed)
            self._search = Search(sweep.folder, sweep.axes, sweep.mode, *options)
        else:
            grid = [axis for axis in sweep.axes if isinstance(axis, Choice)]
            self._points = list(space.points(grid))

    @property
    def count(self) -> int:
        """Number of trials in all."""
        return len(self._points) if self._sweep.count is None else self._sweep.count

    def run(self, jobs: int = 1) -> bool:
        """Works with so many trainings at a time; returns whether it was stopped."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            return any(list(pool.map(self._work, range(jobs))))

    def _work(self, job: int) -> bool:
        while not self._stop():
            claimed = self._claim()
            if claimed is None:
                return False
            trial, lock = claimed
            with lock:
                ended = self._train(trial, lock, job)
            if ended is None:
                return True
            self.write_page()
        return True

    def _claim(self) -> tuple[Trial, IO[str]] | None:
        """A trial that has not ended and that nobody works on, with its lock."""
        with self._choosing, trials.locked(self._sweep.folder / _SWEEP_LOCK):
            numbers = range(self.count) if self._search is None else self._search.numbers()
            for number in numbers:
                folder = trials.folder_of(self._sweep.folder, number)
                before = trials.read(folder)
                if before is not None and self._is_done(before):
                    continue
                trial = before or trials.opened(
                    self._sweep.folder, number, self._parameters(number)
                )
                if (lock := trials.held(folder / LOCK, wait=False)) is not None:
                    self._tried.add(number)
                    return trial, lock
            if self._search is None or len(numbers) >= self.count:
                return None
            number, parameters = self._search.propose()
            trial = trials.opened(self._sweep.folder, number, parameters)
            lock = trials.held(trial.folder / LOCK, wait=True)
            assert lock is not None
            return trial, lock

    def _is_done(self, trial: Trial) -> bool:
        if trial.state == "open":
            return False
        if self._search is not None:
            self._search.tell(trial)  # a kill may have come before it was told
            return True
        return trial.state != "failed" or trial.number in self._tried

    def _parameters(self, number: int) -> Mapping[str, str]:
        return self._points[number] if self._search is None else self._search.parameters(number)

    def _train(self, trial: Trial, lock: IO[str], job: int) -> Trial | None:
        """Trains a trial to its end; None where it was broken off."""
        sweep, started = self._sweep, time.monotonic()
        name = f"{trial.folder.name}, {trial.number + 1} of {self.count}: "
        name += trials.shown(trial.parameters)
        self._say(f"{name}: begins, its output is in {trial.folder / OUTPUT}")
        arguments = _arguments(sweep, trial.parameters)
        child = Child(trial.folder, arguments, lock, _environment(sweep, job))
        status, pruned = child.wait(self._stop, lambda: self._pruned(trial))
        seconds = time.monotonic() - started
        value = trials.value_of(trial.folder, sweep.metric)
        if status in _ASKED and pruned:
            ended = trial.ended("pruned", value, "", seconds)
        elif status in _ASKED or (status and self._stop()):
            dataclasses.replace(trial, seconds=trial.seconds + seconds).save()
            self._say(f"{name}: stopped; the same command goes on with it")
            return None
        elif status:
            said = child.complaint() if status > 0 else f"killed by signal {-status}"
            ended = trial.ended("failed", None, said, seconds)
        elif value is None or not math.isfinite(value):
            what = "no value of" if value is None else "a value that is not finite of"
            ended = trial.ended("failed", None, f"the run gave {what} {sweep.metric}", seconds)
        else:
            ended = trial.ended("complete", value, "", seconds)
        if self._search is not None:
            with self._choosing:
                self._search.tell(ended)
        result = ended.error or f"{sweep.metric} {ended.value:.6g}"
        self._say(f"{name}: {ended.state}, {result}, {duration(seconds)}")
        return ended

    def _pruned(self, trial: Trial) -> bool:
        """Reports what was evaluated since; whether the pruner stops the trial."""
        if self._search is None or self._sweep.pruner == "none":
            return False
        values = trials.values_of(trial.folder, self._sweep.metric)
        with self._choosing:
            return any(self._search.report(trial.number, *pair) for pair in values.items())

    def write_page(self) -> Path:
        """Writes ``sweep.html`` of what there is."""
        with trials.locked(self._sweep.folder / _PAGE_LOCK):
            found = trials.all_trials(self._sweep.folder)
            return write_sweep_page(
                self._sweep.folder / PAGE,
                found,
                metric=self._sweep.metric,
                mode=self._sweep.mode,
                count=self.count,
            )


def _arguments(sweep: Sweep, parameters: Mapping[str, str]) -> list[str]:
    """Of ``train.py``, but for the workdir."""
    settings = {**sweep.overrides, **parameters}
    changes = [f"--config.{key}={text}" for key, text in settings.items()]
    return [f"--config={sweep.reference}", *changes]


def _environment(sweep: Sweep, job: int) -> dict[str, str]:
    """A device of its own for each of several trainings, and compiled programs in common."""
    changes = {}
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = sweep.folder / "compilation_cache"
        changes["JAX_COMPILATION_CACHE_DIR"] = str(cache.resolve())
    devices = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    if len(devices) > 1:
        changes["CUDA_VISIBLE_DEVICES"] = devices[job % len(devices)]
    return changes


class Stops:
    """Counts SIGTERM and SIGINT, instead of being ended by them, while the context is open."""

    def __init__(self):
        self.count, self.signal = 0, 0

    def __enter__(self) -> Stops:
        self._before = {s: signal.signal(s, self._take) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _: object) -> None:
        self.count, self.signal = self.count + 1, number
