"""The procedural data set ``scenes`` as a source of examples."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vision.data.source import SourceInfo
from vision.data.sources.scenes.draws import spread
from vision.data.sources.scenes.features import FEATURES, Example
from vision.data.sources.scenes.labels import LABELS
from vision.data.sources.scenes.record import Scene
from vision.data.sources.scenes.world import World


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenes(World):
    """A world of scenes with ``num_examples`` examples, random access, nothing stored.

    Example i is a pure function of the fields and i; splits are independent streams. A scene
    does not depend on ``num_examples``, ``image_size`` or ``features``.

    Attributes:
      num_examples: length of the source.
      image_size: side of the image, or (height, width), in pixels; at least 8.
      features: what every example holds, names from ``features.FEATURES``.

    Raises:
      ValueError: an argument outside its range; the message names it and the valid values.
    """

    num_examples: int = 10_000
    image_size: int | tuple[int, int] = 64
    features: tuple[str, ...] = ("image", "label")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_examples < 1:
            raise ValueError(f"num_examples={self.num_examples!r} must be at least 1")
        if min(self.image_shape) < 8:
            raise ValueError(f"image_size={self.image_size!r} must be at least 8")
        if not self.features:
            raise ValueError(f"features is empty; valid values: {', '.join(FEATURES)}")
        for name in self.features:
            if name not in FEATURES:
                raise ValueError(f"features={name!r}; valid values: {', '.join(FEATURES)}")

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            name="scenes",
            num_examples=self.num_examples,
            class_names=self.class_names,
            features={name: FEATURES[name].describe(self) for name in self.features},
            licence="Apache-2.0",
        )

    def __len__(self) -> int:
        return self.num_examples

    def key(self, index: int) -> str:
        return f"scenes/{self.split}/seed{self.seed}/{self._checked(index)}"

    def _checked(self, index: int) -> int:
        index = operator.index(index)
        if not 0 <= index < self.num_examples:
            raise IndexError(
                f"scenes/{self.split} has examples 0..{self.num_examples - 1}: {index}"
            )
        return index

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = Example(self, self._checked(index))
        return {name: FEATURES[name].read(example) for name in self.features}

    def __getitems__(self, indices: Sequence[int] | Iterable[int]) -> dict[str, np.ndarray]:
        """The examples of ``indices``, stacked on a new first axis; captions become an array of
        strings."""
        examples = [self[index] for index in indices]
        if not examples:
            raise IndexError("no indices to gather")
        return {name: np.stack([each[name] for each in examples]) for name in self.features}

    def label_of(self, scene: Scene) -> int:
        """Class of ``scene`` in this source's order.

        Raises:
          ValueError: a scene whose answer is not one of ``class_names``.
        """
        name = LABELS[self.label].read(scene)
        if name not in self.class_names:
            raise ValueError(f"label={self.label!r} of the scene is {name!r}, not a class here")
        return self.class_names.index(name)

    def template_of(self, index: int) -> int:
        """Which opening the captions of example ``index`` use."""
        return int(spread(self.seed, f"{self.split}/template", index) * 2**16)
