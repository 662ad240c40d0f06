"""Costs of papers in seconds of the reference machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.cpu_seconds import PAPER_BUDGET_S, PROBE_S, TOLERANCE, CpuSeconds, probe


def plugin_after(*tests: tuple[str, float, float]) -> CpuSeconds:
    """Names of tests, CPU-seconds of each, and of the probe before its paper, in ``PROBE_S``."""
    plugin = CpuSeconds()
    for node, cost, probed in tests:
        report: Any = SimpleNamespace(nodeid=node, cpu_seconds=cost, probe=probed * PROBE_S)
        plugin.pytest_runtest_logreport(report)
    return plugin


def test_a_paper_costs_what_it_would_on_the_reference_machine():
    one = ("papers/one/test_a.py::x", 4.0, 2.0), ("papers/one/test_b.py::y", 2.0, 2.0)
    # The probe of this one was slow, and that one was lucky: the usual one is of a half speed.
    two, three = ("papers/two/test_a.py::x", 6.0, 3.0), ("papers/three/test_a.py::x", 6.0, 1.0)
    costs = plugin_after(*one, two, three).papers()
    assert costs == pytest.approx({"papers/one": 3.0, "papers/two": 2.0, "papers/three": 3.0})
    assert plugin_after(("papers/one/test_a.py::x", 4.0, 0.0)).papers() == {"papers/one": 4.0}


def test_a_run_fails_above_the_tolerance_only(monkeypatch: pytest.MonkeyPatch):
    def status(cost: float) -> Any:
        session: Any = SimpleNamespace(exitstatus=0)
        plugin_after(("papers/one/test_a.py::x", cost, 1.0)).pytest_sessionfinish(session)
        return session.exitstatus

    most = TOLERANCE * PAPER_BUDGET_S
    assert status(2 * most) == 0
    monkeypatch.setenv("VISION_PAPER_BUDGET", "1")
    assert status(0.99 * most) == 0
    assert status(1.01 * most) == pytest.ExitCode.TESTS_FAILED


def test_the_probe_is_compiled_every_time():
    assert min(probe() for _ in range(2)) > 0.01
