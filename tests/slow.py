"""Cases of a test of which some are left to the slow tier."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def with_slow(cases: Iterable[Any], slow: Collection[Any]) -> list[Any]:
    """The cases for ``pytest.mark.parametrize``; those that are in ``slow`` have its mark."""
    return [pytest.param(each, marks=pytest.mark.slow) if each in slow else each for each in cases]
