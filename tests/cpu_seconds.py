"""What tests cost: CPU-seconds of every test file, and of every paper against its budget.

    python -m pytest -p tests.cpu_seconds -m "not slow" papers
    VISION_PAPER_BUDGET=1 ...   fails if a paper's folder costs more than ``TOLERANCE`` budgets

User and system time of the process with its threads and of the processes that it waited for.
Measure with an empty compilation cache: ``JAX_COMPILATION_CACHE_DIR=$(mktemp -d)``.

Machines differ, and a busy one takes more seconds for the same work. With the budget, one fixed
program is compiled before the tests of every paper. What they cost is divided by what that took, or
what it usually took in this run where that is more, and multiplied by ``PROBE_S``, what it took on
a reference machine: the budget is in seconds of that machine.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath

import numpy as np
import pytest

PAPER_BUDGET_S = 3.0
TOLERANCE = 1.5  # above it a paper fails; between, it is printed
PROBE_S = 0.1
DEAREST = 40
_CPU_SECONDS, _PROBE = "cpu_seconds", "probe"


class CpuSeconds:
    """The plugin: the worker of a test writes its cost into the reports, the controller sums them.

    Attributes:
      tests: node id to CPU-seconds of setup, call and teardown.
      probes: with the budget, folder of a paper to what the fixed program cost before its tests.
    """

    def __init__(self) -> None:
        self.tests: dict[str, float] = defaultdict(float)
        self.probes: dict[str, float] = {}
        self._with_budget = os.environ.get("VISION_PAPER_BUDGET") == "1"
        self._paper, self._probe = "", 0.0
        self._before = cpu_seconds()

    def pytest_collection_finish(self) -> None:
        self._before = cpu_seconds()  # collecting and importing is no test's

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        folder = folder_of(item.nodeid)
        if self._with_budget and folder.startswith("papers/") and folder != self._paper:
            if not self._paper:
                probe()  # the first one imports and traces what all others find there
            self._paper, self._probe = folder, probe()
            self._before = cpu_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        now = cpu_seconds()
        setattr(report, _CPU_SECONDS, now - self._before)
        setattr(report, _PROBE, self._probe)
        self._before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tests[report.nodeid] += getattr(report, _CPU_SECONDS)
        if probed := getattr(report, _PROBE):
            self.probes[folder_of(report.nodeid)] = probed

    def papers(self) -> dict[str, float]:
        """Folder to CPU-seconds of papers: with the budget, of the reference machine."""
        papers = summed(self.tests, lambda node: node.startswith("papers/"))
        if not self.probes:
            return papers
        usual = statistics.median(self.probes.values())
        return {
            folder: cost * PROBE_S / max(usual, self.probes.get(folder, 0))
            for folder, cost in papers.items()
        }

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        most = TOLERANCE * PAPER_BUDGET_S
        if self._with_budget and any(cost > most for cost in self.papers().values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        terminalreporter.section(f"CPU-seconds: {sum(self.tests.values()):.0f}")
        files = summed(self.tests, lambda node: not node.startswith("papers/"))
        papers = self.papers()
        for title, costs in (("tests", self.tests), ("files", files), ("papers", papers)):
            write(f"{title}: {len(costs)}, {sum(costs.values()):.0f} CPU-s")
            for name in sorted(costs, key=lambda name: -costs[name])[:DEAREST]:
                write(f"{costs[name]:8.2f} {name}")
        if self.probes:
            usual = statistics.median(self.probes.values())
            write(
                f"in CPU-s of the reference machine; one of those takes {usual / PROBE_S:.2f} here"
            )
        for folder, cost in papers.items():
            if cost > PAPER_BUDGET_S:
                verdict = "fails" if cost > TOLERANCE * PAPER_BUDGET_S else "within the tolerance"
                write(f"over the budget of {PAPER_BUDGET_S} CPU-s: {folder} {cost:.2f}, {verdict}")


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def probe() -> float:
    """CPU-seconds of tracing and compiling one fixed program, which no cache has."""
    import jax  # its flags are the tests' own, set by conftest
    import jax.numpy as jnp

    unlike = 1.0 + int.from_bytes(os.urandom(3), "big")

    def loss(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        for w in weights:
            x = jax.nn.gelu(x @ w)
            x = (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1)
        return jnp.sum(jax.nn.log_softmax(x / unlike))

    x = np.ones((4, 4), np.float32)
    before = cpu_seconds()
    jax.block_until_ready(jax.jit(jax.value_and_grad(loss))([x, x], x))
    return cpu_seconds() - before


def folder_of(node: str) -> str:
    return str(PurePosixPath(node.partition("::")[0]).parent)


def summed(tests: Mapping[str, float], chosen: Callable[[str], bool]) -> dict[str, float]:
    """CPU-seconds by test file; by folder, for papers."""
    costs: dict[str, float] = defaultdict(float)
    for node, cost in tests.items():
        if chosen(node):
            paper = node.startswith("papers/")
            costs[folder_of(node) if paper else node.partition("::")[0]] += cost
    return dict(costs)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(CpuSeconds())
