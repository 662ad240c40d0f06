"""Tests of papers run as those of the library do: eight devices, fast compilation, its fixtures."""

from tests.conftest import *  # noqa: F403
