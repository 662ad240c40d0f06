"""The plug for training: what an objective is, what it is given, and what it returns."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

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

    The loss, ``metrics`` and ``means`` are averages over examples, and ``weight`` says over how
    many: a batch that is cut into micro-batches has the average of theirs, weighted so. What does
    not depend on examples (a penalty on the parameters) is right under any weight. A loss that is
    not one such average (two averages over different examples, rows compared with each other)
    belongs to a batch-coupled objective: see ``Objective``.

    Attributes:
      metrics: name to scalar, averages over the valid examples of the batch.
      model_state: the networks' new state; networks left out keep theirs.
      carry: name to arrays that have one row per row of the batch, in its order, for
        ``after_update``: features to enqueue, assignments.
      means: name to further averages for ``after_update``: centres, class frequencies.
      weight: scalar, what the averages were divided by; None for the number of valid examples,
        the sum of ``_mask``. Zero says that nothing in the batch counted.
    """

    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    model_state: dict[str, Tree] = dataclasses.field(default_factory=dict)
    carry: dict[str, Tree] = dataclasses.field(default_factory=dict)
    means: dict[str, Tree] = dataclasses.field(default_factory=dict)
    weight: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Context:
    """Where and when a loss is computed. Made anew inside every trace.

    Attributes:
      model_state: network name to collections, as in ``Variables``.
      step: int32 scalar, the number of updates done before this one.
      total_steps: length of the run, for schedules inside a loss.
      train: whether dropout and batch statistics are on.
      key: randomness of this step; use ``rng(name)``.
      phase: name of the ``Phase`` that is under way; empty where a step is one move.
    """

    model_state: Mapping[str, Tree]
    step: jax.Array
    total_steps: int
    train: bool
    key: jax.Array | None = None
    phase: str = ""

    def rng(self, name: str) -> jax.Array | None:
        """The key of this step for ``name``: independent of the order of the calls."""
        if self.key is None:
            return None
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))


@dataclasses.dataclass(frozen=True)
class Phase:
    """One move of a step in which several players take turns.

    Attributes:
      name: what ``ctx.phase`` and ``config.optimizer`` call it. A phase may stand several times in
        a step (five moves of a critic): they share one optimizer.
      trains: names of the networks that move, keys of ``params``; the others are constants.
    """

    name: str
    trains: tuple[str, ...]


class Objective(Protocol):
    """A frozen dataclass whose fields are the hyper-parameters of a training signal.

    ``batch["_mask"]`` (B,) bool marks the examples that count. Losses are means over them.
    A slot must not alias a parameter (donation would free it twice): ``init`` copies.

    A loss that compares the rows of a batch with each other is *batch-coupled*: cut into
    micro-batches it would be another loss. Such an objective has ``batch_coupled = True``,
    ``loss = coupled_loss`` and two methods, see ``Coupled``.

    What data or loaded weights decide at the start (a teacher that is a copy of ``init_from``,
    prototypes or images that are taken from examples) is set by an optional method
    ``begin(variables, batch, key) -> variables``: traceable, called once, before the first step of
    a run that does not resume, with the first training batch and after ``init_from``.

    Players that take turns (a generator and its critic, an attacker and its victim, the two levels
    of a bilevel problem) are one objective with ``phases``, a tuple of ``Phase``: a step makes
    their moves in order, each a loss (of ``ctx.phase``), an update of its networks by the optimizer
    of its name, and ``after_update``; the next move sees what came of it.
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


class Coupled(Objective, Protocol):
    """An objective whose loss is ``couple(embed(batch))``, and may compare all rows.

    ``embed`` is the expensive part and treats every row by itself (BatchNorm aside), so it can
    run on micro-batches; ``couple`` is cheap and sees the whole batch. The loss reaches the
    batch's rows through ``embedded`` only. Write in the class body::

        batch_coupled: ClassVar[bool] = True
        loss = coupled_loss
    """

    batch_coupled: ClassVar[bool]

    def embed(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[Tree, Aux]:
        """A tree of floating-point arrays with one row per row of the batch, and the rest."""
        ...

    def couple(
        self,
        params: dict[str, Tree],
        embedded: Tree,
        slots: dict[str, Tree],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        """The loss of the whole batch, from its embedded rows, and the rest."""
        ...


def coupled_loss(
    objective: Coupled,
    params: dict[str, Tree],
    slots: dict[str, Tree],
    batch: Batch,
    ctx: Context,
) -> tuple[jax.Array, Aux]:
    """``Objective.loss`` of a batch-coupled objective: ``couple`` after ``embed``."""
    embedded, inner = objective.embed(params, slots, batch, ctx)
    loss, outer = objective.couple(params, embedded, slots, batch, ctx)
    return loss, join(inner, outer)


def join(inner: Aux, outer: Aux) -> Aux:
    """What ``embed`` and ``couple`` returned, as one.

    Raises:
      ValueError: both have an entry of the same name.
    """
    merged: dict[str, Any] = {}
    for field in ("metrics", "model_state", "carry", "means"):
        first, second = getattr(inner, field), getattr(outer, field)
        if both := sorted(first.keys() & second.keys()):
            raise ValueError(f"embed and couple both return {field} {', '.join(both)}")
        merged[field] = {**first, **second}
    return Aux(**merged, weight=inner.weight)
