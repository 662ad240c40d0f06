"""Where the time of a run goes, summed over restarts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping


class Stopwatch:
    """Seconds by activity: ``compile``, ``data``, ``step``, ``evaluate``, ``checkpoint``.

    ``seconds`` is saved with every checkpoint and given back on resume, so that the sums cover
    the whole run.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None):
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextlib.contextmanager
    def __call__(self, activity: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(activity, time.perf_counter() - start)

    def add(self, activity: str, seconds: float) -> None:
        self.seconds[activity] = self.seconds.get(activity, 0.0) + seconds
