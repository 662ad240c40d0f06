"""What the features of all sources that draw their pictures share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Feature:
    """How a feature is described for a source, and how it is read from an example.

    Attributes:
      describe: dtype, shape and meaning of the feature of a source, in words.
      read: the feature of an example.
    """

    describe: Callable[[Any], str]
    read: Callable[[Any], Any]


def padded(rows: np.ndarray, count: int, fill: float = 0) -> np.ndarray:
    """``rows`` [k, ...] with rows of ``fill`` up to [count, ...]."""
    full = np.full((count, *rows.shape[1:]), fill, rows.dtype)
    full[: len(rows)] = rows
    return full


def rendered(describe: Callable[[str], Callable[[Any], str]]) -> dict[str, Feature]:
    """Features of the ``rendering`` of an example, by name; see ``renderer.Rendering``.

    Args:
      describe: what ``{K}``, the most objects, and ``{HW}``, rows and columns of pixels, stand for
        in a text, by source.
    """
    return {
        "masks": Feature(
            describe("bool[{K},{HW}], visible pixels of every object"),
            lambda e: e.padded(e.rendering.masks),
        ),
        "boxes": Feature(
            describe("int32[{K},4]: y0, x0, y1, x1 in pixels, the last two exclusive"),
            lambda e: e.padded(e.rendering.boxes),
        ),
        "visible": Feature(
            describe("float32[{K}], 0..1, uncovered share of the object"),
            lambda e: e.padded(e.rendering.visible),
        ),
        "instances": Feature(
            describe("uint8[{HW}], 0 background, k + 1 object k"), lambda e: e.rendering.instances
        ),
    }
