"""A feature of all records of a source, for code that needs it before the first batch.

A source that knows a feature of all its records without opening them has
``column(feature) -> sequence``, which raises KeyError for other features; ``names(feature)`` gives
the names behind its numbers. From other sources every record is read once.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import numpy as np

from vision.data.source import DataError, Source

log = logging.getLogger(__name__)

_CHUNK = 1024
_SLOW = 10_000


def feature_of(source: Source, feature: str) -> list[Any]:
    """A feature of all records, in order.

    Raises:
      DataError: no such feature, or a record cannot be read.
    """
    column = getattr(source, "column", None)
    if column is not None:
        try:
            return list(column(feature))
        except KeyError:
            raise DataError(
                f"{source.info.name} has no feature {feature!r} but "
                f"{', '.join(source.info.features)}"
            ) from None
    count = len(source)
    gather = getattr(source, "__getitems__", None)
    if gather is not None:
        values: list[Any] = []
        for start in range(0, count, _CHUNK):
            batch = gather(np.arange(start, min(count, start + _CHUNK)))
            values += list(_feature(batch, feature, source, start))
        return values
    if count > _SLOW:
        log.warning(
            "%s: reading all %d records for their %r; give the source column() to save this",
            source.info.name, count, feature,
        )  # fmt: skip
    return [_feature(source[i], feature, source, i) for i in range(count)]


def has_column(source: Any) -> bool:
    """Whether a source, and those that it is made of, know features without reading records."""
    if getattr(source, "column", None) is None:
        return False
    if not dataclasses.is_dataclass(source):
        return True
    values = [getattr(source, field.name) for field in dataclasses.fields(source)]
    inner = [item for value in values for item in (value if isinstance(value, tuple) else [value])]
    return all(has_column(item) for item in inner if isinstance(item, Source))


def names_of(source: Source, feature: str) -> tuple[str, ...]:
    """The names behind a feature's numbers, where the source has them; ``label`` has the classes of
    the source."""
    names = getattr(source, "names", None)
    found = () if names is None else tuple(names(feature))
    return found or (source.info.class_names if feature == "label" else ())


def labels_of(source: Source, feature: str = "label") -> np.ndarray:
    """One scalar per record, (N,), integers or strings; read-only.

    Raises:
      DataError: a record has no such feature, or it is not a scalar.
    """
    values = np.asarray(feature_of(source, feature))
    if values.shape != (len(source),) or values.dtype.kind not in "iubUS":
        raise DataError(
            f"{source.info.name}: feature {feature!r} is {values.dtype}{list(values.shape)}; a "
            f"sampler needs one integer or string for each of the {len(source)} records"
        )
    values.flags.writeable = False
    return values


def _feature(example: dict[str, Any], feature: str, source: Source, index: int) -> Any:
    if feature not in example:
        names = ", ".join(k for k in example if not k.startswith("_"))
        raise DataError(
            f"{source.info.name}: record {source.key(index)} has no feature {feature!r} but {names}"
        )
    return example[feature]
