"""What a source of examples is: random access, a description, and a name for every record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from vision.config.errors import UserError


class DataError(UserError):
    """A record or a data set cannot be used; the message names the record and the remedy."""


@dataclasses.dataclass(frozen=True)
class SourceInfo:
    """What a reader of a data set needs to know before the first record.

    Attributes:
      name: short name, as in a table.
      num_examples: number of records.
      class_names: names in label order; empty when there are no classes.
      features: feature name to a one-line description with dtype, shape and range,
        for example ``{"image": "uint8[8,8,1], 0..255", "label": "int32, 0..9"}``.
      licence: SPDX identifier or a short sentence.
      homepage: where the data comes from: an address or a path.
      citation: what to cite, or who made it.
      consent: whether the people shown, and those who took the pictures, agreed.
      personal_data: whether faces, names, places of living or health are in it.
      collection: when, how and by whom it was collected and labelled.

    The last six are the data set's card, sentences for people; empty when unknown.
    """

    name: str
    num_examples: int
    class_names: tuple[str, ...] = ()
    features: Mapping[str, str] = dataclasses.field(default_factory=dict)
    licence: str = ""
    homepage: str = ""
    citation: str = ""
    consent: str = ""
    personal_data: str = ""
    collection: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


CARD = ("licence", "homepage", "citation", "consent", "personal_data", "collection")
"""The fields of ``SourceInfo`` that are a data set's card."""


@runtime_checkable
class Source(Protocol):
    """Random access to examples. Implementations are frozen dataclasses that pickle.

    ``source[i]`` returns a new dict that the caller may change; values are numpy arrays,
    numbers, bytes (still encoded images) or strings. Reading is deterministic: the same
    index gives the same record in every process. A record that cannot be read raises
    ``DataError`` naming ``key(i)``.

    A source that can gather many records at once may also define
    ``__getitems__(indices) -> dict`` of arrays stacked on a new first axis.
    """

    @property
    def info(self) -> SourceInfo: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def key(self, index: int) -> str:
        """A name by which a person finds the record: a path, an id, ``digits/test/17``."""
        ...
