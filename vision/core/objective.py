"""The plug for training: what an objective is, what it is given, and what it returns."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import flax.struct
import jax

Tree = Any
Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class Variables:
    """Everything a forward pass reads.

    Attributes:
      params: network name to parameters.
      model_state: network name to its other collections (BatchNorm statistics).
      slots: whatever a method must remember between steps: EMA teacher, queue, prototypes.
    """

    params: dict[str, Tree]
    model_state: dict[str, Tree]
    slots: dict[str, Tree]


@flax.struct.dataclass
class Aux:
    """What a loss returns beside the scalar.

    Attributes:
      metrics: name to scalar, averages over the valid examples of the batch.
      model_state: the networks' new state; networks left out keep theirs.
      carry: anything ``after_update`` needs (features to enqueue, centres, assignments).
    """

    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    model_state: dict[str, Tree] = dataclasses.field(default_factory=dict)
    carry: Tree = None


@dataclasses.dataclass(frozen=True)
class Context:
    """Where and when a loss is computed. Made anew inside every trace.

    Attributes:
      model_state: network name to collections, as in ``Variables``.
      step: int32 scalar, the number of updates done before this one.
      total_steps: length of the run, for schedules inside a loss.
      train: whether dropout and batch statistics are on.
      key: randomness of this step; use ``rng(name)``.
    """

    model_state: Mapping[str, Tree]
    step: jax.Array
    total_steps: int
    train: bool
    key: jax.Array | None = None

    def rng(self, name: str) -> jax.Array | None:
        """The key of this step for ``name``: independent of the order of the calls."""
        if self.key is None:
            return None
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))


class Objective(Protocol):
    """A frozen dataclass whose fields are the hyper-parameters of a training signal.

    ``batch["_mask"]`` (B,) bool marks the examples that count. Losses are means over them.
    A slot must not alias a parameter (donation would free it twice): ``init`` copies.
    """

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables; ``batch`` has the shapes and dtypes of a training batch."""
        ...

    def loss(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        """The scalar that is differentiated with respect to ``params``, and the rest."""
        ...

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        """The slots of the next step, from the updated ``params``."""
        ...

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """What evaluators read. Classifiers give ``logits``, ``log_probabilities`` (B, K)
        and ``embedding`` (B, D)."""
        ...
