"""Eight virtual CPU devices and a shared compilation cache, set before jax is imported.

XLA_FLAGS and VISION_TEST_ISA of the caller count too: see ``tests/fast_compilation.py``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fast_compilation import with_devices

if TYPE_CHECKING:
    from vision.run.restore import Run

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = with_devices(8)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture(autouse=True)
def absl_logs() -> Iterator[None]:
    """Command lines called in this process quieten absl; the tests after them want its lines."""
    logger = logging.getLogger("absl")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def toyclip() -> Run:
    """A small dual encoder after a short training; see ``tests/toyclip.py``."""
    from tests.toyclip import toyclip as trained_once

    return trained_once()
