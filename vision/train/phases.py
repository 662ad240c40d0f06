"""The updates that make up a step: one of all networks, or several of some, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vision.config.schema import ConfigError
from vision.train.objective import Objective
from vision.train.optim import Optimizer
from vision.train.tower import Tower

Tree = Any


@dataclasses.dataclass(frozen=True)
class PhaseUpdate:
    """An update of a step: the networks that it trains, and their optimizer.

    Attributes:
      phase: name of the phase; empty for an objective without phases.
      trains: names of the networks.
      optimizer: theirs. Its rules see their parameters only.
      towers: those of the networks that are fields of the objective, by name.
    """

    phase: str
    trains: tuple[str, ...]
    optimizer: Optimizer
    towers: Mapping[str, Tower]

    def trained(self, params: Mapping[str, Tree]) -> dict[str, Tree]:
        """The part of ``params`` that is updated."""
        return {name: params[name] for name in params if name in self.trains}

    def get_state(self, opt_state: Tree) -> Tree:
        """This optimizer's part of the optimizers' state."""
        return opt_state[self.phase] if self.phase else opt_state

    def put_state(self, opt_state: Tree, part: Tree) -> Tree:
        """``opt_state`` with this optimizer's part replaced."""
        return {**opt_state, self.phase: part} if self.phase else part


def phase_updates(
    objective: Objective,
    optimizer: Optimizer | Mapping[str, Optimizer],
    params: Mapping[str, Tree],
) -> list[PhaseUpdate]:
    """The updates of a step of an objective, in order.

    Raises:
      ConfigError: optimizers and phases that do not go together, or a phase that trains a network
        that is not there.
    """
    fields = {name: getattr(objective, name, None) for name in params}
    towers = {name: field for name, field in fields.items() if isinstance(field, Tower)}
    phases = objective.phases
    if not phases:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"config.optimizer names {', '.join(optimizer)}, but {type(objective).__name__} "
                "has no phases: give one optimizer"
            )
        return [PhaseUpdate("", tuple(params), optimizer, towers)]
    names = list(dict.fromkeys(phase.name for phase in phases))
    if isinstance(optimizer, Optimizer) or set(optimizer) != set(names):
        raise ConfigError(
            f"config.optimizer: {type(objective).__name__} has phases and needs an optimizer "
            f"for each, {{{', '.join(f'{name!r}: spec(Optimizer, ...)' for name in names)}}}"
        )
    for phase in phases:
        if missing := [name for name in phase.trains if name not in params]:
            raise ConfigError(
                f"phase {phase.name} trains {missing[0]!r}, which is none of {', '.join(params)}"
            )
    return [
        PhaseUpdate(phase.name, phase.trains, optimizer[phase.name], towers) for phase in phases
    ]
