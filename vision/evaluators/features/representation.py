"""Statistics of features that need no labels: effective rank, uniformity, alignment, CKA."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import numpy as np

from vision.config.ranges import Ge, NonEmpty, Unique, checked
from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import Rows, embed, finite, spread
from vision.metrics.representation import alignment, effective_rank, linear_cka, uniformity


@dataclasses.dataclass(frozen=True)
@checked
class Representation:
    """Effective rank, uniformity, alignment of two views, and CKA between features.

    Yields for every one of ``outputs`` ``<output>_effective_rank`` and ``<output>_uniformity``;
    with ``views`` also ``<output>_alignment``; for every pair of them ``<a>_<b>_cka`` and
    ``<a>_<b>_cka_debiased``; and for every folder of ``others`` ``<output>_<name>_cka`` and
    ``..._cka_debiased`` with the same output of that model. Then ``examples``, and, only where
    there are any, ``nonfinite`` (features with NaN or infinity, or zero, which have no direction)
    and ``unpaired`` (records that a view or another model has not). Definitions and sources:
    ``vision.metrics.representation``. What is missing anywhere is left out everywhere, so that
    all numbers are of the same records.

    Attributes:
      data: what is measured.
      views: the same source with other ops: row by row the second view of a positive pair, such as
        other crops; None for none.
      outputs: names of features (B, D) that ``predict`` gives, or (B, ...), which are flattened.
      others: name to folder of other models' stored features of the same source, as evaluate.py
        writes them with ``--features``: ``<output>.npy`` and ``_index.npy``.
      most: records at most, evenly spread; uniformity takes a time of their square.
    """

    data: EvaluationData
    views: EvaluationData | None = None
    outputs: Unique[NonEmpty[tuple[str, ...]]] = ("embedding",)
    others: Mapping[str, str] = dataclasses.field(default_factory=dict)
    most: Annotated[int, Ge(4)] = 10_000

    def __post_init__(self) -> None:
        if clash := set(self.outputs) & set(self.others):
            raise ValueError(f"others: {min(clash)!r} is the name of an output")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data``, and ``views``, once.

        Raises:
          DataError: fewer than 4 records with finite features everywhere, or a folder of
            ``others`` without the features.
          ValueError: ``predict`` or the batches lack what is needed.
        """
        tables = {"": embed(predict, ctx, self.data, self.outputs)}
        if self.views is not None:
            tables["views"] = embed(predict, ctx, self.views, self.outputs)
        for name, folder in self.others.items():
            tables[f"of {name}"] = {
                name: _stored(Path(folder), name) for name in (*self.outputs, "_index")
            }
        shared, unpaired = _shared(tables)
        rows = {name: _Rows.of(table, shared, self.outputs) for name, table in tables.items()}
        usable = np.logical_and.reduce([features.usable for features in rows.values()])
        if usable.sum() < 4:
            raise DataError(
                f"{self.data.source.info.name}: {int(usable.sum())} of {len(shared)} records have "
                "finite features in every view and model; 4 are needed at least"
            )
        chosen = np.flatnonzero(usable)[spread(self.most, int(usable.sum()))]
        x = {
            name: {key: y[chosen] for key, y in features.x.items()}
            for name, features in rows.items()
        }
        for name in self.outputs:
            yield f"{name}_effective_rank", effective_rank(x[""][name])
            yield f"{name}_uniformity", uniformity(x[""][name])
            if self.views is not None:
                yield f"{name}_alignment", alignment(x[""][name], x["views"][name])
        for a, b in itertools.combinations(self.outputs, 2):
            yield f"{a}_{b}_cka", linear_cka(x[""][a], x[""][b])
            yield f"{a}_{b}_cka_debiased", linear_cka(x[""][a], x[""][b], debiased=True)
        for name, other in itertools.product(self.outputs, self.others):
            pair = x[""][name], x[f"of {other}"][name]
            yield f"{name}_{other}_cka", linear_cka(*pair)
            yield f"{name}_{other}_cka_debiased", linear_cka(*pair, debiased=True)
        yield "examples", len(chosen)
        for name, count in (("nonfinite", int((~usable).sum())), ("unpaired", unpaired)):
            if count:
                yield name, count


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Features (N, D) of the shared records, and (N,) bool where all are finite and not zero."""

    x: dict[str, np.ndarray]
    usable: np.ndarray

    @classmethod
    def of(cls, table: Rows, shared: np.ndarray, outputs: tuple[str, ...]) -> _Rows:
        order = np.argsort(table["_index"], kind="stable")
        places = order[np.searchsorted(table["_index"][order], shared)]
        x = {name: table[name].reshape(len(table["_index"]), -1)[places] for name in outputs}
        return cls(x, np.logical_and.reduce([finite(y) & y.any(1) for y in x.values()]))


def _shared(tables: dict[str, Rows]) -> tuple[np.ndarray, int]:
    """Places in the source that all tables have, and how many only some have."""
    shared = union = tables[""]["_index"]
    for table in tables.values():
        shared = np.intersect1d(shared, table["_index"])
        union = np.union1d(union, table["_index"])
    return np.unique(shared), len(union) - len(np.unique(shared))


def _stored(folder: Path, name: str) -> np.ndarray:
    path = folder / f"{quote(name, safe='')}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is missing or cannot be read ({error}); others names a folder below that "
            "of --features, which has a file of every stored output"
        ) from error
