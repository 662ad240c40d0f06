"""The 3x3 convolutions of a network, in the order in which its forward pass calls them."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from papers.filter_db.method import FilterError, Layer
from vision.evaluate.evaluator import Predict
from vision.evaluators.image_text.embeddings import fetched
from vision.train.objective import Variables


def layers_of(predict: Predict, variables: Variables, batch: Mapping[str, Any]) -> list[Layer]:
    """All 3x3 convolutions that ``predict`` calls, by their first call. Computes nothing.

    Args:
      predict: of the run.
      variables: with parameters; kernels are (3, 3, inputs of a group, outputs).
      batch: arrays, or their shapes.

    Raises:
      FilterError: there is none; the message counts the other sizes.
    """
    called: dict[tuple[str, ...], int] = {}

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        called.setdefault(context.module.path, len(called))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda v, b: predict(v, b), variables, dict(batch))
    found: list[tuple[int, str, Any]] = []
    others: collections.Counter[str] = collections.Counter()
    for path, x in jax.tree_util.tree_leaves_with_path(variables.params):
        names = tuple(str(key.key) for key in path)
        if names[-1] != "kernel" or x.ndim != 4:
            continue
        if x.shape[:2] != (3, 3):
            others["x".join(map(str, x.shape[:2]))] += 1
        # The first name is the network's, which its modules do not know.
        elif names[1:-1] in called:
            found.append((called[names[1:-1]], "/".join(names[:-1]), x))
    if not found:
        sizes = ", ".join(f"{count} of {size}" for size, count in sorted(others.items()))
        raise FilterError(
            f"the network calls no 3x3 convolution; it has {sizes or 'no convolution at all'}"
        )
    found.sort(key=lambda each: each[:2])
    last = max(len(found) - 1, 1)
    return [Layer(name, np.asarray(fetched(x), np.float32), i / last)
            for i, (_, name, x) in enumerate(found)]  # fmt: skip
