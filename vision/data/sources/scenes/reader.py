"""What every source over a world shares: a length, an image size, names of examples."""

from __future__ import annotations

import dataclasses
import operator
from pathlib import Path
from typing import Annotated

from vision.config.ranges import Ge, Positive, checked
from vision.data.fingerprint import content
from vision.data.sources.scenes.world import World

CARD = {
    "licence": "Apache-2.0",
    "homepage": "vision/data/sources/scenes",
    "citation": "not applicable: made in this repository",
    "consent": "not applicable: drawn by a program, nobody is shown",
    "personal_data": "no",
    "collection": "rendered on demand from (seed, index); labels are what was drawn",
}
"""Fields of ``SourceInfo`` that all sources of scenes share."""


Side = Annotated[int, Ge(8)]


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class SceneReader(World):
    """A world read as ``num_examples`` examples; see ``World`` for the other fields.

    Attributes:
      num_examples: length of the source; example i does not depend on it.
      image_size: side of the image, or (height, width), in pixels; at least 8.
    """

    num_examples: Positive[int] = 10_000
    image_size: Side | tuple[Side, Side] = 64

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def name(self) -> str:
        """Short name of the source, as in a table."""
        return type(self).__name__.lower()

    def __len__(self) -> int:
        return self.num_examples

    def fingerprint(self) -> str:
        """Changes with the arguments and with the code of scenes; none is rendered."""
        return content(self, code=Path(__file__).parent.glob("*.py"))

    def key(self, index: int) -> str:
        """Name of an example, such as ``scenes/train/seed0/17``."""
        return f"{self.name}/{self.split}/seed{self.seed}/{self.checked(index)}"

    def checked(self, index: int) -> int:
        """``index`` as an int; ``IndexError`` where there is no such example."""
        index = operator.index(index)
        if not 0 <= index < self.num_examples:
            raise IndexError(
                f"{self.name}/{self.split} has examples 0..{self.num_examples - 1}, not {index}"
            )
        return index
