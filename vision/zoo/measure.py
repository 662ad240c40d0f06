"""What a member of the zoo reaches, by its own evaluators."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax

from vision.config.specs import from_plain
from vision.data.sources.combine import Subset
from vision.evaluate.evaluator import Evaluator, Predict, evaluate
from vision.parallel.mesh import replicated
from vision.predict.pretrained import filled, forward_of
from vision.run.experiment import DataSpec, check
from vision.run.prepare import prepare
from vision.train.objective import Variables
from vision.weights import zoo
from vision.weights.init_from import InitFrom

Reached = dict[str, dict[str, float]]
"""Evaluator to metric to value."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A member, ready to be asked.

    Attributes:
      name: after ``zoo:``.
      step: that its weights are of.
      evaluators: of its config.
      predict: ``(variables, batch) -> dict``.
      variables: from its file, on ``mesh``.
      mesh: the devices here.
    """

    name: str
    step: int
    evaluators: dict[str, Evaluator]
    predict: Predict
    variables: Variables
    mesh: jax.sharding.Mesh

    def reached(self, examples: int | None = None) -> Reached:
        """What its evaluators give, six digits after the point.

        Args:
          examples: only the first so many, and only the first evaluator that reads one data set.
            None for everything.
        """
        found: Reached = {}
        for name, evaluator in self.evaluators.items():
            if examples is not None:
                data = getattr(evaluator, "data", None)
                if data is None or found:
                    continue
                part = Subset(data.source, indices=tuple(range(min(examples, len(data.source)))))
                few = dataclasses.replace(data, source=part, threads=0)
                evaluator = dataclasses.replace(evaluator, data=few)  # type: ignore[type-var]
            numbers, _ = evaluate(evaluator, self.predict, self.variables, self.step, self.mesh)
            found[name] = {k: round(float(x), 6) for k, x in numbers.items() if math.isfinite(x)}
        return found


def member(name: str) -> Member:
    """A member with the parameters of its file.

    Raises:
      WeightsError: there is none of that name, or it is damaged.
    """
    config, card = from_plain(zoo.config(name)), zoo.card(name)
    check(config, str(zoo.folder_of(name) / zoo.CONFIG))
    batch = {key: (tuple(shape), dtype) for key, (shape, dtype) in card["batch"].items()}
    spec = DataSpec(card["num_examples"], tuple(card["class_names"]), batch)
    prepared = prepare(config, spec)
    objective: Any = prepared.experiment.objective
    fresh = jax.eval_shape(prepared.step.init, prepared.batch).averaged
    variables = filled(fresh, objective.model, InitFrom(f"{zoo.SCHEME}:{name}"))
    return Member(
        name,
        card["step"],
        dict(prepared.experiment.evaluators or {}),
        forward_of(objective),
        jax.device_put(variables, replicated(prepared.mesh)),
        prepared.mesh,
    )
