"""Filter statistics as an evaluator: of every 3x3 layer, and of the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from papers.filter_db.filters import layers_of
from papers.filter_db.method import FilterError, Layer, Quality, quality
from vision.config.ranges import Fraction, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Curve, Figure, Line, Table

LEAST = 4  # filters of a layer that can be compared with random ones


@dataclasses.dataclass(frozen=True)
@checked
class FilterStatistics:
    """Measures of the 3x3 filters of a network (``papers.filter_db.method``).

    Yields ``filters``, ``layers``, the means over layers ``sparsity``, ``entropy_ratio`` and
    ``orthogonality``, ``degenerate`` (share of layers with a ratio below ``degenerate_below``) and
    ``random_like`` (share from 1 on), and, only where there are any, ``too_small`` (layers of fewer
    than four filters, which are left out). The figure ``depth`` has the measures over the depth,
    the table ``layers`` those of every layer.

    Attributes:
      data: of whose records the first batch is read, for its shape.
      degenerate_below: ratio of the entropy to that of random filters below which a layer is
        called degenerate. The authors give no such number; half is ours.
    """

    data: EvaluationData
    degenerate_below: Fraction = 0.5

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads one batch.

        Raises:
          DataError: no records.
          FilterError: the network has no 3x3 convolution of at least four filters.
        """
        batch = next(iter(ctx.batches(self.data)), None)
        if batch is None:
            raise DataError(f"{self.data.source.info.name}: no records to take the shape of")
        every = layers_of(predict, ctx.variables, batch)
        layers, found = measured(every)
        ratio = np.array([each.ratio for each in found])
        yield "filters", sum(each.filters for each in found)
        yield "layers", len(found)
        yield "sparsity", float(np.mean([each.sparsity for each in found]))
        yield "entropy_ratio", float(ratio.mean())
        angles = np.array([each.orthogonality for each in found])
        if np.isfinite(angles).any():
            yield "orthogonality", float(np.nanmean(angles))
        yield "degenerate", float(np.mean(ratio < self.degenerate_below))
        yield "random_like", float(np.mean(ratio >= 1))
        if small := len(every) - len(layers):
            yield "too_small", small
        yield "depth", Curve(over_depth(layers, found), "depth", "share")
        yield "layers", _table(layers, found)


def measured(every: list[Layer]) -> tuple[list[Layer], list[Quality]]:
    """The layers of at least four filters, and their measures.

    Raises:
      FilterError: there is none.
    """
    layers = [layer for layer in every if len(layer.filters) >= LEAST]
    if not layers:
        raise FilterError(f"none of {len(every)} 3x3 convolutions has {LEAST} filters or more")
    return layers, [quality(layer) for layer in layers]


def over_depth(layers: list[Layer], found: list[Quality]) -> tuple[Line, ...]:
    """Lines of the measures over the depth."""
    x = np.array([layer.depth for layer in layers])
    return tuple(
        Line(what, x, np.array([getattr(each, name) for each in found]))
        for what, name in (
            ("entropy of random filters = 1", "ratio"),
            ("sparsity", "sparsity"),
            ("orthogonality", "orthogonality"),
        )
    )


def _table(layers: list[Layer], found: list[Quality]) -> Table:
    rows = tuple(
        (x.name, q.filters, q.sparsity, q.entropy, q.ratio, q.orthogonality)
        for x, q in zip(layers, found, strict=True)
    )
    columns = ("layer", "filters", "sparsity", "entropy", "entropy ratio", "orthogonality")
    return Table(columns, rows)
