"""Loggers: where the numbers and figures of a run go besides its own folder.

``metrics.jsonl`` and the TensorBoard files are always written, and a run needs no other. What
``Experiment.loggers`` names gets the same rows and the evaluators' figures, from a thread of its
own, so that training waits for no network. A logger that fails while the run goes on is named once
and gets nothing more.

``loggers.json`` in the workdir remembers the run of each, by which a resumed run goes on with the
same one, and up to which step each value was sent: steps that a killed run makes again are sent
once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vision.config.errors import UserError
from vision.config.extras import pip_install
from vision.config.files import replace_file
from vision.config.schema import ConfigError
from vision.evaluate.figures import ConfusionMatrix, Curve, Figure, Gallery, Reliability, Table
from vision.parallel import cluster
from vision.run.sealed import NotAsWrittenError, seal, unseal

LOGGERS = "loggers.json"
log = logging.getLogger(__name__)


class LoggerError(UserError):
    """A logger cannot be reached."""

    status = 1


class Session(Protocol):
    """A run that a logger has opened."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values of a step, ``"test/top1"`` and so on; more of the same step may follow."""
        ...

    def figures(self, step: int, evaluator: str, figures: Mapping[str, Figure]) -> None:
        """Takes the figures of an evaluator by their names."""
        ...

    def close(self, finished: bool) -> None:
        """Ends the session; ``finished``: the run has reached its end."""
        ...


class Logger(Protocol):
    """Where else numbers and figures go: a frozen dataclass, as part of a config."""

    def check(self) -> None:
        """Raises ConfigError where a package is missing; called before anything is computed."""
        ...

    def open(
        self, workdir: Path, config: Mapping[str, Any], run_id: str | None
    ) -> tuple[Session, str]:
        """Begins a run, or goes on with one.

        Args:
          workdir: of the run; a logger may keep files of its own in it.
          config: resolved, as JSON has it.
          run_id: what an earlier call returned; None for a new run.

        Returns:
          The session, and the name by which it is gone on with.

        Raises:
          LoggerError: it cannot be reached.
        """
        ...


def need(package: str, extra: str) -> None:
    """Raises ConfigError with the way out where a logger's package is missing."""
    if find_spec(package) is None:
        raise ConfigError(
            f"config.loggers needs {package}, which is not installed: {pip_install(extra)}, "
            "or take the logger out of the config"
        )


class Loggers:
    """All loggers of a run; of several processes the first one's alone are open.

    Args:
      loggers: of the config.
      workdir: of the run.
      config: resolved, as JSON has it.

    Attributes:
      finished: whether the run has reached its end; the loop sets it.
    """

    def __init__(self, loggers: Sequence[Logger], workdir: Path, config: Mapping[str, Any]):
        self.finished = False
        self._path = workdir / LOGGERS
        self._writing = threading.Lock()
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
        before = _read(self._path) if loggers else {}
        self._begun = before.get("config") != digest
        self._state: dict[str, Any] = {"config": digest}
        self._senders: list[_Sender] = []
        for i, logger in enumerate(loggers if cluster.is_main() else ()):
            name = f"{i} {type(logger).__name__}"
            run = dict(before.get(name, {"id": None, "sent": {}}))
            session, run["id"] = logger.open(workdir, config, run["id"])
            self._state[name] = run
            self._senders.append(_Sender(type(logger).__name__, session, run["sent"], self._write))
        if self._senders:
            self._write()

    def begin(self, step: int) -> None:
        """The run is at ``step``. What it makes anew is sent only where it may be something else:
        after another config, or when it went back in the middle of its way."""
        for sender in self._senders if self._begun else ():
            sender.begin(step)
        self._begun = True

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Takes values of a step, and returns at once."""
        for sender in self._senders:
            sender.metrics(step, values)

    def figures(self, step: int, evaluator: str, figures: Mapping[str, Figure]) -> None:
        """Takes the figures of an evaluator, and returns at once."""
        for sender in self._senders:
            sender.figures(step, evaluator, figures)

    def close(self) -> None:
        """Waits until everything is sent."""
        for sender in self._senders:
            sender.close(self.finished)
        if self._senders:
            self._state["finished"] = self.finished
            self._write()

    def _write(self) -> None:
        with self._writing:
            _write(self._path, self._state)


def send_evaluation(
    loggers: Sequence[Logger],
    workdir: Path,
    config: Mapping[str, Any],
    step: int,
    results: Mapping[str, tuple[Mapping[str, float], Mapping[str, Figure]]],
) -> None:
    """Sends what was measured of a checkpoint to the run that its training was sent to.

    The names begin with ``evaluation/``, so that they stand beside those of the training, and every
    call sends them. A logger that fails is named, and stops nothing.

    Args:
      loggers: of the run's config.
      workdir: of the run; it is not being trained.
      config: resolved, as JSON has it, for a logger that has no run of this workdir.
      step: of the checkpoint.
      results: evaluator to its metrics and figures.

    Raises:
      LoggerError: a damaged memory of the runs.
    """
    path = workdir / LOGGERS
    state = _read(path) if loggers else {}
    for i, logger in enumerate(loggers):
        kind = type(logger).__name__
        known = state.setdefault(f"{i} {kind}", {"id": None, "sent": {}})
        try:
            logger.check()
            session, known["id"] = logger.open(workdir, config, known["id"])
            try:
                for name, (metrics, figures) in results.items():
                    place = f"evaluation/{name}"
                    session.metrics(step, {f"{place}/{key}": x for key, x in metrics.items()})
                    session.figures(step, place, figures)
            finally:
                session.close(bool(state.get("finished", True)))
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            log.error("not sent to logger %s: %s", kind, said)
    if loggers:
        _write(path, state)


def _read(path: Path) -> dict[str, Any]:
    try:
        return unseal(path.read_bytes().decode("utf-8", "backslashreplace"))[0]
    except FileNotFoundError:
        return {}
    except NotAsWrittenError as error:
        raise LoggerError(
            f"{path} is damaged ({error}): delete it; loggers then begin new runs"
        ) from error


def _write(path: Path, state: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError), replace_file(path, sync=False) as new:
        new.write_text(seal(state, indent=2) + "\n", encoding="utf-8")


class _Sender:
    """A thread that hands on to one session what it is given, in order."""

    def __init__(
        self, name: str, session: Session, sent: dict[str, int], written: Callable[[], None]
    ):
        self._name, self._session, self._sent, self._written = name, session, sent, written
        self._before = dict(sent)  # steps up to these were sent by an earlier start
        self._failed = False
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def begin(self, step: int) -> None:
        def cut() -> None:
            self._before = {name: min(last, step) for name, last in self._sent.items()}

        self._waiting.put(cut)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        def send() -> None:
            new = {k: x for k, x in values.items() if step > self._before.get(k, -1)}
            if new:
                self._session.metrics(step, new)
                self._sent.update(dict.fromkeys(new, step))

        self._waiting.put(send)

    def figures(self, step: int, evaluator: str, figures: Mapping[str, Figure]) -> None:
        def send() -> None:
            new = {
                k: x for k, x in figures.items() if step > self._before.get(f"{evaluator}//{k}", -1)
            }
            if new:
                self._session.figures(step, evaluator, new)
                self._sent.update({f"{evaluator}//{k}": step for k in new})

        self._waiting.put(send)

    def close(self, finished: bool) -> None:
        self._waiting.put(lambda: self._session.close(finished))
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (send := self._waiting.get()) is not None:
            if self._failed:
                continue
            try:
                send()
            except Exception as error:
                self._failed = True
                said = (str(error).splitlines() or [""])[0]
                log.error(
                    "logger %s: %s: %s; nothing more goes there",
                    self._name,
                    type(error).__name__,
                    said,
                )
            self._written()


def tables(figures: Mapping[str, Figure]) -> dict[str, Table]:
    """Every figure that is not pictures as a table, by its name: for logs that draw themselves."""
    found = {}
    for name, figure in figures.items():
        match figure:
            case Table():
                found[name] = figure
            case ConfusionMatrix():
                cells = to_cells(figure)
                found[name] = Table(("true", "predicted", "examples"), cells)
            case Reliability():
                rows = zip(
                    figure.edges[:-1].tolist(),
                    figure.edges[1:].tolist(),
                    figure.confidence.tolist(),
                    figure.accuracy.tolist(),
                    figure.count.tolist(),
                    strict=True,
                )
                heads = ("above", "up_to", "confidence", "accuracy", "examples")
                found[name] = Table(heads, tuple(rows))
            case Curve():
                points = tuple(
                    (line.name, x, y)
                    for line in figure.lines
                    for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True)
                )
                found[name] = Table(("line", figure.x_label, figure.y_label), points)
            case Gallery():
                pass
    return found


def to_cells(matrix: ConfusionMatrix) -> tuple[tuple[str, str, int], ...]:
    """(true, predicted, examples) of every pair that occurs."""
    rows, columns = matrix.counts.nonzero()
    names = matrix.class_names
    return tuple(
        (names[i], names[j], int(matrix.counts[i, j]))
        for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
    )


def galleries(figures: Mapping[str, Figure]) -> dict[str, Gallery]:
    """The figures that are pictures."""
    return {name: figure for name, figure in figures.items() if isinstance(figure, Gallery)}


def caption(label: str, prediction: str, score: float) -> str:
    """What stands under a picture."""
    return f"true {label}, said {prediction} ({score:.3f})"
