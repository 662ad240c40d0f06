"""A plugin of pytest for claims: ``python -m vision.papers claim`` loads it."""

from __future__ import annotations

import pytest

from vision.papers.claims import Recorder

TIMEOUT_S = 1800


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write what claims found")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Ends the claim: ``record(claim=..., expected=..., compared=..., margin=MARGIN, ...)``."""
    return Recorder.begin(request.path, write=bool(request.config.getoption("--record")))
