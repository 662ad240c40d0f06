"""Claims run on the CPU with full optimisation, and take as long as they need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

from vision.papers.claims import Recorder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record", action="store_true", help="write what claims found to claims/results"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Ends the claim: ``record(card=..., paper=..., claim=..., expected=..., holds=...)``."""
    return Recorder.begin(request.path, write=bool(request.config.getoption("--record")))
