"""The gradient of a batch, computed at once or over micro-batches to save memory.

A batch of B rows becomes k micro-batches: number m holds the rows m, m + k, m + 2k, ... so that
every device splits the rows it has, and none travels. One ``lax.scan`` runs them in order.

A plain objective's micro-batches give the loss, the averages and (summed in float32) the gradient
of the whole batch, each weighted by ``Aux.weight``. A batch-coupled objective takes two passes
(Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021):
encode all micro-batches without keeping anything for a backward pass; differentiate the loss of the
embeddings with respect to them and the parameters; encode each micro-batch again, with the same
randomness, and pull its rows' gradient back.

What is equal to the whole batch, up to rounding: everything that treats rows one by one. What is
not: dropout and stochastic depth draw from another key in every micro-batch, and BatchNorm
normalises by the statistics of the micro-batch. Its running statistics are updated by every
micro-batch in order, k times a step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.errors import UserError
from vision.parallel.mesh import BATCH_AXES, constrain_batch
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Objective, Variables, join

Tree = Any
Params = dict[str, Tree]


class AccumulationError(UserError):
    """A batch cannot be cut into micro-batches, or an objective cannot be computed on them."""


def loss_and_gradient(
    objective: Objective,
    trained: Params,
    variables: Variables,
    batch: Batch,
    ctx: Context,
    accumulate: int = 1,
) -> tuple[jax.Array, Aux, Params]:
    """Loss, ``Aux`` and gradient with respect to ``trained`` of one batch. Traceable.

    Args:
      objective: what is differentiated.
      trained: the part of ``variables.params`` that the gradient is of; it has the same dtypes.
      variables: where.
      batch: every array has the rows of ``_mask``.
      ctx: of the whole batch. A micro-batch gets a key of its own, and the model state that the
        one before it left.
      accumulate: number of micro-batches.

    Raises:
      AccumulationError: ``accumulate`` does not divide the rows of the batch, or those on one
        device; or the objective is batch-coupled and no ``BatchCoupled``.
      ValueError: an array that should have a row per row of the batch has not.
    """
    rows = batch["_mask"].shape[0]
    if accumulate == 1:
        (loss, aux), grads = _gradient(objective)(trained, variables, batch, ctx)
        _check_rows(aux.carry, rows, "Aux.carry")
        return loss, aux, grads
    _check_divides(rows, accumulate)
    _check_rows(dict(batch), rows, "the batch")
    if not objective.batch_coupled:
        return _averaged(objective, trained, variables, batch, ctx, accumulate)
    if not isinstance(objective, BatchCoupled):
        raise AccumulationError(
            f"config.accumulate={accumulate}, but {type(objective).__name__} compares the rows of "
            "a batch with each other and lacks the methods encode and loss_from_embeddings, which "
            "accumulation needs: write them as vision.train.objective.BatchCoupled says, or set "
            "config.accumulate=1"
        )
    return _cached(objective, trained, variables, batch, ctx, accumulate)


def _gradient(objective: Objective) -> Callable[..., tuple[tuple[jax.Array, Aux], Params]]:
    def loss(trained: Params, variables: Variables, batch: Batch, ctx: Context):
        return objective.loss(variables.merge(params=trained), batch, ctx)

    return jax.value_and_grad(loss, has_aux=True)


def _averaged(
    objective: Objective,
    trained: Params,
    variables: Variables,
    batch: Batch,
    ctx: Context,
    accumulate: int,
) -> tuple[jax.Array, Aux, Params]:
    gradient = _gradient(objective)

    def body(carried: tuple[Tree, Tree], item: tuple[jax.Array, Batch]):
        total, model_state = carried
        micro, inner = _micro(item, ctx)
        micro_variables = variables.merge(model_state=model_state)
        (loss, aux), grads = gradient(trained, micro_variables, micro, inner)
        aux = _with_weight(aux, micro)
        total = jax.tree.map(lambda t, g: t + aux.weight * g.astype(jnp.float32), total, grads)
        return (total, {**model_state, **aux.model_state}), (loss, _without_state(aux))

    start = _zeros(trained), dict(variables.model_state)
    (total, model_state), (losses, auxes) = jax.lax.scan(body, start, _items(batch, accumulate))
    aux_of_batch = _gather(auxes, model_state)
    scale = 1 / _positive(aux_of_batch.weight)
    grads = jax.tree.map(lambda t, p: (t * scale).astype(p.dtype), total, trained)
    return _average(losses, auxes.weight), aux_of_batch, grads


def _cached(
    objective: BatchCoupled,
    trained: Params,
    variables: Variables,
    batch: Batch,
    ctx: Context,
    accumulate: int,
) -> tuple[jax.Array, Aux, Params]:
    items = _items(batch, accumulate)

    def encode(params: Params, model_state: Tree, item: tuple[jax.Array, Batch]):
        micro, inner = _micro(item, ctx)
        micro_variables = variables.merge(params=params, model_state=model_state)
        embeddings, aux = objective.encode(micro_variables, micro, inner)
        aux = _with_weight(aux, micro)
        return embeddings, (aux, {**model_state, **aux.model_state})

    def first(model_state: Tree, item: tuple[jax.Array, Batch]):
        embeddings, (_, model_state) = encode(trained, model_state, item)
        _check_rows(embeddings, item[1]["_mask"].shape[0], "what encode returns")
        return model_state, embeddings

    def loss_from(params: Params, embeddings: Tree):
        variables_of_batch = variables.merge(params=params)
        return objective.loss_from_embeddings(variables_of_batch, embeddings, batch, ctx)

    _, embeddings = jax.lax.scan(first, dict(variables.model_state), items)
    gradient = jax.value_and_grad(loss_from, argnums=(0, 1), has_aux=True)
    (loss, outer), (direct, cotangents) = gradient(trained, _merge(embeddings))
    _check_rows(outer.carry, batch["_mask"].shape[0], "Aux.carry of loss_from_embeddings")

    def second(carried: tuple[Tree, Tree], item: tuple[tuple[jax.Array, Batch], Tree]):
        total, model_state = carried
        _, pull, (aux, model_state) = jax.vjp(
            lambda p: encode(p, model_state, item[0]), trained, has_aux=True
        )
        (grads,) = pull(item[1])
        total = jax.tree.map(lambda t, g: t + g.astype(jnp.float32), total, grads)
        return (total, model_state), _without_state(aux)

    start = _zeros(trained), dict(variables.model_state)
    cut = _split(cotangents, accumulate)
    (total, model_state), auxes = jax.lax.scan(second, start, (items, cut))
    grads = jax.tree.map(lambda t, d, p: (t + d).astype(p.dtype), total, direct, trained)
    return loss, join(_gather(auxes, model_state), outer), grads


def _items(batch: Batch, accumulate: int) -> tuple[jax.Array, Batch]:
    return jnp.arange(accumulate), _split(dict(batch), accumulate)


def _micro(item: tuple[jax.Array, Batch], ctx: Context) -> tuple[dict[str, jax.Array], Context]:
    index, rows = item
    key = None if ctx.key is None else jax.random.fold_in(ctx.key, index)
    return jax.tree.map(constrain_batch, dict(rows)), dataclasses.replace(ctx, key=key)


def _split(tree: Tree, accumulate: int) -> Tree:
    """(B, ...) to (k, B / k, ...), row i going to micro-batch i modulo k."""

    def split(x: jax.Array) -> jax.Array:
        x = constrain_batch(x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]))
        return jnp.swapaxes(x, 0, 1)

    return jax.tree.map(split, tree)


def _merge(tree: Tree) -> Tree:
    """The inverse of ``_split``."""

    def merge(x: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x, 0, 1)
        return constrain_batch(x.reshape(-1, *x.shape[2:]))

    return jax.tree.map(merge, tree)


def _with_weight(aux: Aux, micro: Batch) -> Aux:
    rows = micro["_mask"].shape[0]
    _check_rows(aux.carry, rows, "Aux.carry")
    weight = micro["_mask"].sum() if aux.weight is None else aux.weight
    return dataclasses.replace(aux, weight=jnp.asarray(weight, jnp.float32))


def _without_state(aux: Aux) -> Aux:
    return dataclasses.replace(aux, model_state={})


def _gather(auxes: Aux, model_state: Tree) -> Aux:
    """One ``Aux`` of those of all micro-batches, stacked along a first axis."""
    weights = auxes.weight
    return Aux(
        metrics={name: _average(x, weights) for name, x in auxes.metrics.items()},
        model_state=model_state,
        carry=_merge(auxes.carry),
        means=jax.tree.map(lambda x: _average(x, weights).astype(x.dtype), auxes.means),
        weight=jnp.sum(weights),  # pyright: ignore[reportArgumentType]
    )


def _average(x: jax.Array, weights: Any) -> jax.Array:
    """float32 average along the first axis."""
    total = jnp.tensordot(weights, x.astype(jnp.float32), 1, precision="highest")
    return total / _positive(jnp.sum(weights))


def _positive(weight: Any) -> jax.Array:
    return jnp.where(weight > 0, weight, 1)


def _zeros(params: Params) -> Params:
    return jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)


def _check_rows(tree: Tree, rows: int, what: str) -> None:
    for key_path, x in jax.tree_util.tree_leaves_with_path(tree):
        if x.ndim == 0 or x.shape[0] != rows:
            name = jax.tree_util.keystr(key_path, simple=True, separator="/")
            raise ValueError(
                f"{what} has {name!r} of shape {x.shape}; it needs {rows} rows, one for every row "
                "of the batch (averages go to Aux.metrics or Aux.means)"
            )


def _check_divides(rows: int, accumulate: int) -> None:
    if rows % accumulate:
        raise AccumulationError(
            f"config.accumulate={accumulate} does not divide the batch of {rows}"
        )
    mesh = jax.sharding.get_abstract_mesh()
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.axis_names)
    if rows // parts % accumulate:
        raise AccumulationError(
            f"config.accumulate={accumulate} does not divide the {rows // parts} rows that each of "
            f"{parts} devices has of a batch of {rows}: the batch size must be a multiple of "
            f"{parts * accumulate}"
        )
