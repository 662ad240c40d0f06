"""``vision.fit``: training from Python, in a notebook or a script."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import ml_collections

from vision.config import specs
from vision.config.schema import ConfigError
from vision.predict.load import load
from vision.predict.predictor import Predictor
from vision.run.loop import train
from vision.run.workdir import WorkdirError
from vision.scenario import stages


def fit(
    config: str | ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    overrides: Mapping[str, str] | None = None,
    *,
    accept_config_change: bool = False,
) -> Predictor:
    """Trains one run to its end, as ``train.py`` does, and loads it; goes on where it stopped.

    Args:
      config: what ``get_config`` returns; or, as for ``--config``, a file or the short name of one.
      workdir: folder of the run.
      overrides: key to text, as ``--config.KEY=TEXT``; only with a file or a name.
      accept_config_change: go on although the folder was made with another config.

    Returns:
      What ``vision.load(workdir)`` does.

    Raises:
      UserError: a config that is wrong or of several stages, data, a workdir of another config.
      KeyboardInterrupt: it was interrupted; the state is saved, and the same call goes on.
    """
    if isinstance(config, str):
        source, config = config, specs.load(config, dict(overrides or {}))
    elif overrides:
        raise ConfigError("overrides are for the name of a config: change the config itself")
    else:
        source = "config"
    stages.check(config, source)
    if stages.is_scenario(config):
        raise ConfigError(f"{source} has several stages: train.py --config=... runs them")
    outcome = train(config, Path(workdir), accept_config_change=accept_config_change)
    if outcome.signal is not None:
        raise KeyboardInterrupt(f"{workdir} is saved: the same call goes on")
    if not outcome.saved:
        raise WorkdirError(f"the last state of {workdir} could not be saved: see the lines above")
    return load(workdir)
