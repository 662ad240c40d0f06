"""What every source over a world shares: a length, an image size, names of examples."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vision.config.ranges import Positive, checked
from vision.data.fingerprint import content
from vision.data.sources.scenes.numbered import NumberedExamples, Side
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


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class SceneReader(NumberedExamples, World):
    """A world read as ``num_examples`` examples; see ``World`` for the other fields.

    Attributes:
      num_examples: length of the source; example i does not depend on it.
      image_size: side of the image, or (height, width), in pixels; at least 8.
    """

    num_examples: Positive[int] = 10_000
    image_size: Side | tuple[Side, Side] = 64

    def __len__(self) -> int:
        return self.num_examples

    def fingerprint(self) -> str:
        """Changes with the arguments and with the code of scenes; none is rendered."""
        return content(self, code=Path(__file__).parent.glob("*.py"))
