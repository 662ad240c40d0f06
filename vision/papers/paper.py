"""What a paper's folder says about it, in ``__init__.py``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

TAG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FIRST_YEAR, LAST_YEAR = 1900, 2100
# What a folder holds, or says in ``without`` why it does not.
PARTS = ("method.py", "config.py", "claim.py", "result.json")


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper. Its folder's ``__init__.py`` holds ``PAPER = Paper(...)`` with literal arguments.

    They are read without running the file.

    Attributes:
      title: as printed, without the year.
      year: of the publication.
      card: number of the paper in a reading list, 1 or more; None where it is in none.
      tags: at least one, lower-case words joined by hyphens, the most telling first: tables of
        papers are grouped by it.
      headline: one sentence: the figure that the authors report.
      without: name of one of ``PARTS`` that the folder lacks to the reason, one sentence.
    """

    title: str
    year: int
    card: int | None
    tags: tuple[str, ...]
    headline: str
    without: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError, which names the field."""
        for name in ("title", "headline"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip() or "\n" in value:
                raise ValueError(f"{name} is {value!r}, not a line of text")
        if type(self.year) is not int or not FIRST_YEAR <= self.year <= LAST_YEAR:
            raise ValueError(f"year is {self.year!r}, not one of {FIRST_YEAR} to {LAST_YEAR}")
        if self.card is not None and (type(self.card) is not int or self.card < 1):
            raise ValueError(f"card is {self.card!r}, neither a number from 1 on nor None")
        if not isinstance(self.tags, tuple) or not self.tags:
            raise ValueError(f"tags is {self.tags!r}, not a tuple of at least one")
        for tag in self.tags:
            if not isinstance(tag, str) or not TAG.fullmatch(tag):
                raise ValueError(f"tags: {tag!r} is not lower-case words joined by hyphens")
        for part, reason in self.without.items():
            if part not in PARTS or not isinstance(reason, str) or not reason.strip():
                raise ValueError(
                    f"without: {part!r}: {reason!r} is not one of {', '.join(PARTS)} with a reason"
                )
        if len(set(self.tags)) < len(self.tags):
            raise ValueError(f"tags: {', '.join(self.tags)}: one stands twice")
