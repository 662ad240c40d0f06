"""The picture moved by whole pixels: by its window in a larger picture, or around the edges."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.ops.base import Example, image_of, noted
from vision.data.ops.carry import carry_box
from vision.data.source import DataError


@dataclasses.dataclass(frozen=True)
@checked
class Shift:
    """The middle ``size`` of an image, moved: new pixels enter on one side as others leave.

    A shift of zero pixels is ``CenterCrop``. Without ``size`` the image keeps its size and the
    pixels that leave it come back on the other side; boxes and masks do not follow that. Images
    [H, W, C] of any dtype.

    Attributes:
      down_px: the window moves down by as much, so what it shows moves up; negative is up. Without
        ``size`` likewise.
      right_px: to the right.
      size: of the window, (height, width).
      key: the image feature.
    """

    down_px: int = 0
    right_px: int = 0
    size: tuple[Positive[int], Positive[int]] | None = None
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Raises ``DataError`` where the moved window reaches over the edge of the image."""
        image = image_of(example, self.key, "Shift")
        rows, columns = image.shape[:2]
        if self.size is None:
            out = np.roll(image, (-self.down_px, -self.right_px), (0, 1))
            return noted(
                {**example, self.key: out}, "Shift", down_px=self.down_px, right_px=self.right_px
            )
        height, width = self.size
        top = round((rows - height) / 2) + self.down_px
        left = round((columns - width) / 2) + self.right_px
        if min(top, left) < 0 or top + height > rows or left + width > columns:
            raise DataError(
                f"Shift: {self.key!r} is {rows}x{columns}; a window of {height}x{width} cannot be "
                f"moved by ({self.down_px}, {self.right_px}) within it: resize to more, or crop "
                "to less"
            )
        box = (top, left, height, width)
        example = carry_box(example, self.key, box, self.size)
        out = image[top : top + height, left : left + width]
        return noted(
            {**example, self.key: out}, "Shift", size=(rows, columns), box=box, to=self.size
        )
