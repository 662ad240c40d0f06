"""Who moves in a step: everything at once, or several players by turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from vision.core.objective import Aux, Batch, Context, Objective, Phase
from vision.core.optim import Optimizer
from vision.core.schema import ConfigError

Tree = Any


@dataclasses.dataclass(frozen=True)
class Player:
    """Networks that move together, and their optimizer.

    Attributes:
      name: of the phase; empty where a step is one move of everything.
      trains: names of the networks.
      optimizer: theirs. Its rules see their parameters only.
    """

    name: str
    trains: tuple[str, ...]
    optimizer: Optimizer

    def of(self, params: Mapping[str, Tree]) -> dict[str, Tree]:
        """The part of ``params`` that moves."""
        return {name: params[name] for name in params if name in self.trains}

    def seen_by(self, objective: Objective, params: Mapping[str, Tree]) -> Any:
        """The objective as a function of what moves; the rest of ``params`` is constant."""
        if not self.name:
            return objective
        return _Turn(objective, {k: tree for k, tree in params.items() if k not in self.trains})

    def of_state(self, opt_state: Tree) -> Tree:
        """This player's part of the optimizers' state."""
        return opt_state[self.name] if self.name else opt_state

    def put_state(self, opt_state: Tree, mine: Tree) -> Tree:
        """``opt_state`` with this player's part replaced."""
        return {**opt_state, self.name: mine} if self.name else mine


def players(
    objective: Objective,
    optimizer: Optimizer | Mapping[str, Optimizer],
    params: Mapping[str, Tree],
) -> list[Player]:
    """The players of an objective, in the order of their moves.

    Raises:
      ConfigError: optimizers and phases that do not go together, or a phase that trains a network
        that is not there.
    """
    phases: tuple[Phase, ...] = getattr(objective, "phases", ())
    if not phases:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"config.optimizer names {', '.join(optimizer)}, but {type(objective).__name__} "
                "has no phases: give one optimizer"
            )
        return [Player("", tuple(params), optimizer)]
    names = list(dict.fromkeys(phase.name for phase in phases))
    if isinstance(optimizer, Optimizer) or set(optimizer) != set(names):
        raise ConfigError(
            f"config.optimizer: {type(objective).__name__} moves in phases and needs an optimizer "
            f"for each, {{{', '.join(f'{name!r}: spec(Optimizer, ...)' for name in names)}}}"
        )
    for phase in phases:
        if missing := [name for name in phase.trains if name not in params]:
            raise ConfigError(
                f"phase {phase.name} trains {missing[0]!r}, which is none of {', '.join(params)}"
            )
    return [Player(phase.name, phase.trains, optimizer[phase.name]) for phase in phases]


@dataclasses.dataclass(frozen=True)
class _Turn:
    """An objective in which only one player's networks vary."""

    objective: Any
    others: dict[str, Tree]

    @property
    def batch_coupled(self) -> bool:
        return getattr(self.objective, "batch_coupled", False)

    def loss(self, mine: Tree, slots: Tree, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        return self.objective.loss({**self.others, **mine}, slots, batch, ctx)

    def embed(self, mine: Tree, slots: Tree, batch: Batch, ctx: Context) -> tuple[Tree, Aux]:
        return self.objective.embed({**self.others, **mine}, slots, batch, ctx)

    def couple(
        self, mine: Tree, embedded: Tree, slots: Tree, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        return self.objective.couple({**self.others, **mine}, embedded, slots, batch, ctx)
