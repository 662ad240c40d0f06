"""The browser of the pages' tests."""

from tests.report.conftest import browser

__all__ = ["browser"]
