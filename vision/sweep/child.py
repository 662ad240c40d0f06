"""The training of one trial, in a process of its own, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

OUTPUT = "train.log"
_POLL_S, _LOOK_S = 0.1, 1.0
_TRAIN = "from vision.programs.train import console; console()"


class Child:
    """A ``train.py`` that is running.

    Args:
      workdir: of the trial; what the training says goes to ``train.log`` in it.
      arguments: of ``train.py`` beside ``--workdir``.
      lock: open file whose lock the training holds, too: it outlives a killed sweep.
      environment: changes to this process' own.
    """

    def __init__(
        self,
        workdir: Path,
        arguments: Sequence[str],
        lock: IO[str],
        environment: Mapping[str, str],
    ):
        self._log = workdir / OUTPUT
        command = [sys.executable, "-c", _TRAIN, *arguments, f"--workdir={workdir}"]
        with self._log.open("ab") as output:
            self._begins = output.tell()
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                pass_fds=[lock.fileno()],
                start_new_session=True,  # Ctrl-C is ours to hand on, once
            )

    def stop(self) -> None:
        """Asks the training to save and end; asked twice, it ends at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def wait(self, stop: Callable[[], int], look: Callable[[], bool]) -> tuple[int, bool]:
        """Waits for its end.

        Args:
          stop: how often the sweep was asked to stop, handed on so often.
          look: called about once a second; True ends the training early.

        Returns:
          The status of the training, negative for a signal that killed it, and whether it is
          ``look`` that ended it.
        """
        told, early, looked = 0, False, time.monotonic()
        while (status := self._process.poll()) is None:
            while told < stop():
                self.stop()
                told += 1
            if not told and not early and time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                if early := look():
                    self.stop()
            time.sleep(_POLL_S)
        return status, early

    def complaint(self) -> str:
        """Its last line that is an error, else its last line; of this start alone."""
        with self._log.open("rb") as file:
            file.seek(self._begins)
            return complaint(file.read().decode("utf-8", "replace")) or f"see {self._log}"


def complaint(output: str) -> str:
    """The last line that is an error, else the last line; empty where nothing was said."""
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1].removeprefix("error: ")
