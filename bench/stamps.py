"""Training data that notes when each batch was asked for."""

from __future__ import annotations

import time
from typing import Any

from vision.data.pipeline import TrainData

STAMPS: list[float] = []


class StampedData(TrainData):
    """``TrainData``, with the moments of every ``next`` in ``STAMPS``."""

    def loader(self, *args: Any, **kwargs: Any) -> Any:
        return _Stamped(super().loader(*args, **kwargs))


class _Stamped:
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __next__(self) -> Any:
        STAMPS.append(time.perf_counter())
        return next(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
