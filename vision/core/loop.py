"""The one training loop: data in, steps, evaluation, checkpoints, logs, signals."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from vision.core.checkpoint import CheckpointStore
from vision.core.clock import Stopwatch
from vision.core.compile import compile_step
from vision.core.config import build
from vision.core.errors import UserError
from vision.core.evaluator import Stopped, evaluate
from vision.core.experiment import Experiment, Facts, assemble, make_step, observe
from vision.core.log import Meter, MetricLog, Progress, RowFile, duration
from vision.core.mesh import to_device
from vision.core.net import count_params
from vision.core.workdir import FACTS, WorkdirError, open_workdir, write_text

# Steps in flight before the host waits for the oldest: enough to hide dispatch, and a bound on
# the memory that waiting batches take.
_IN_FLIGHT = 2


class TrainingError(UserError):
    """Training cannot go on."""


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
) -> Outcome:
    """Trains a checked config to its end, from the newest checkpoint in ``workdir`` if any.

    SIGTERM and SIGINT finish the step under way, save and return; a second one kills at once.

    Args:
      config: a config that ``vision.core.experiment.check`` has passed.
      workdir: folder of the run: config, checkpoints, metrics.
      accept_config_change: go on although the folder was made with another config.
      progress_s: seconds between progress lines when the output is not a terminal.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            open_workdir(workdir, config, accept_config_change=accept_config_change)
        )
        data = build(config.data)
        facts = observe(data)
        write_text(workdir / FACTS, json.dumps(dataclasses.asdict(facts), indent=2) + "\n")
        experiment = assemble(config, facts, data)
        run = _Run(experiment, facts, workdir, progress_s, stack)
        return run.to_the_end()


class _Run:
    """The moving parts of one call of ``train``."""

    def __init__(
        self,
        experiment: Experiment,
        facts: Facts,
        workdir: Path,
        progress_s: float,
        stack: contextlib.ExitStack,
    ):
        self.batch_size = experiment.data.batch_size
        step = make_step(experiment, facts, experiment.data.batch_ops, self.batch_size)
        self.total = step.horizon.total_steps
        self.mesh = experiment.mesh.build()
        # One object for the whole run: evaluators cache their compiled functions by it.
        self.predict = functools.partial(step.predict)
        self.log_every = step.horizon.every(experiment.log_every, "log_every")
        self.save_every = step.horizon.every(experiment.checkpoints.every, "checkpoints.every")
        self.save_every_s = experiment.checkpoints.every_s
        self.evaluators = dict(experiment.evaluators or {})
        self.eval_every = {
            name: step.horizon.every(every, f"evaluators.{name}.every")
            for name, evaluator in self.evaluators.items()
            if (every := getattr(evaluator, "every", None)) is not None
        }
        started = time.perf_counter()
        shapes = {name: jax.ShapeDtypeStruct(*spec) for name, spec in facts.batch.items()}
        compiled = compile_step(step, shapes, self.mesh, experiment.sharding)
        self.update = compiled.update
        self.store = CheckpointStore(workdir, experiment.checkpoints)
        stack.callback(self.store.close)
        restored = self.store.restore(compiled.abstract)
        meta: dict[str, Any] = restored[1] if restored else {"step": 0}
        self.state = restored[0] if restored else compiled.init()
        self.done: int = meta["step"]
        self.saved_s = time.monotonic()
        self.watch = Stopwatch(meta.get("seconds"))
        self.watch.add("start", time.perf_counter() - started)
        self.bad_count: int = meta.get("bad_records", 0)
        self.unevaluated: bool = meta.get("unevaluated", False)

        try:
            self.metrics = MetricLog(workdir, self.done)
            self.bad_records = RowFile(workdir / "bad_records.jsonl", self.done)
        except OSError as error:
            raise WorkdirError(f"workdir {workdir} cannot be written: {error.strerror}") from error
        stack.callback(self.metrics.flush)
        self.row_meter, self.line_meter = Meter(self.batch_size), Meter(self.batch_size)
        self.last: dict[str, float] = {}
        # Step, seconds waited for its batch, bad records so far, its metrics on the device.
        self.pending: collections.deque[tuple[int, float, int, Mapping[str, jax.Array]]]
        self.pending = collections.deque()
        self.idle_until = 0.0  # when the newest finished step ended; later after a pause
        self.signals = stack.enter_context(_catch_signals())
        self.loader = experiment.data.loader(
            seed=experiment.seed,
            first_batch=self.done,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        stack.callback(self.loader.close)

        self.progress = Progress(self.total, interval_s=progress_s)
        self.progress.say(
            f"{count_params(compiled.abstract.params):,} parameters; "
            f"{self.mesh.size} {jax.devices()[0].device_kind} device(s); "
            f"{facts.num_examples:,} examples; batch {self.batch_size}; {self.total:,} steps; "
            f"ready in {time.perf_counter() - started:.1f} s"
        )
        if restored:
            self.progress.say(f"resumed from the checkpoint of step {self.done}")

    def to_the_end(self) -> Outcome:
        """Steps until the total is reached or a signal comes."""
        if self.unevaluated:
            self._evaluate(self._due())
        fresh = self.done < self.total
        self.idle_until = time.perf_counter()
        while self.done < self.total and not self.signals:
            started = time.perf_counter()
            batch = next(self.loader)
            waited_s = time.perf_counter() - started
            self._note_bad_records()
            arrays = to_device(batch, self.mesh)
            with jax.transfer_guard("disallow"):
                self.state, metrics = self.update(self.state, arrays)
            self.done += 1
            self.pending.append((self.done, waited_s, self.bad_count, metrics))
            due, save, last = self._due(), self._save_due(), self.done == self.total
            self._finish(0 if due or save or last or self.signals else _IN_FLIGHT)
            self._evaluate(due)
            if save and not last:
                self._save(wait=False)
            if due or save:
                self.idle_until = time.perf_counter()
        self._finish(0)
        saved = self._save(wait=True)
        if not self.signals:
            spent = duration(sum(self.watch.seconds.values()))
            self.progress.say(
                f"done: {self.done} steps in {spent}"
                if fresh
                else f"already trained to step {self.done}: nothing to do"
            )
        return Outcome(self.done, next(iter(self.signals), None), saved, self.last)

    def _finish(self, in_flight: int) -> None:
        """Waits until at most ``in_flight`` steps are under way; logs those that are done."""
        while len(self.pending) > in_flight:
            step, waited_s, bad_count, metrics = self.pending.popleft()
            jax.block_until_ready(metrics["loss"])
            now = time.perf_counter()
            for meter in (self.row_meter, self.line_meter):
                meter.add(now - self.idle_until, waited_s)
            self.watch.add("data", waited_s)
            self.watch.add("step", now - self.idle_until - waited_s)
            self.idle_until = now
            self._log_step(step, bad_count, metrics)

    def _log_step(self, step: int, bad_count: int, metrics: Mapping[str, jax.Array]) -> None:
        row, line = self.log_every.due(step) or step == self.total, self.progress.due()
        if not (row or line):
            return
        values = {f"train/{name}": float(x) for name, x in jax.device_get(metrics).items()}
        if not math.isfinite(values["train/loss"]):
            self.metrics.write(step, values)
            raise TrainingError(
                f"the loss of step {step} is {values['train/loss']}; the last checkpoint is kept. "
                "Lower config.optimizer.learning_rate, set config.optimizer.clip_norm, or look at "
                "the data"
            )
        if row:
            bad = {"train/bad_records": float(bad_count)} if bad_count else {}
            self._log(step, {**values, **bad, **self.row_meter.read()})
        if line:
            self.progress.show(
                step, values["train/loss"], batch_size=self.batch_size, **self.line_meter.read()
            )

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        self.last.update(values)
        self.metrics.write(step, values)

    def _due(self) -> list[str]:
        """Evaluators that run at the present step."""
        last = self.done == self.total
        return [
            name
            for name in self.evaluators
            if last or (name in self.eval_every and self.eval_every[name].due(self.done))
        ]

    def _save_due(self) -> bool:
        overdue = time.monotonic() - self.saved_s >= self.save_every_s
        return overdue or self.save_every.due(self.done)

    def _evaluate(self, names: list[str]) -> None:
        """Runs evaluators; a signal breaks them off, and they run again on resume."""
        self.unevaluated = bool(names)
        with self.watch("evaluate"), contextlib.suppress(Stopped):
            for name in names:
                numbers, _ = evaluate(
                    self.evaluators[name],
                    self.predict,
                    self.state.averaged,
                    self.done,
                    self.mesh,
                    stop=lambda: bool(self.signals),
                )
                self._log(self.done, {f"{name}/{key}": value for key, value in numbers.items()})
                shown = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
                self.progress.say(f"step {self.done}  {name}: {shown}")
            self.unevaluated = False

    def _save(self, *, wait: bool) -> bool:
        with self.watch("checkpoint"):
            self.metrics.flush()
            self.bad_records.flush(sync=True)
            self.saved_s = time.monotonic()
            meta = {
                "step": self.done,
                "seconds": self.watch.seconds,
                "bad_records": self.bad_count,
                "unevaluated": self.unevaluated,
            }
            return self.store.save(self.done, self.state, meta, wait=wait)

    def _note_bad_records(self) -> None:
        for record in self.loader.take_bad():
            self.bad_count += 1
            if self.bad_count == 1:
                self.progress.say(f"masked a bad record: {record}; see bad_records.jsonl")
            self.bad_records.write({"step": self.done + 1, **dataclasses.asdict(record)})


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; a second one has its ordinary, deadly effect."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # Python delivers signals to the main thread only
        return

    def handle(number: int, frame: Any) -> None:
        if caught:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        caught.append(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
