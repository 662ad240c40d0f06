"""A tower with weights of another library as a predictor, without a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vision.evaluate.evaluator import Predict
from vision.objectives.classify import Classify
from vision.parallel.mesh import Mesh, replicated
from vision.predict.predictor import Predictor
from vision.predict.preprocessing import Prepared
from vision.predict.results import unique_names
from vision.train.objective import Batch, Context, Objective, Variables
from vision.train.tower import Tap, Tapped, Tower, Tree, initialise
from vision.weights.init_from import InitFrom


def of_tower(model: Tower, source: str, prepared: Prepared, names: Sequence[str]) -> Predictor:
    """A classifier of weights.

    Args:
      model: its tower, with a head of as many classes as ``names``.
      source: of ``InitFrom``; the head is read too.
      prepared: preprocessing that belongs to the weights.
      names: of the classes.

    Raises:
      WeightsError: weights that cannot be read or are not of this tower.
    """
    mesh = Mesh().build()
    image = jax.ShapeDtypeStruct((1, *prepared.shape), prepared.dtype)
    shapes = jax.eval_shape(lambda x: initialise(model, jax.random.key(0), x), image)
    target: Mapping[str, Tree] = {"params": shapes[0], "model_state": dict(shapes[1])}
    loaded = InitFrom(source, head="read").load(model, target)
    variables = Variables({"model": loaded["params"]}, {"model": loaded["model_state"]}, {})
    return Predictor(
        source=source,
        classes=unique_names(names),
        preprocessing=prepared,
        forward=forward_of(Classify(model=model)),
        variables=jax.device_put(variables, replicated(mesh)),
        mesh=mesh,
    )


def forward_of(objective: Objective) -> Predict:
    """What evaluators are given of an objective: its predictions, with a tap as third argument."""

    def forward(variables: Variables, batch: Batch, tap: Tap | None = None) -> dict[str, Any]:
        asked: Any = objective
        if tap is not None:
            asked = dataclasses.replace(objective, model=Tapped(objective.model, tap))  # pyright: ignore
        return asked.predict(variables, batch, Context.evaluation())

    return forward
