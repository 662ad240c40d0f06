"""The one training loop: data in, steps, evaluation, checkpoints, logs, signals."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import io
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from vision.core import cluster, faults
from vision.core.checkpoint import CheckpointStore
from vision.core.clock import Stopwatch, last_heartbeat
from vision.core.config import build
from vision.core.evaluator import Stopped, evaluate
from vision.core.experiment import DataSpec, Experiment, assemble, observe
from vision.core.journal import Journal
from vision.core.log import Meter, Progress, duration
from vision.core.mesh import batch_share, to_device
from vision.core.plan import plan
from vision.core.signals import catch_signals
from vision.core.trace import Trace
from vision.core.workdir import DATA_SPEC, open_workdir

# Steps in flight before the host waits for the oldest: enough to hide dispatch, and a bound on
# the memory that waiting batches take.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of ``train`` ended.

    Attributes:
      step: updates done in all.
      signal: the signal that stopped it; None when it ran to the end.
      saved: whether the last state is on disk.
      metrics: last value of everything logged, ``"train/loss"``, ``"test/top1"`` and so on.
    """

    step: int
    signal: int | None
    saved: bool
    metrics: Mapping[str, float]


def train(
    config: ml_collections.ConfigDict,
    workdir: Path,
    *,
    accept_config_change: bool = False,
    progress_s: float = 10.0,
    profile_steps: int = 0,
    spent_s: float = 0.0,
) -> Outcome:
    """Trains a checked config to its end, from the newest checkpoint in ``workdir`` if any.

    SIGTERM and SIGINT finish the step under way, save and return; a second one kills at once.
    With several processes every one of them calls this with the same arguments.

    Args:
      config: a config that ``vision.core.experiment.check`` has passed.
      workdir: folder of the run: config, checkpoints, metrics. All processes see the same one.
      accept_config_change: go on although the folder was made with another config.
      progress_s: seconds between progress lines when the output is not a terminal.
      profile_steps: write a trace of so many steps into ``workdir/profile``.
      spent_s: seconds the program has run already, for the account of time.

    Raises:
      UserError: what concerns the user: config, workdir, data, checkpoint, a loss that is NaN.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            open_workdir(workdir, config, accept_config_change=accept_config_change)
        )
        started = time.perf_counter()
        data = build(config.data)
        data_spec = observe(data)
        data_spec.save(workdir / DATA_SPEC)
        experiment = assemble(config, data_spec, data)
        run = _Run(experiment, data_spec, workdir, progress_s, stack, started - spent_s)
        return run.to_the_end(profile_steps)


@dataclasses.dataclass(frozen=True)
class _Pending:
    """An update under way: its number, what came with its batch, its metrics on the device."""

    step: int
    waited_s: float
    bad_records: int
    records: np.ndarray
    metrics: Mapping[str, jax.Array]


class _Run:
    """The moving parts of one call of ``train``."""

    def __init__(
        self,
        experiment: Experiment,
        data_spec: DataSpec,
        workdir: Path,
        progress_s: float,
        stack: contextlib.ExitStack,
        started: float,
    ):
        self.experiment, self.workdir = experiment, workdir
        self.batch_size = experiment.data.batch_size
        self.evaluators = dict(experiment.evaluators or {})
        building_s = time.perf_counter() - started
        self.plan = plan(experiment, data_spec)
        self.total, self.mesh, self.compiled = self.plan.total, self.plan.mesh, self.plan.compiled
        # One object for the whole run: evaluators cache their compiled functions by it.
        self.predict = functools.partial(self.plan.step.predict)

        self.last: dict[str, float] = {}
        self.measured: dict[str, float] = {}  # by evaluators, of the present state
        self.pending: collections.deque[_Pending] = collections.deque()
        self.rollbacks = 0
        self.store = CheckpointStore(workdir, experiment.checkpoints)
        stack.callback(self.store.close)
        restore_started = time.perf_counter()
        alive = last_heartbeat(workdir)
        meta = self._take_newest()
        age_s = time.perf_counter() - started
        self.watch = Stopwatch.resumed(meta, alive, age_s)
        self.watch.add("restore", time.perf_counter() - restore_started)
        self.watch.add("compile", self.plan.seconds)
        self.watch.add("start", building_s)
        self.starts: int = meta.get("starts", 0) + 1

        self.idle_until = 0.0  # when the newest finished step ended; later after a pause
        self.step_s_saved = self.watch.seconds.get("step", 0.0)
        self.row_meter = Meter(self.batch_size, self.plan.mfu(experiment))
        self.line_meter = Meter(self.batch_size)
        stack.callback(lambda: self.loader.close())
        stack.callback(lambda: self.journal.flush(sync=False))
        self.signals = stack.enter_context(catch_signals())
        self.progress = Progress(
            self.total, None if cluster.is_main() else io.StringIO(), interval_s=progress_s
        )
        self.progress.say(
            f"{self.plan.summary}; ready in {time.perf_counter() - started:.1f} s, "
            f"{self.plan.seconds:.1f} s of it compiling"
        )
        if meta:
            self.progress.say(f"resumed from the checkpoint of step {self.done}")

    def _take_newest(self, offset: int | None = None) -> dict[str, Any]:
        """Goes to the newest checkpoint, or to the beginning; returns the checkpoint's meta data.

        Batch ``t + offset`` is the one that update ``t + 1`` takes; rolling back moves it.
        """
        restored = self.store.restore(self.compiled.abstract)
        meta: dict[str, Any] = restored[1] if restored else {}
        self.state = restored[0] if restored else self.compiled.init()
        self.done: int = meta.get("step", 0)
        self.saved, self.saved_s = self.done, time.monotonic()
        self.offset: int = meta.get("data_offset", 0) if offset is None else offset - self.done
        self.bad_before: int = meta.get("bad_records", 0)
        self.bad_here = 0
        self.skipped: int = meta.get("skipped", 0)
        self.skipped_in_a_row: int = meta.get("skipped_in_a_row", 0)
        self.unevaluated: bool = meta.get("unevaluated", False)
        process, processes = jax.process_index(), jax.process_count()
        self.journal = Journal(self.workdir, self.done, process, processes)
        part, parts = batch_share(self.mesh)
        self.loader = self.experiment.data.loader(
            seed=self.experiment.seed,
            first_batch=self.done + self.offset,
            process_index=part,
            process_count=parts,
        )
        return meta

    def to_the_end(self, profile_steps: int = 0) -> Outcome:
        """Steps until the total is reached or a signal comes."""
        if self.unevaluated:
            self._evaluate(self._due())
        first = self.done
        trace = Trace(self.workdir, profile_steps, first, self.total, self.progress.say)
        self.idle_until = time.perf_counter()
        stopped = None
        while self.done < self.total and not (stopped := self.signals.stop(self.done)):
            trace.before(self.done)
            self._step()
            trace.after(self.done, self.pending[-1].metrics)
            due, save, last = self._due(), self._save_due(), self.done == self.total
            went_back = self._finish(0 if due or save or last else _IN_FLIGHT)
            if went_back:
                continue
            self._evaluate(due)
            if save and not last:
                self._save(wait=False)
            if due or save:
                self.idle_until = time.perf_counter()
        self._finish(0)
        saved = self._save(wait=True)
        if not stopped:
            spent = duration(self.watch.total_s)
            self.progress.say(
                f"done: {self.done} steps in {spent} ({self.watch.shares()})"
                if first < self.total
                else f"already trained to step {self.done}: nothing to do"
            )
        return Outcome(self.done, stopped, saved, self.last)

    def _step(self) -> None:
        """Takes a batch and dispatches an update."""
        self.measured = {}
        started = time.perf_counter()
        batch = next(self.loader)
        # The device only waits for data when nothing is left for it to do.
        idle = not self.pending or self.pending[-1].metrics["loss"].is_ready()  # pyright: ignore
        waited_s = time.perf_counter() - started if idle else 0.0
        self._note_bad_records()
        arrays = to_device(batch, self.mesh)
        with jax.transfer_guard("disallow"):
            self.state, metrics = self.compiled.update(self.state, arrays)
        self.done += 1
        pending = _Pending(self.done, waited_s, self.bad_here, batch["_index"], metrics)
        self.pending.append(pending)
        self.journal.beat(self.done, "step")

    def _finish(self, in_flight: int) -> bool:
        """Waits until at most ``in_flight`` updates are under way; logs those that are done.

        Returns:
          Whether one of them made the run go back to a checkpoint.
        """
        while len(self.pending) > in_flight:
            pending = self.pending.popleft()
            jax.block_until_ready(pending.metrics["loss"])
            now = time.perf_counter()
            total_s = now - self.idle_until
            waited_s = min(pending.waited_s, total_s)
            for meter in (self.row_meter, self.line_meter):
                meter.add(total_s, waited_s)
            self.watch.add("data", waited_s)
            self.watch.add("step", total_s - waited_s)
            self.idle_until = now
            values = {k: float(jax.device_get(pending.metrics[k])) for k in ("loss", "grad_norm")}
            if all(map(math.isfinite, values.values())):
                self.skipped_in_a_row = 0
            elif self._not_finite(pending, values):
                return True
            self._log_step(pending)
        return False

    def _not_finite(self, pending: _Pending, values: dict[str, float]) -> bool:
        """Does what ``config.nonfinite`` says; returns whether the run went back."""
        policy = self.experiment.nonfinite
        shared = dict(cluster.gather((batch_share(self.mesh)[0], pending.records.tolist())))
        records = [index for part in sorted(shared) for index in shared[part]]
        row = {"update": pending.step, "action": policy.action, "records": records}
        row |= {name: str(value) for name, value in values.items()}
        if policy.action == "skip":
            self.skipped += 1
            self.skipped_in_a_row += 1
            self.journal.skipped(pending.step, row)
            if self.skipped_in_a_row >= policy.limit:
                tried = f"; it was skipped, like {policy.limit - 1} before it in a row"
                raise faults.explain(pending.step, values, tried)
            return False
        if policy.action == "stop" or self.rollbacks >= policy.limit:
            self.journal.metrics(pending.step, {f"train/{k}": v for k, v in values.items()})
            tried = f"; went back {self.rollbacks} times before" if self.rollbacks else ""
            raise faults.explain(pending.step, values, tried)
        self.rollbacks += 1
        self.pending.clear()
        self.loader.close()
        self.journal.flush()
        step_s = self.watch.seconds.get("step", 0.0)
        self.watch.seconds["step"] = self.step_s_saved
        self.watch.add("lost", step_s - self.step_s_saved)
        self._take_newest(offset=pending.step + self.offset)
        self.journal.skipped(self.done, row)
        self.progress.say(
            f"update {pending.step} is not finite: back to step {self.done}, and on with the "
            "batches after the one that failed; see skipped.jsonl"
        )
        self.idle_until = time.perf_counter()
        return True

    def _log_step(self, pending: _Pending) -> None:
        row = self.plan.log_interval.due(pending.step) or pending.step == self.total
        line = self.progress.due()
        if not (row or line):
            return
        found = jax.device_get(pending.metrics)
        values = {f"train/{name}": float(x) for name, x in found.items()}
        if row:
            bad = self._bad_records(pending.bad_records)
            counts = {"train/bad_records": bad, "train/skipped_updates": self.skipped}
            if of_parts := getattr(self.experiment.data, "counts", None):  # of a mixture
                drawn = of_parts(pending.step + self.offset)
                counts |= {f"data/{name}": count for name, count in drawn.items()}
            values |= {name: float(count) for name, count in counts.items() if count}
            values |= self.row_meter.read() | {"goodput": self.watch.goodput}
            self._log(pending.step, values)
        if line:
            speed = self.line_meter.read()
            self.progress.show(
                pending.step, values["train/loss"], batch_size=self.batch_size, **speed
            )

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        self.last.update(values)
        self.journal.metrics(step, values)

    def _due(self) -> list[str]:
        """Evaluators that run at the present step."""
        last, intervals = self.done == self.total, self.plan.evaluate_intervals
        return [
            n for n in self.evaluators if last or (n in intervals and intervals[n].due(self.done))
        ]

    def _save_due(self) -> bool:
        overdue = time.monotonic() - self.saved_s >= self.experiment.checkpoints.every_s
        if jax.process_count() > 1:
            # Clocks differ: process 0 decides, at steps where asking it costs little.
            overdue = self.plan.log_interval.due(self.done) and cluster.agree(overdue)
        return overdue or self.plan.save_interval.due(self.done)

    def _evaluate(self, names: list[str]) -> None:
        """Runs evaluators; a signal breaks them off, and they run again on resume."""
        self.unevaluated = bool(names)

        def stop() -> bool:
            self.journal.beat(self.done, "evaluate")
            return self.signals.stop(self.done) is not None

        with self.watch("evaluate"), contextlib.suppress(Stopped):
            for name in names:
                numbers, _ = evaluate(
                    self.evaluators[name],
                    self.predict,
                    self.state.averaged,
                    self.done,
                    self.mesh,
                    stop=stop,
                )
                found = {f"{name}/{key}": value for key, value in numbers.items()}
                self.measured |= found
                self._log(self.done, found)
                shown = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
                self.progress.say(f"step {self.done}  {name}: {shown}")
            self.unevaluated = False

    def _save(self, *, wait: bool) -> bool:
        if self.done != self.saved:
            seconds = {f"seconds/{name}": s for name, s in self.watch.seconds.items()}
            self._log(self.done, seconds)
        self.saved = self.done
        with self.watch("checkpoint"):
            self.journal.flush()
            self.journal.beat(self.done, "checkpoint", now=True)
            self.saved_s = time.monotonic()
            self.step_s_saved = self.watch.seconds.get("step", 0.0)
            meta = {
                "step": self.done,
                "time": time.time(),
                "seconds": self.watch.seconds,
                "starts": self.starts,
                "data_offset": self.offset,
                "bad_records": self._bad_records(self.bad_here),
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
                "unevaluated": self.unevaluated,
                "metrics": {k: v for k, v in self.measured.items() if math.isfinite(v)},
            }
            saved = self.store.save(self.done, self.state, meta, wait=wait)
            self.journal.beat(self.done, "checkpoint", now=wait)
            return saved

    def _bad_records(self, here: int) -> int:
        """All processes' bad records since the beginning; every process has to ask."""
        return self.bad_before + sum(cluster.gather(here))

    def _note_bad_records(self) -> None:
        for record in self.loader.take_bad():
            self.bad_here += 1
            if self.bad_before + self.bad_here == 1:
                self.progress.say(f"masked a bad record: {record}; see bad_records.jsonl")
            self.journal.bad_record(self.done + 1, record)
