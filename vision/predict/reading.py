"""Batches of images of any origin, each of which may be unreadable."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from vision.data.batches import BatchReader
from vision.data.collate import Batch
from vision.data.ops.base import Example
from vision.data.source import DataError
from vision.predict.preprocessing import Prepared


@dataclasses.dataclass(frozen=True, repr=False)
class PredictionReader(BatchReader):
    """Batches of which every image may be unreadable, and none stops the others.

    Attributes:
      prepared: says what an image becomes; those that become something else are unreadable.
    """

    prepared: Prepared | None = None

    def example(self, index: int, rng: np.random.Generator) -> Example:
        example = super().example(index, rng)
        assert self.prepared is not None
        fitting(example["image"], self.prepared)
        return example

    @functools.cached_property
    def placeholder(self) -> Batch:
        assert self.prepared is not None
        return {"image": np.zeros(self.prepared.shape, self.prepared.dtype)}


def fitting(image: np.ndarray, prepared: Prepared) -> np.ndarray:
    """``image`` where it is of the shape that the model reads.

    Raises:
      DataError: it is not.
    """
    if image.shape != prepared.shape:
        height, width, channels = prepared.shape
        raise DataError(
            f"is {image.shape[0]} x {image.shape[1]} pixels (height x width) with "
            f"{image.shape[2]} channel(s) for a model of {height} x {width} with {channels}, whose "
            f"preprocessing ({prepared.where}) does not resize: resize the image"
        )
    return image
