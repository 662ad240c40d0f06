"""What claims share: training through the ordinary path, measuring, recording."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections

from vision.evaluate.evaluator import Evaluator, evaluate
from vision.papers import ledger
from vision.papers.measured import Measured, Parity, Side
from vision.papers.outcome import OUTCOMES, Margin, Premise, Scale
from vision.papers.results import Result, read, write
from vision.run import experiment, loop
from vision.run.restore import Run, load_run
from vision.scenario import stages

__all__ = [
    "SEEDS",
    "Margin",
    "Measured",
    "Parity",
    "Premise",
    "Recorder",
    "Run",
    "Scale",
    "Side",
    "load_run",
    "measure",
    "run_scenario",
    "train",
]

SEEDS = (0, 1, 2, 3, 4)


def train(config: ml_collections.ConfigDict, seed: int) -> Run:
    """Trains a config as train.py does, in a folder that is gone afterwards, and reads it back.

    Evaluators of the config are left out: ``measure`` asks for what the claim needs.
    """
    config = copy.deepcopy(config)
    config.seed = seed
    config.evaluators = None
    experiment.check(config, "the claim's config")
    with tempfile.TemporaryDirectory() as folder:
        _finished(loop.train(config, Path(folder) / "run", progress_s=math.inf))
        return load_run(Path(folder) / "run")


@contextlib.contextmanager
def run_scenario(config: ml_collections.ConfigDict, seed: int) -> Iterator[Path]:
    """Runs the stages of a scenario as train.py does.

    Evaluators of its runs are left out; what it computes between them is not.

    Yields:
      The scenario's workdir, which is gone afterwards: ``load_run(folder / "NAME")`` reads a run.
    """
    config = copy.deepcopy(config)
    for run in stages.runs(config).values():
        run.seed = seed
        run.evaluators = None
    stages.check(config, "the claim's config")
    with tempfile.TemporaryDirectory() as folder:
        _finished(stages.train(config, Path(folder) / "stages", progress_s=math.inf))
        yield Path(folder) / "stages"


def _finished(outcome: loop.Outcome) -> None:
    """A run that a signal stopped is saved and returns, but says nothing about its method."""
    if outcome.signal is not None:
        raise RuntimeError(f"stopped by signal {outcome.signal} after step {outcome.step}")
    for name, error in outcome.failed.items():
        raise RuntimeError(f"evaluator {name} failed: {error}")


def measure(run: Run, evaluator: Evaluator) -> dict[str, float]:
    """The numbers of an evaluator."""
    return evaluate(evaluator, run.predict, run.variables, run.step, run.mesh)[0]


@dataclasses.dataclass(frozen=True)
class Recorder:
    """The end of a claim; the fixture ``record``.

    Attributes:
      path: of the claim's file, ``papers/<slug>/claim.py``.
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

    @property
    def slug(self) -> str:
        return self.path.parent.name

    def __call__(
        self,
        *,
        claim: str,
        expected: str,
        compared: Measured,
        margin: Margin,
        scale: Scale,
        control: Measured | None,
        premises: Sequence[Premise] = (),
        measured: Sequence[Measured] = (),
        seeds: Sequence[int] = SEEDS,
        parity: Parity | None = None,
    ) -> None:
        """Fails unless the claim came out as its file says; see ``results.Result``.

        A result that is to be recorded is written first, whatever came out.

        Args:
          claim: one sentence about one mechanism.
          expected: the outcome that the file states, one of ``outcome.OUTCOMES``.
          compared: the quantity that decides, of the method and its baseline: a number for every
            seed, in the same order.
          margin: ``MARGIN`` of the file.
          scale: of what is compared.
          control: the comparison where the method cannot work; without one the claim is undecided.
          premises: what has to be so in every seed.
          measured: what was seen besides.
          seeds: of the runs.
          parity: with another implementation.
        """
        if expected not in OUTCOMES:
            raise ValueError(f"expected={expected!r}: one of {', '.join(OUTCOMES)}")
        result = Result(
            claim=claim,
            compared=compared,
            margin=margin,
            scale=scale,
            premises=tuple(premises),
            control=control,
            measured=tuple(measured),
            seeds=tuple(seeds),
            seconds=round(time.process_time() - self.started, 1),
            parity=parity,
            depends=self.depends,
        )
        seen = "\n".join([*result.reasons, *map(str, result.all_measured)])
        print(f"{self.slug}: {result.outcome}\n{seen}")
        if not self.write and result.outcome != expected and self._repeats(result):
            warnings.warn(
                f"{self.slug}: the outcome turned, but every mean is within two standard "
                "deviations of the recorded one: on this processor the claim is a tie",
                stacklevel=2,
            )
            return
        way_out = f"write expected={result.outcome!r} and what was seen in {self.path}"
        if self.write:
            write(result, self.path.with_name(ledger.RESULT))
            way_out += f"; {ledger.RESULT} is written and stays valid"
        else:
            way_out += f", and record it: {ledger.claim_command(self.path.parent, self.root)}"
        assert result.outcome == expected, (
            f"{self.slug}: expected={expected!r}, but the claim is {result.outcome}:\n{seen}\n"
            f"If that is how it is, {way_out}."
        )

    def _repeats(self, result: Result) -> bool:
        """Whether the numbers are the recorded ones, as nearly as those of other seeds would be.

        Another processor rounds otherwise, which is like another seed to a run.
        """
        path = self.path.with_name(ledger.RESULT)
        if not path.is_file():
            return False
        pairs = []
        for now, then in zip(result.all_measured, read(path).all_measured, strict=True):
            pairs += [(now.method, then.method), (now.baseline, then.baseline)]
        return all(
            abs(now.mean - then.mean) <= 2 * then.spread
            for now, then in pairs
            if now is not None and then is not None
        )
