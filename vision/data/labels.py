"""The labels of a whole source, for those who need all of them before the first batch."""

from __future__ import annotations

from typing import Any

import numpy as np
from absl import logging

from vision.data.source import DataError, Source

_CHUNK = 1024
_SLOW = 10_000


def labels_of(source: Source, feature: str = "label") -> np.ndarray:
    """One scalar per record, (N,), of the source's own dtype; read-only.

    A source that knows its labels without reading the records has ``labels() -> array (N,)``.
    From others every record is read once, which for a large set on disk takes a while.

    Raises:
      DataError: a record has no such feature, or it is not a scalar.
    """
    quick = getattr(source, "labels", None)
    if feature == "label" and callable(quick):
        values = np.asarray(quick())
    else:
        values = _read(source, feature)
    if values.shape != (len(source),) or values.dtype.kind not in "iubUS":
        raise DataError(
            f"{source.info.name}: feature {feature!r} is {values.dtype}{list(values.shape)}; a "
            f"sampler needs one integer or string for each of the {len(source)} records"
        )
    values = values.view()
    values.flags.writeable = False
    return values


def _read(source: Source, feature: str) -> np.ndarray:
    count = len(source)
    gather = getattr(source, "__getitems__", None)
    if gather is not None:
        parts = []
        for start in range(0, count, _CHUNK):
            batch = gather(np.arange(start, min(count, start + _CHUNK)))
            parts.append(_feature(batch, feature, source, start))
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
    if count > _SLOW:
        logging.warning(
            "%s: reading all %d records for their %r; give the source labels() to save this",
            source.info.name, count, feature,
        )  # fmt: skip
    return np.asarray([_feature(source[i], feature, source, i) for i in range(count)])


def _feature(example: dict[str, Any], feature: str, source: Source, index: int) -> Any:
    if feature not in example:
        names = ", ".join(sorted(k for k in example if not k.startswith("_")))
        raise DataError(
            f"{source.info.name}: record {source.key(index)} has no feature {feature!r} but "
            f"{names}; set the sampler's feature"
        )
    return example[feature]
