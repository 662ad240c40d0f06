"""A profile of a few steps in the middle of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# Steps after the start that a profile leaves out: the first ones fill caches.
_LEFT_OUT = 5


class Trace:
    """Writes ``jax.profiler``'s trace of some steps into ``workdir/profile``.

    Args:
      workdir: folder of the run.
      steps: how many to trace; 0 for none, and then nothing happens.
      first: updates done when the program starts.
      total: length of the run, which ends a trace early.
      say: told where the trace is.
    """

    def __init__(
        self, workdir: Path, steps: int, first: int, total: int, say: Callable[[str], None]
    ):
        self._folder, self._say = workdir / "profile", say
        self._start = min(first + _LEFT_OUT, max(total - steps, first)) if steps else -1
        self._stop = min(self._start + steps, total) if steps else -1

    def before(self, step: int) -> None:
        """Called with the updates dispatched so far, before the next one."""
        if step == self._start:
            jax.profiler.start_trace(self._folder)

    def after(self, step: int, newest: Any) -> None:
        """Called after an update was dispatched; ``newest`` is what it will give."""
        if step == self._stop:
            jax.block_until_ready(newest)
            jax.profiler.stop_trace()
            self._say(
                f"profile of steps {self._start + 1} to {step} in {self._folder}; look at it with "
                f"tensorboard --logdir={self._folder} (and its profile plugin)"
            )
            self._start = self._stop = -1
