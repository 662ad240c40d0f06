"""What all sources that draw their pictures share: numbers, names and sizes of examples."""

from __future__ import annotations

import abc
import operator
from typing import Annotated

from vision.config.ranges import Ge
from vision.data.sources.scenes.draws import uniforms

Side = Annotated[int, Ge(8)]


class NumberedExamples(abc.ABC):
    """Examples 0..n-1, each a pure function of a dataclass's fields and its number.

    Attributes:
      seed: chooses the world; unsigned 64-bit.
      split: name of an independent stream of examples.
      image_size: side of the image, or (height, width), in pixels; at least 8.
    """

    seed: int
    split: str
    image_size: int | tuple[int, int]

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def name(self) -> str:
        """Short name of the source, as in a table."""
        return type(self).__name__.lower()

    def uniforms(self, index: int, purpose: str, count: int) -> list[float]:
        """``count`` uniform numbers in [0, 1) for example ``index``, by purpose."""
        if not count:
            return []
        return uniforms(self.seed, self.split, index, purpose, count).tolist()

    def key(self, index: int) -> str:
        """Name of an example, such as ``scenes/train/seed0/17``."""
        return f"{self.name}/{self.split}/seed{self.seed}/{self.checked(index)}"

    def checked(self, index: int) -> int:
        """``index`` as an int; ``IndexError`` where there is no such example."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"{self.name}/{self.split} has examples 0..{len(self) - 1}, not {index}"
            )
        return index
