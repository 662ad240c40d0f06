"""The one training loop: data in, steps, evaluation, checkpoints, logs, signals."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np

from vision.checkpoint.evaluations import StepEvaluation
from vision.checkpoint.store import CheckpointStore
from vision.config.specs import to_plain
from vision.evaluate.figures import Figure
from vision.parallel import cluster
from vision.parallel.mesh import batch_share, to_device
from vision.run import nonfinite
from vision.run.bad_records import BadRecords
from vision.run.changes import describe_change, earlier_config
from vision.run.clock import SaveTimer, StepClock, Stopwatch, last_heartbeat
from vision.run.compile import compile_step
from vision.run.cost import cost_of
from vision.run.cursor import RunCursor
from vision.run.evaluation import evaluate_due
from vision.run.journal import Journal
from vision.run.log import METRICS, Meter, Progress, duration, last_values
from vision.run.loggers import Loggers
from vision.run.prepare import check_for_training, prepare
from vision.run.restore import restore_or_init
from vision.run.setup import Outcome, RunSetup
from vision.run.signals import Signals, catch_signals
from vision.run.stopping import check_metric, counted, stalled
from vision.run.trace import Trace
from vision.run.workdir import DATA_SPEC, WorkdirError, open_workdir
from vision.train.state import State

# Steps in flight before the host waits for the oldest: enough to hide dispatch, and a bound on
# the memory that waiting batches take.
_IN_FLIGHT = 2
# A state is saved before it is evaluated, unless the last save is no older than this.
_BEFORE_EVALUATION_S = 60.0


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
      config: a config that ``vision.run.experiment.check`` has passed.
      workdir: folder of the run: config, checkpoints, metrics. All processes see the same one.
      accept_config_change: go on although the folder was made with another config.
      progress_s: seconds between progress lines when the output is not a terminal.
      profile_steps: write a trace of so many steps into ``workdir/profile``.
      spent_s: seconds the program has run already, for the account of time.

    Raises:
      UserError: what concerns the user: config, workdir, data, checkpoint, a loss that is NaN.
    """
    with contextlib.ExitStack() as stack:
        earlier = earlier_config(workdir) if accept_config_change else None
        lock = stack.enter_context(
            open_workdir(workdir, config, accept_config_change=accept_config_change)
        )
        stream = None if cluster.is_main() else io.StringIO()
        progress = Progress(0, stream, interval_s=progress_s)
        started, watch = time.perf_counter() - spent_s, Stopwatch({"start": spent_s})
        with watch("start"):
            progress.say("reading data")
            prepared = prepare(config)
            progress.total = prepared.total_steps
            check_for_training(prepared)
            prepared.data_spec.save(workdir / DATA_SPEC)
        progress.say("compiling")
        with watch("compile"):
            rules = prepared.experiment.sharding
            compiled = compile_step(prepared.step, prepared.batch, prepared.mesh, rules)
            cost = cost_of(prepared, compiled)

        store = CheckpointStore(workdir, prepared.experiment.checkpoints)
        stack.callback(store.close)
        with watch("restore"):
            alive = last_heartbeat(workdir)
            state, cursor = restore_or_init(
                store, prepared, compiled.abstract, restarted=alive is not None
            )
            watch.resume(cursor, alive, time.perf_counter() - started)
            begun = dataclasses.replace(cursor, starts=cursor.starts + 1)
            loggers = Loggers(prepared.experiment.loggers, workdir, to_plain(config))
            stack.callback(loggers.close)
            parts = (prepared, compiled, cost, store, workdir, lock, watch, progress, loggers)
            loop = _Loop(RunSetup(*parts), state, begun)
            stack.callback(loop.close)

        signals = stack.enter_context(catch_signals())
        progress.say(
            f"{cost.summary}; ready in {time.perf_counter() - started:.1f} s, "
            f"{watch.seconds['compile']:.1f} s of it compiling"
        )
        if cursor.time:
            progress.say(f"resumed from the checkpoint of step {cursor.step}")
        for line in describe_change(earlier, prepared, config, cursor):
            progress.say(line)
        return loop.run(signals, profile_steps)


@dataclasses.dataclass(frozen=True)
class _Pending:
    """An update under way: its number, what came with its batch, its metrics on the device."""

    step: int
    waited_s: float
    bad_records: int
    records: np.ndarray
    metrics: Mapping[str, jax.Array]


class _Loop:
    """What changes during one call of ``train``: state, cursor, batches, updates under way."""

    def __init__(self, setup: RunSetup, state: State, cursor: RunCursor):
        self.prepared, self.compiled = setup.prepared, setup.compiled
        self.store, self.workdir, self.lock = setup.store, setup.workdir, setup.lock
        self.watch, self.progress, self.loggers = setup.watch, setup.progress, setup.loggers
        experiment = setup.prepared.experiment
        self.evaluators, self.early_stop = dict(experiment.evaluators or {}), experiment.early_stop
        self.batch_size, self.total = experiment.data.batch_size, setup.prepared.total_steps
        self.row_meter = Meter(self.batch_size, setup.cost.mfu)
        self.line_meter = Meter(self.batch_size)
        self.clock = StepClock(self.watch, self.row_meter, self.line_meter)
        self.last = last_values(self.workdir / METRICS)
        self.failed: dict[str, str] = {}
        self.pending: collections.deque[_Pending] = collections.deque()
        self.rollbacks = 0
        self._continue_from(state, cursor)

    def _continue_from(self, state: State, cursor: RunCursor) -> None:
        """Sets state and cursor; opens the files and the loader from that step on."""
        evaluation = self.store.evaluation(cursor.step)
        if evaluation is not None:
            if cursor.unevaluated:
                cursor = counted(self.early_stop, cursor, evaluation)
            self.failed |= evaluation.failed
        self.evaluated = evaluation or StepEvaluation()
        self.state, self.cursor = state, cursor
        self.saved, self.save_timer = cursor.step, SaveTimer(cursor.step > 0)
        self.bad_records = BadRecords(cursor.bad_records, self.progress)
        process, processes = jax.process_index(), jax.process_count()
        self.journal = Journal(self.workdir, cursor.step, process, processes)
        self.loggers.begin(cursor.step)
        part, parts = batch_share(self.prepared.mesh)
        self.loader = self.prepared.experiment.data.loader(
            seed=self.prepared.experiment.seed,
            first_batch=cursor.step + cursor.data_offset,
            process_index=part,
            process_count=parts,
        )

    def close(self) -> None:
        with contextlib.suppress(WorkdirError):  # then the files are another run's
            self.lock.check()
            self.journal.flush(sync=False)
        self.loader.close()

    def run(self, signals: Signals, profile_steps: int = 0) -> Outcome:
        """Steps until the total is reached or a signal comes."""
        self.signals = signals
        if self.cursor.unevaluated:
            self._evaluate(self._due())
        first = self.cursor.step
        trace = Trace(self.workdir, profile_steps, first, self.total, self.progress.say)
        self.clock.go()
        stopped = None
        while self.cursor.step < self.total and not stalled(self.early_stop, self.cursor):
            if stopped := signals.stop(self.cursor.step):
                break
            self.lock.check()
            trace.before(self.cursor.step)
            self._step()
            trace.after(self.cursor.step, self.pending[-1].metrics)
            due, save, last = self._due(), self._save_due(), self.cursor.step == self.total
            went_back = self._finish(0 if due or save or last else _IN_FLIGHT)
            if went_back:
                continue
            # Before the evaluation: one that fails costs no training. The first is waited for.
            if due or save:
                self.cursor = dataclasses.replace(self.cursor, unevaluated=bool(due))
                first_save = self.saved == 0
                if save or last or first_save or self.save_timer.overdue(_BEFORE_EVALUATION_S):
                    self._save(wait=first_save and bool(due))
            self._evaluate(due)
            if due or save:
                self.clock.go()
        self._finish(0)
        if (early := stalled(self.early_stop, self.cursor)) and not stopped:
            self._evaluate([name for name in self.evaluators if not self.evaluated.ran(name)])
            self.progress.say(early)
        saved = self._save(wait=True)
        self.loggers.finished = not stopped
        if not stopped:
            spent = duration(self.watch.total_s)
            self.progress.say(
                f"done: {self.cursor.step} steps in {spent} ({self.watch.shares()})"
                if first < self.cursor.step
                else f"already trained to step {self.cursor.step}: nothing to do"
            )
            for name, error in self.failed.items():
                self.progress.say(f"evaluator {name} failed: {error}")
            if saved:
                self.progress.say(f"next: python evaluate.py --workdir={self.workdir}")
        if not saved:
            self.progress.say(f"step {self.cursor.step} is not saved (see above): mend that, go on")
        return Outcome(self.cursor.step, stopped, saved, self.last, self.failed)

    def _step(self) -> None:
        """Takes a batch and dispatches an update."""
        started = time.perf_counter()
        batch = next(self.loader)
        # The device only waits for data when nothing is left for it to do.
        idle = not self.pending or self.pending[-1].metrics["loss"].is_ready()  # pyright: ignore
        waited_s = time.perf_counter() - started if idle else 0.0
        self.bad_records.take(self.loader, self.cursor.step + 1, self.journal)
        arrays = to_device(batch, self.prepared.mesh)
        with jax.transfer_guard("disallow"):
            self.state, metrics = self.compiled.update(self.state, arrays)
        step = self.cursor.step + 1
        self.cursor, self.evaluated = dataclasses.replace(self.cursor, step=step), StepEvaluation()
        self.pending.append(
            _Pending(step, waited_s, self.bad_records.here, batch["_index"], metrics)
        )
        self.journal.beat(step, "step")

    def _finish(self, in_flight: int) -> bool:
        """Waits until at most ``in_flight`` updates are under way; logs those that are done.

        Returns:
          Whether one of them made the run go back to a checkpoint.
        """
        while len(self.pending) > in_flight:
            pending = self.pending.popleft()
            jax.block_until_ready(pending.metrics["loss"])
            self.clock.finished(pending.waited_s)
            values = {k: float(jax.device_get(pending.metrics[k])) for k in ("loss", "grad_norm")}
            if not all(map(math.isfinite, values.values())):
                if self._not_finite(pending, values):
                    return True
            elif self.cursor.skipped_in_a_row:
                self.cursor = dataclasses.replace(self.cursor, skipped_in_a_row=0)
            self._log_step(pending)
        return False

    def _not_finite(self, pending: _Pending, values: dict[str, float]) -> bool:
        """Does what ``config.nonfinite`` says; returns whether the run went back."""
        policy = self.prepared.experiment.nonfinite
        records = nonfinite.records_of_batch(pending.records, self.prepared.mesh)
        row = nonfinite.row(policy, pending.step, values, records)
        if policy.action == "skip":
            self.cursor = nonfinite.skipped(self.cursor)
            self.journal.skipped(pending.step, row)
            nonfinite.check_skips(policy, self.cursor, pending.step, values)
            return False
        if policy.action == "stop" or self.rollbacks >= policy.limit:
            self.journal.metrics(pending.step, {f"train/{k}": v for k, v in values.items()})
            tried = f"; went back {self.rollbacks} times before" if self.rollbacks else ""
            raise nonfinite.explain(pending.step, values, tried)
        self._go_back(pending.step)
        self.journal.skipped(self.cursor.step, row)
        self.progress.say(
            f"update {pending.step} is not finite: back to step {self.cursor.step}, and on with "
            "the batches after the one that failed; see skipped.jsonl"
        )
        self.clock.go()
        return True

    def _go_back(self, failed: int) -> None:
        """Goes on from the newest checkpoint, with the batch after that of update ``failed``."""
        self.rollbacks += 1
        self.pending.clear()
        self.loader.close()
        self.journal.flush()
        self.clock.went_back()
        batch, starts = failed + self.cursor.data_offset, self.cursor.starts
        state, cursor = restore_or_init(self.store, self.prepared, self.compiled.abstract)
        offset = batch - cursor.step
        self._continue_from(state, dataclasses.replace(cursor, data_offset=offset, starts=starts))

    def _log_step(self, pending: _Pending) -> None:
        row = self.prepared.intervals.log.due(pending.step) or pending.step == self.total
        line = self.progress.due()
        if not (row or line):
            return
        metrics = jax.device_get(pending.metrics)
        values = {f"train/{name}": float(x) for name, x in metrics.items()}
        if row:
            bad = self.bad_records.total(pending.bad_records)
            counts = {"train/bad_records": bad, "train/skipped_updates": self.cursor.skipped}
            if of_parts := getattr(self.prepared.experiment.data, "counts", None):  # of a mixture
                drawn = of_parts(pending.step + self.cursor.data_offset)
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
        self.loggers.metrics(step, values)

    def _log_seconds(self) -> None:
        seconds = {f"seconds/{name}": s for name, s in self.watch.seconds.items()}
        self._log(self.cursor.step, seconds)

    def _due(self) -> list[str]:
        """Evaluators that run at the present step."""
        step, intervals = self.cursor.step, self.prepared.intervals.evaluate
        if step == self.total:
            return list(self.evaluators)
        return [name for name in self.evaluators if name in intervals and intervals[name].due(step)]

    def _save_due(self) -> bool:
        step, intervals = self.cursor.step, self.prepared.intervals
        if intervals.save.due(step):
            return True
        # With several processes only at steps where asking process 0 costs little.
        asked = jax.process_count() == 1 or intervals.log.due(step)
        return asked and self.save_timer.overdue(self.prepared.experiment.checkpoints.every_s)

    def _evaluate(self, names: list[str]) -> None:
        """Runs evaluators; a signal breaks them off, and they run again on resume."""
        if not names:
            return
        step = self.cursor.step

        def stop() -> bool:
            self.journal.beat(step, "evaluate")
            return self.signals.stop(step) is not None

        def report(name: str, values: Mapping[str, float], drawn: Mapping[str, Figure]) -> None:
            check_metric(self.early_stop, name, values)
            self._log(step, {f"{name}/{key}": value for key, value in values.items()})
            self.loggers.figures(step, name, drawn)
            shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
            self.progress.say(f"step {step}  {name}: {shown}")

        evaluators = {name: self.evaluators[name] for name in names}
        with self.watch("evaluate"):
            result = evaluate_due(evaluators, self.prepared, self.state, step, report, stop)
        if result is None:
            return
        for name, error in result.failed.items():
            self.journal.failed_evaluation(step, name, error)
            self.progress.say(f"step {step}  {name} failed: {error}")
        self.failed |= result.failed
        self.cursor = counted(self.early_stop, self.cursor, result)
        self._log_seconds()
        self.journal.flush()
        self.evaluated = self.evaluated.joined(result)
        self.store.set_evaluation(step, self.evaluated)

    def _save(self, *, wait: bool) -> bool:
        self.lock.check()
        step = self.cursor.step
        if step != self.saved:
            self._log_seconds()
        self.saved = step
        with self.watch("checkpoint"):
            self.journal.flush()
            self.journal.beat(step, "checkpoint", now=True)
            self.save_timer.saved()
            self.clock.saved()
            cursor = dataclasses.replace(
                self.cursor,
                time=time.time(),
                seconds=self.watch.seconds,
                bad_records=self.bad_records.total(self.bad_records.here),
            )
            saved = self.store.save(step, self.state, cursor.to_json(), wait=wait)
            self.journal.beat(step, "checkpoint", now=wait)
            return saved
