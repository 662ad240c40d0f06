"""The procedural data set ``scenes`` as a source of examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np

from vision.config.ranges import NonEmpty, checked, one_of
from vision.data.source import SourceInfo
from vision.data.sources.scenes.features import FEATURES, Example
from vision.data.sources.scenes.labelled import LabelledScenes
from vision.data.sources.scenes.reader import CARD


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class Scenes(LabelledScenes):
    """Images of a world's scenes with everything that is true of them; nothing is stored.

    Example i is a pure function of the fields and i; splits are independent streams. A scene
    does not depend on ``num_examples``, ``image_size``, the shape of its picture or ``features``.
    The fields not named here are those of ``World``, ``SceneReader`` and ``LabelledScenes``.

    Attributes:
      features: what every example holds, names from ``features.FEATURES``.

    Raises:
      ValueError: an argument outside its range; the message names it and the valid values.
    """

    features: NonEmpty[tuple[Annotated[str, one_of(FEATURES)], ...]] = ("image", "label")

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            name=self.name,
            num_examples=self.num_examples,
            class_names=self.class_names,
            features={name: FEATURES[name].describe(self) for name in self.features},
            **CARD,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = Example(self, self.checked(index))
        return {name: FEATURES[name].read(example) for name in self.features}

    def __getitems__(self, indices: Sequence[int] | Iterable[int]) -> dict[str, np.ndarray]:
        """The examples of ``indices``, stacked on a new first axis; captions become an array of
        strings."""
        examples = [self[index] for index in indices]
        if not examples:
            raise IndexError("no indices to gather")
        if not self.one_shape:
            raise ValueError(
                f"{self.name}: pictures of scale_range={self.scale_range!r} and "
                f"aspect_range={self.aspect_range!r} do not stack; read them one by one"
            )
        return {name: np.stack([example[name] for example in examples]) for name in self.features}
