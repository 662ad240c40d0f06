"""What is learned: the base class of training signals, what they are given and what they return.

A training signal in five lines::

    class Votes(Objective):
        def loss(self, variables, batch, ctx):
            out, state = apply(self.model, variables, batch["image"], ctx)
            losses, right = votes_loss(out["logits"], batch["votes"])  # both (B,)
            return averaged(losses, batch["_mask"], state, top1=right)
"""

from __future__ import annotations

import abc
import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from vision.train.labels import LabelKind
from vision.train.tower import Tap, Tower, forward, initialise

Tree = Any
Batch = Mapping[str, jax.Array]
_NOTHING: Mapping[str, Tree] = {}


@flax.struct.dataclass
class Variables:
    """Everything that a loss or a prediction reads, besides the batch.

    Attributes:
      params: network name to parameters, with respect to which the loss is differentiated.
      model_state: network name to its other collections (BatchNorm statistics).
      extra_state: whatever a method must remember between steps: EMA teacher, queue, prototypes.
    """

    params: dict[str, Tree]
    model_state: dict[str, Tree]
    extra_state: dict[str, Tree]

    def merge(
        self,
        *,
        params: Mapping[str, Tree] = _NOTHING,
        model_state: Mapping[str, Tree] = _NOTHING,
        extra_state: Mapping[str, Tree] = _NOTHING,
    ) -> Variables:
        """A copy in which these entries are added, or replaced where the name is there."""
        return Variables(
            {**self.params, **params},
            {**self.model_state, **model_state},
            {**self.extra_state, **extra_state},
        )


@flax.struct.dataclass
class Aux:
    """What a loss returns beside the scalar.

    The loss, ``metrics`` and ``means`` are averages over examples, and ``weight`` says over how
    many: a batch that is cut into micro-batches has the average of theirs, weighted so. What does
    not depend on examples (a penalty on the parameters) is right under any weight. A loss that is
    not one such average (two averages over different examples, rows compared with each other)
    belongs to a batch-coupled objective: see ``BatchCoupled``.

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
    """When and how a loss is computed. Made anew inside every trace.

    Attributes:
      step: int32 scalar, the number of updates done before this one.
      total_steps: length of the run, for schedules inside a loss.
      train: whether dropout and batch statistics are on.
      key: randomness of this step, for ``rng``; None in evaluation.
      phase: name of the ``Phase`` that is under way; empty for an objective without phases.
    """

    step: jax.Array
    total_steps: int
    train: bool
    key: jax.Array | None = None
    phase: str = ""

    @classmethod
    def evaluation(cls, total_steps: int = 1) -> Context:
        """Of predictions: nothing is drawn, and the step is none."""
        return cls(jnp.zeros([], jnp.int32), total_steps, train=False)

    def rng(self, name: str) -> jax.Array:
        """The key of this step for ``name``: independent of the order of the calls.

        Raises:
          ValueError: there is no randomness, as in evaluation.
        """
        if self.key is None:
            raise ValueError(
                f"ctx.rng({name!r}): this context has no key (train={self.train}); predictions "
                "draw nothing, and who calls a loss that draws passes Context(..., key=...)"
            )
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))


@dataclasses.dataclass(frozen=True)
class Phase:
    """One of several updates that make up a step, each of some networks with their own loss.

    Attributes:
      name: what ``ctx.phase`` and ``config.optimizer`` call it. A phase may stand several times in
        a step (five updates of a critic): they share one optimizer.
      trains: names of the networks that are updated, keys of ``params``; others are constants.
    """

    name: str
    trains: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Objective(abc.ABC):
    """A training signal: a frozen dataclass whose fields are its hyper-parameters.

    ``loss`` is the only method that a subclass must write; the others are inherited where the usual
    ones will do. ``batch["_mask"]`` (B,) bool marks the examples that count, and losses are means
    over them. An array of ``extra_state`` must not be one of ``params`` (a donated buffer would be
    freed twice): copy it.

    Networks that are updated in alternation (a generator and its critic, an attacker and its
    victim, the two levels of a bilevel problem) are one objective with ``phases``: a step makes the
    updates in order, each a loss (of ``ctx.phase``), an update of its networks by the optimizer of
    its name, and ``after_update``; the next one sees the result.

    Attributes:
      model: the network ``model`` of ``params``; filled in from ``config.model``.
    """

    model: Tower

    # Whether the loss compares the rows of a batch, so that micro-batches would have another one.
    batch_coupled: ClassVar[bool] = False

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The updates of a step, in order; none for one update of all networks."""
        return ()

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        """Features of the batch that are labels, and what is valid for them: the data refuse other
        values by the record's name. None are checked where this is empty."""
        return _NOTHING

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        """Fresh variables; ``batch`` has the shapes and dtypes of a training batch."""
        params, model_state = initialise(self.model, key, batch["image"])
        return Variables({"model": params}, {"model": model_state}, {})

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """What data or loaded weights decide at the start: a teacher that is a copy of
        ``init_from``, prototypes or images that are taken from examples.

        Called once, before the first step of a run that does not resume, with the first training
        batch and after ``init_from``; traceable.
        """
        return variables

    @property
    def uses_first_batch(self) -> bool:
        """Whether ``init_from_batch`` is the subclass's own: else no batch is read for it."""
        return type(self).init_from_batch is not Objective.init_from_batch

    @abc.abstractmethod
    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        """The scalar that is differentiated with respect to ``variables.params``, and the rest."""

    def after_update(self, variables: Variables, aux: Aux, ctx: Context) -> dict[str, Tree]:
        """The extra state of the next step; ``variables`` has the updated ``params`` and
        ``model_state``, and the extra state of this step."""
        return variables.extra_state

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """What evaluators read: of a classifier ``logits``, ``log_probabilities`` (B, K) and
        ``embedding`` (B, D), float32."""
        out, _ = apply(self.model, variables, batch["image"], ctx)
        return classified(out["logits"], out["embedding"])


class BatchCoupled(Objective):
    """An objective whose loss may compare all rows of a batch: encoder, and loss of its output.

    ``encode`` is the expensive part and treats every row by itself (BatchNorm aside), so it can
    run on micro-batches; ``loss_from_embeddings`` is cheap and sees the whole batch. The loss
    reaches the batch's rows through the embeddings only.
    """

    batch_coupled: ClassVar[bool] = True

    @abc.abstractmethod
    def encode(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[Tree, Aux]:
        """A tree of floating-point arrays with one row per row of the batch, and the rest."""

    @abc.abstractmethod
    def loss_from_embeddings(
        self, variables: Variables, embeddings: Any, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        """The loss of the whole batch, from what ``encode`` returned for it, and the rest."""

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        """``loss_from_embeddings`` of ``encode``."""
        embeddings, inner = self.encode(variables, batch, ctx)
        loss, outer = self.loss_from_embeddings(variables, embeddings, batch, ctx)
        return loss, join(inner, outer)


def apply(
    module: Tower,
    variables: Variables,
    inputs: Any,
    ctx: Context,
    *,
    network: str = "model",
    params: Tree | None = None,
    train: bool | None = None,
    key: jax.Array | None = None,
    tap: Tap | None = None,
    **kwargs: Any,
) -> tuple[dict[str, jax.Array], dict[str, Tree]]:
    """Calls a network with its part of the variables.

    Args:
      module: the tower.
      variables: of the objective.
      inputs: what the tower is called with: images, ids, a dictionary.
      ctx: says whether it trains, and has the key of dropout and stochastic depth.
      network: its name in ``variables``.
      params: parameters in the place of ``variables.params[network]``: a teacher's.
      train: in the place of ``ctx.train``; False for a look without dropout.
      key: of dropout, in the place of ``ctx.rng("dropout")``.
      tap: reads or edits intermediates, see ``vision.train.tower.Tap``.
      **kwargs: further arguments of this tower.

    Returns:
      The tower's ``out``, in which ``embedding`` is what it returns first, and the new state of
      the network by its name, for ``Aux.model_state``; empty where the network has none.
    """
    train = ctx.train if train is None else train
    if key is None and train and ctx.key is not None:
        key = ctx.rng("dropout")
    embedding, out, state = forward(
        module,
        variables.params[network] if params is None else params,
        variables.model_state.get(network, {}),
        inputs,
        train=train,
        key=key,
        tap=tap,
        **kwargs,
    )
    states = {network: dict(state)} if network in variables.model_state else {}
    return {"embedding": embedding, **out}, states


def classified(logits: jax.Array, embedding: jax.Array) -> dict[str, jax.Array]:
    """What ``predict`` of a classifier returns, float32, from logits (B, K), embedding (B, D)."""
    logits = logits.astype(jnp.float32)
    return {
        "logits": logits,
        "log_probabilities": jax.nn.log_softmax(logits),
        "embedding": embedding.astype(jnp.float32),
    }


def output_shapes(
    module: Tower, variables: Variables, inputs: Any, tap: Tap | None = None
) -> dict[str, Any]:
    """Shapes and dtypes of the ``out`` of the network ``model`` in evaluation, as ``apply`` gives
    it; nothing is computed."""
    ctx = Context.evaluation()
    return jax.eval_shape(lambda: apply(module, variables, inputs, ctx, tap=tap)[0])


def masked_mean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of ``x`` where ``valid``, bool of the same shape; 0 where nothing is."""
    return jnp.sum(x * (valid / jnp.maximum(valid.sum(), 1)))


def averaged(
    losses: jax.Array,
    valid: jax.Array,
    model_state: Mapping[str, Tree] = _NOTHING,
    **metrics: jax.Array,
) -> tuple[jax.Array, Aux]:
    """A loss and metrics that are means over the valid examples; 0 where there are none.

    Args:
      losses: one per example, (B,), or of another shape that ``valid`` has too.
      valid: bool, the examples that count.
      model_state: of ``apply``.
      **metrics: one per example; scalars stand as they are.
    """
    means = {name: masked_mean(x, valid) if jnp.ndim(x) else x for name, x in metrics.items()}
    return masked_mean(losses, valid), Aux(means, dict(model_state), weight=valid.sum())


def join(inner: Aux, outer: Aux) -> Aux:
    """What ``encode`` and ``loss_from_embeddings`` returned, as one.

    Raises:
      ValueError: both have an entry of the same name.
    """
    merged: dict[str, Any] = {}
    for field in ("metrics", "model_state", "carry", "means"):
        first, second = getattr(inner, field), getattr(outer, field)
        if both := sorted(first.keys() & second.keys()):
            raise ValueError(
                f"encode and loss_from_embeddings both return {field} {', '.join(both)}"
            )
        merged[field] = {**first, **second}
    return Aux(**merged, weight=inner.weight)
