"""A prompting block of TransHP and its coarse classes."""

from __future__ import annotations

import dataclasses

from vision.config.ranges import NonNegative, checked


@dataclasses.dataclass(frozen=True)
@checked
class Level:
    """A prompting block.

    Attributes:
      block: index, from 0.
      ancestors: the coarse class, 0.., of every fine class. Fine classes without one on this level
        share an additional index.
      weight: lambda.
    """

    block: NonNegative[int]
    ancestors: tuple[int, ...]
    weight: NonNegative[float] = 1.0

    def __post_init__(self) -> None:
        if set(self.ancestors) != set(range(self.classes)):
            raise ValueError(f"ancestors={self.ancestors}: numbers 0.. without a gap")

    @property
    def classes(self) -> int:
        return max(self.ancestors, default=-1) + 1

    @property
    def site(self) -> str:
        return f"block{self.block:02d}"

    @property
    def before(self) -> str:
        """The site after which the prompts are appended."""
        return f"block{self.block - 1:02d}" if self.block else "stem"
