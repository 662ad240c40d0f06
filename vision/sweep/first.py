"""Whether the first trial of a sweep can begin, before there is one.

In a process of its own, on the devices that trainings get, and which are free again afterwards: the
sweep itself takes none.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from vision.config.cli import parse, run_main
from vision.config.errors import UserError
from vision.sweep.child import complaint

_CHECK = "from vision.sweep.first import console; console()"


class FirstTrialError(UserError):
    """The first trial would fail before its first step; the message has its last line."""


def check(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Builds all parts of a config, reads the first batch and lays the step out; trains nothing.

    Args:
      arguments: of ``train.py``, without ``--workdir``.
      environment: changes to this process' own.

    Raises:
      FirstTrialError: what a training with these arguments would be refused for.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = complaint(done.stderr) or f"it ended with status {done.returncode}"
        problem = FirstTrialError(f"the first trial would fail: {said}")
        problem.status = 2 if done.returncode == FirstTrialError.status else 1
        raise problem


def main(arguments: list[str]) -> int:
    """The child's part; returns its exit status."""
    options = parse(arguments, __doc__ or "", ("config",), config="as that of train.py")
    from vision.config import specs
    from vision.run import experiment
    from vision.run.compile import lay_out
    from vision.run.prepare import check_for_training, prepare

    config = specs.load(options.config, options.overrides)
    experiment.check(config, options.config)
    prepared = prepare(config)
    check_for_training(prepared)
    lay_out(prepared.step, prepared.batch, prepared.mesh, prepared.experiment.sharding)
    return 0


def console() -> None:
    """What the child runs."""
    sys.exit(run_main(main, sys.argv[1:]))
