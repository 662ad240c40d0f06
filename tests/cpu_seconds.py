"""What tests cost: CPU-seconds of every test file, and of every paper against its budget.

    python -m pytest -p tests.cpu_seconds -m "not slow" papers
    VISION_PAPER_BUDGET=1 ...   fails if a paper's folder costs more than ``PAPER_BUDGET_S``

User and system time of the process with its threads and of the processes that it waited for, so
that another program on the machine changes little. Measure with an empty compilation cache:
``JAX_COMPILATION_CACHE_DIR=$(mktemp -d)``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

import pytest

PAPER_BUDGET_S = 3.0
DEAREST = 40
_CPU_SECONDS = "cpu_seconds"


class CpuSeconds:
    """The plugin: the worker of a test writes its cost into the reports, the controller sums them.

    Attributes:
      tests: node id to CPU-seconds of setup, call and teardown.
    """

    def __init__(self) -> None:
        self.tests: dict[str, float] = defaultdict(float)
        self._before = cpu_seconds()

    def pytest_collection_finish(self) -> None:
        self._before = cpu_seconds()  # collecting and importing is no test's

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        now = cpu_seconds()
        setattr(report, _CPU_SECONDS, now - self._before)
        self._before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tests[report.nodeid] += getattr(report, _CPU_SECONDS)

    def over_budget(self) -> dict[str, float]:
        """Folder to CPU-seconds of the papers that cost more than the budget."""
        papers = summed(self.tests, lambda node: node.startswith("papers/"))
        return {folder: cost for folder, cost in papers.items() if cost > PAPER_BUDGET_S}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if os.environ.get("VISION_PAPER_BUDGET") == "1" and self.over_budget():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section(f"CPU-seconds: {sum(self.tests.values()):.0f}")
        files = summed(self.tests, lambda node: not node.startswith("papers/"))
        papers = summed(self.tests, lambda node: node.startswith("papers/"))
        for title, costs in (("tests", self.tests), ("files", files), ("papers", papers)):
            write(f"{title}: {len(costs)}, {sum(costs.values()):.0f} CPU-s")
            for name in sorted(costs, key=lambda name: -costs[name])[:DEAREST]:
                write(f"{costs[name]:8.2f} {name}")
        for folder, cost in self.over_budget().items():
            write(f"over the budget of {PAPER_BUDGET_S} CPU-s: {folder} {cost:.2f}")


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def summed(tests: Mapping[str, float], chosen: Callable[[str], bool]) -> dict[str, float]:
    """CPU-seconds by test file; by folder, for papers."""
    costs: dict[str, float] = defaultdict(float)
    for node, cost in tests.items():
        if chosen(node):
            file = PurePosixPath(node.partition("::")[0])
            costs[str(file.parent if node.startswith("papers/") else file)] += cost
    return dict(costs)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CpuSeconds())
