"""``predict`` that also gives what a tower has at sites."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from vision.blocks.sites import activations
from vision.evaluate.evaluator import Predict
from vision.train.objective import Batch, Variables
from vision.train.tower import Tap


@dataclasses.dataclass(frozen=True)
class AtSites:
    """``predict`` that also gives ``site/NAME`` for every site, (B, ...), as the tower has it.

    Raises ``SiteError`` when it is called with a tower that lacks one; the message lists those
    that it has.

    Attributes:
      predict: of the run; it takes a tap as third argument.
      sites: names of the tower's vocabulary, such as ``block05`` or ``map``.
    """

    predict: Predict
    sites: tuple[str, ...]

    def __call__(self, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
        predict: Any = self.predict
        outputs: dict[str, jax.Array] = {}

        def call(tap: Tap) -> None:
            outputs.update(predict(variables, batch, tap))

        found = activations(call, self.sites)
        return {**outputs, **{f"site/{k}": x for k, x in zip(self.sites, found, strict=True)}}
