"""What claims share: training through the ordinary path, measuring, recording."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections

from claims import ledger
from claims.ledger import Measured, Parity, Result, Side
from vision.core import experiment, loop
from vision.core.evaluator import Evaluator, evaluate
from vision.core.restore import Run, load_run
from vision.scenario import stages

__all__ = [
    "SEEDS",
    "Measured",
    "Parity",
    "Recorder",
    "Run",
    "Side",
    "gone_through",
    "load_run",
    "measure",
    "train",
]

SEEDS = (0, 1, 2)


def train(config: ml_collections.ConfigDict, seed: int) -> Run:
    """Trains a config as train.py does, in a folder that is gone afterwards, and reads it back.

    Evaluators of the config are left out: ``measure`` asks for what the claim needs.
    """
    config = copy.deepcopy(config)
    config.seed = seed
    config.evaluators = config.evaluate_every = None
    experiment.check(config, "the claim's config")
    with tempfile.TemporaryDirectory() as folder:
        _finished(loop.train(config, Path(folder) / "run", progress_s=math.inf))
        return load_run(Path(folder) / "run")


@contextlib.contextmanager
def gone_through(config: ml_collections.ConfigDict, seed: int) -> Iterator[Path]:
    """Goes through the stages of a scenario as train.py does.

    Evaluators of its runs are left out; works are not.

    Yields:
      The scenario's workdir, which is gone afterwards: ``load_run(folder / "NAME")`` reads a run.
    """
    config = copy.deepcopy(config)
    for run in stages.runs(config).values():
        run.seed = seed
        run.evaluators = run.evaluate_every = None
    stages.check(config, "the claim's config")
    with tempfile.TemporaryDirectory() as folder:
        _finished(stages.train(config, Path(folder) / "stages", progress_s=math.inf))
        yield Path(folder) / "stages"


def _finished(outcome: loop.Outcome) -> None:
    """A run that a signal stopped is saved and returns, but says nothing about its method."""
    if outcome.signal is not None:
        raise RuntimeError(f"stopped by signal {outcome.signal} after step {outcome.step}")


def measure(run: Run, evaluator: Evaluator) -> dict[str, float]:
    """The numbers of an evaluator."""
    return evaluate(evaluator, run.predict, run.variables, run.step, run.mesh)[0]


@dataclasses.dataclass(frozen=True)
class Recorder:
    """The end of a claim; the fixture ``record``.

    Attributes:
      path: of the claim's file.
      write: whether the result is written; else it is only compared with what is expected.
      root: of the repository.
      started: processor seconds of this process when the claim began.
      depends: the code that the claim began with; an edit while it runs makes its result stale.
    """

    path: Path
    write: bool
    root: Path
    started: float
    depends: Mapping[str, str]

    @classmethod
    def begin(cls, path: Path, write: bool, root: Path = ledger.ROOT) -> Recorder:
        return cls(path, write, root, time.process_time(), ledger.depends(path, root))

    def __call__(
        self,
        *,
        card: int,
        paper: str,
        claim: str,
        expected: bool,
        holds: bool,
        measured: Sequence[Measured],
        seeds: Sequence[int] = SEEDS,
        parity: Parity | None = None,
    ) -> None:
        """Fails unless the claim came out as the file says; see ``ledger.Result``.

        A run that is written is not thrown away for a wrong guess: it puts its outcome into the
        file, and a reader of the diff sees what turned.

        Args:
          expected: the outcome that the file states.
          holds: the outcome of this run.
        """
        result = Result(
            card=card,
            paper=paper,
            claim=claim,
            holds=bool(holds),
            measured=tuple(measured),
            seeds=tuple(seeds),
            seconds=round(time.process_time() - self.started, 1),
            parity=parity,
            depends=self.depends,
        )
        seen = "\n".join(map(str, measured))
        print(f"{ledger.slug(self.path)}: {'held' if holds else 'NOT HELD'}\n{seen}")
        if result.holds != expected and not self.write and self._repeats(result):
            warnings.warn(
                f"{ledger.slug(self.path)}: the outcome turned, but every mean is within two "
                "standard deviations of the recorded one: on this processor the claim is a tie",
                stacklevel=2,
            )
            return
        if self.write and result.holds != expected:
            result, expected = self._turned(result, expected)
        assert result.holds == expected, (
            f"{ledger.slug(self.path)}: expected={expected}, but the claim "
            f"{'held' if holds else 'did not hold'}:\n{seen}\nIf that is how it is, write "
            f"expected={result.holds}, say in the docstring what was seen, and record it again."
        )
        if self.write:
            ledger.write(result, ledger.result_file(self.path, self.root))

    def _turned(self, result: Result, expected: bool) -> tuple[Result, bool]:
        """The result after ``expected`` in the claim's file is made to say it."""
        text = self.path.read_text(encoding="utf-8")
        found = re.findall(rf"\bexpected={expected}\b", text)
        if len(found) != 1 or ledger.depends(self.path, self.root) != self.depends:
            return result, expected
        turned = text.replace(found[0], f"expected={result.holds}")
        self.path.write_text(turned, encoding="utf-8")
        print(f"{self.path}: expected={result.holds} now; say in its docstring what was seen")
        return dataclasses.replace(
            result, depends=ledger.depends(self.path, self.root)
        ), not expected

    def _repeats(self, result: Result) -> bool:
        """Whether the numbers are the recorded ones, as nearly as those of other seeds would be.

        Another processor rounds otherwise, which is like another seed to a run.
        """
        path = ledger.result_file(self.path, self.root)
        if not path.is_file():
            return False
        pairs = []
        for now, then in zip(result.measured, ledger.read(path).measured, strict=True):
            pairs += [(now.method, then.method), (now.baseline, then.baseline)]
        return all(
            abs(now.mean - then.mean) <= 2 * then.spread
            for now, then in pairs
            if now is not None and then is not None
        )
