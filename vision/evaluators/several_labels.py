"""Sets of classes as data say them, for every evaluator that reads several labels of an image.

The batches have integers or bool (N, K), 1, 0 and perhaps -1 for a class that is not known; or, as
the columns ``MultiLabel`` and ``PartialLabels`` make them, float 0 and 1, and beside it
``<name>_known`` bool (N, K).
"""

from __future__ import annotations

import numpy as np

from vision.data.source import DataError
from vision.evaluators.image_text.embeddings import Rows


def known(name: str) -> str:
    """What the batches call the feature that says which entries of ``name`` are known."""
    return f"{name}_known"


def label_sets(
    rows: Rows, name: str, classes: int | None, source: str, *, in_part: bool = False
) -> np.ndarray:
    """The labels ``name`` as int8 (N, K): 1, 0, and -1 where a class is not known.

    Args:
      rows: with ``name`` and, where the batches have it, ``known(name)``.
      name: of the labels.
      classes: K; None for any.
      source: name of the data, for errors.
      in_part: whether classes may be unknown.

    Raises:
      DataError: other values or another shape; names the first such row, by its record's number.
    """
    sets = rows[name]
    fits = sets.ndim == 2 and classes in (None, sets.shape[1])
    if not fits or sets.dtype.kind not in "biuf":
        count = "K" if classes is None else classes
        raise DataError(
            f"{source}: {name!r} is {sets.dtype}{list(sets.shape)}; it must be 0 and 1 for each of "
            f"the classes, (N, {count}), as the columns MultiLabel and PartialLabels give it"
        )
    invalid = ~np.isin(sets, (-1, 0, 1))
    if invalid.any():
        row, column = (int(i[0]) for i in np.nonzero(invalid))
        raise DataError(
            f"{source}: {name!r} of record {_record(rows, row)} is {sets[row, column]} for class "
            f"{column}; all must be 0 and 1, or -1 where not known"
        )
    result = sets.astype(np.int8)
    if known(name) in rows:
        mask = rows[known(name)].astype(bool)
        if mask.shape != result.shape:
            raise DataError(f"{source}: {known(name)!r} is {list(mask.shape)}, not as {name!r}")
        result = np.where(mask, result, np.int8(-1))
    if not in_part and (result < 0).any():
        row = int(np.flatnonzero((result < 0).any(1))[0])
        raise DataError(
            f"{source}: {name!r} of record {_record(rows, row)} is not known for every class; "
            "MultiLabelClassification takes labels that are known in part"
        )
    return result


def _record(rows: Rows, row: int) -> int:
    return int(rows["_index"][row]) if "_index" in rows else row
