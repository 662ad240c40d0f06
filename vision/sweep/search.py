"""A search by Optuna: its storage, its samplers and its pruners; what it proposes, trials try.

The storage is one file in the sweep's folder, Optuna's journal, which several processes, also of
several machines with a common disk, may use at once. A sampler is made anew for every trial, with a
seed of its own: what it proposes is a function of the seed and of the trials before it, so that a
search that was killed goes on as it would have.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.config.cli import UsageError
from vision.config.extras import pip_install
from vision.config.schema import nearest
from vision.run.workdir import WorkdirError
from vision.sweep.space import Axis, Range
from vision.sweep.trials import Trial

JOURNAL = "optuna.journal"
SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
}
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}


def check(sampler: str, pruner: str) -> None:
    """Raises UsageError for names that are none, or without Optuna."""
    for flag, name, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if name not in known:
            raise UsageError(f"--{flag}={name}{nearest(name, list(known))}")
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--search needs a package: {pip_install('sweep')}; --grid needs none"
        ) from error


class Search:
    """The study of a sweep.

    Args:
      sweep: folder of the sweep.
      axes: what is varied, as ``check`` of ``vision.sweep.space`` has passed it.
      mode: ``max`` or ``min``.
      sampler: one of ``SAMPLERS``.
      pruner: one of ``PRUNERS``.
      seed: of the sampler.
    """

    def __init__(
        self, sweep: Path, axes: Sequence[Axis], mode: str, sampler: str, pruner: str, seed: int
    ):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._axes, self._sampler, self._seed = optuna, axes, sampler, seed
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(sweep / JOURNAL))),
                study_name="sweep",
                load_if_exists=True,
                direction="maximize" if mode == "max" else "minimize",
                pruner=getattr(optuna.pruners, PRUNERS[pruner])(),
            )
        except OSError as error:
            raise WorkdirError(f"{sweep / JOURNAL} cannot be written: {error.strerror}") from error

    def numbers(self) -> list[int]:
        """Numbers of the trials that were ever proposed."""
        return [trial.number for trial in self._study.get_trials(deepcopy=False)]

    def propose(self) -> tuple[int, dict[str, str]]:
        """A new trial: its number, and key to text.

        Raises:
          UsageError: the sampler needs a package that is not here.
        """
        count = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = self._made(count)
        try:
            trial = self._study.ask()
            return trial.number, self._suggested(trial)
        except ImportError as error:
            raise UsageError(f"--sampler={self._sampler}: {str(error).splitlines()[0]}") from error

    def parameters(self, number: int) -> dict[str, str]:
        """Those of a trial that was proposed before; what a kill cut off is proposed now."""
        self._study.sampler = self._made(number)
        return self._suggested(self._open(number))

    def report(self, number: int, step: int, value: float) -> bool:
        """Takes an intermediate value; returns whether it is new and the pruner says to stop."""
        if step in self._frozen(number).intermediate_values:
            return False
        trial = self._open(number)
        trial.report(value, step)
        return trial.should_prune()

    def tell(self, trial: Trial) -> None:
        """Takes how a trial ended; once, whoever says it."""
        states = self._optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}
        # A pruned trial's value is the last that was reported.
        value = trial.value if trial.state == "complete" else None
        self._study.tell(trial.number, value, state[trial.state], skip_if_finished=True)

    def _made(self, count: int) -> Any:
        kind = getattr(self._optuna.samplers, SAMPLERS[self._sampler])
        options: dict[str, Any] = {"seed": self._seed + count}
        if self._sampler == "tpe":
            options["constant_liar"] = True  # trials under way count as bad ones: no two alike
        if self._sampler == "qmc":
            options = {"seed": self._seed, "scramble": True}  # one sequence, of which it takes one
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            return kind(**options)

    def _frozen(self, number: int) -> Any:
        return self._study.get_trials(deepcopy=False)[number]

    def _open(self, number: int) -> Any:
        # Optuna makes a handle of a running trial from its number in the storage.
        return self._optuna.trial.Trial(self._study, self._frozen(number)._trial_id)

    def _suggested(self, trial: Any) -> dict[str, str]:
        return {axis.key: self._suggest(trial, axis) for axis in self._axes}

    def _suggest(self, trial: Any, axis: Axis) -> str:
        if not isinstance(axis, Range):
            return str(trial.suggest_categorical(axis.key, list(axis.values)))
        if axis.whole:
            low, high = int(axis.low), int(axis.high)
            return axis.text(trial.suggest_int(axis.key, low, high, log=axis.log))
        return axis.text(trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log))


def described(axes: Sequence[Axis]) -> Mapping[str, Any]:
    """What is varied as JSON, to be compared with that of an earlier start."""
    return {
        axis.key: {"low": axis.low, "high": axis.high, "log": axis.log, "whole": axis.whole}
        if isinstance(axis, Range)
        else list(axis.values)
        for axis in axes
    }
