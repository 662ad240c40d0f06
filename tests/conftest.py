"""Eight virtual CPU devices and a shared compilation cache, set before jax is imported.

XLA_FLAGS and VISION_TEST_ISA of the caller count too: see ``tests/fast_compilation.py``. With
VISION_TEST_PLATFORM=cuda or tpu tests run on that device; those of meshes need eight of them.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

from tests.fast_compilation import with_devices

os.environ["JAX_PLATFORMS"] = os.environ.get("VISION_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = with_devices(8)
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def pytest_collection_finish() -> None:
    """Tracing makes millions of small objects that live. To look for garbage among them after
    every seven hundred took 8 % of the CPU-seconds of two papers' tests, by a profile."""
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(20_000, 20, 20)
