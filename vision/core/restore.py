"""A finished or running experiment, read back from its workdir without its training data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vision.core.checkpoint import load_newest
from vision.core.evaluator import Predict
from vision.core.experiment import Experiment, Facts, assemble, check
from vision.core.mesh import state_shardings
from vision.core.objective import Variables
from vision.core.schedule import Horizon
from vision.core.state import State
from vision.core.step import Step
from vision.core.workdir import FACTS, WorkdirError, read_config


@dataclasses.dataclass(frozen=True)
class Run:
    """What evaluation, export and fine-tuning need of a run.

    Attributes:
      experiment: its parts; ``data`` is None.
      facts: what it learned from its training data.
      step: training step of the variables.
      variables: averaged parameters where the run keeps an average, on ``mesh``.
      predict: ``(variables, batch) -> dict``; one object, so that compiled functions are reused.
      mesh: the devices here, in the shape of the config where it fits, else data-parallel.
    """

    experiment: Experiment
    facts: Facts
    step: int
    variables: Variables
    predict: Predict
    mesh: jax.sharding.Mesh


def load_run(workdir: Path) -> Run:
    """Reads the newest valid checkpoint of a workdir. Nothing is written.

    Raises:
      WorkdirError: not the workdir of a run.
      CheckpointError: no valid checkpoint in it.
    """
    config = read_config(workdir)
    check(config, str(workdir / "config.json"))
    if not (workdir / FACTS).exists():
        raise WorkdirError(f"{workdir} has no {FACTS}: training has not begun there")
    facts = Facts.load(workdir / FACTS)
    experiment = assemble(config, facts)
    step, flat = load_newest(workdir)
    tree = nest(flat)
    state = State(
        step=tree["step"],
        params=tree["params"],
        model_state=tree.get("model_state", {}),
        opt_state=None,
        slots=tree.get("slots", {}),
        key=tree["key"],
    )
    mesh = experiment.mesh.build()
    shardings = state_shardings(state.averaged, mesh, experiment.sharding)
    trained = Step(experiment.objective, experiment.optimizer, Horizon(facts.num_examples, 1))
    return Run(
        experiment=experiment,
        facts=facts,
        step=step,
        variables=jax.device_put(state.averaged, shardings),
        predict=functools.partial(trained.predict),
        mesh=mesh,
    )


def nest(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params.model.head.kernel": x}`` as nested dictionaries."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree
