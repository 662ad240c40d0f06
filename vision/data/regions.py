"""Typed columns for boxes and masks, padded to a fixed number per image.

Coordinates are pixels of the upright image (after EXIF orientation), y down, x right, pixel
(r, c) covering [r, r + 1) x [c, c + 1).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.cells import Cell, as_list, as_number, as_text, is_missing, shown
from vision.data.columns import ImageSize, Row
from vision.data.labels import Vocabulary
from vision.data.source import DataError

_ORDERS = {
    "yxyx": lambda b: b,
    "xyxy": lambda b: b[:, [1, 0, 3, 2]],
    "xywh": lambda b: np.stack([b[:, 1], b[:, 0], b[:, 1] + b[:, 3], b[:, 0] + b[:, 2]], 1),
    "cxcywh": lambda b: np.stack(
        [
            b[:, 1] - b[:, 3] / 2,
            b[:, 0] - b[:, 2] / 2,
            b[:, 1] + b[:, 3] / 2,
            b[:, 0] + b[:, 2] / 2,
        ],
        1,
    ),
}
# Annotation tools round to whole pixels.
_ROUNDING_PX = 0.5


@dataclasses.dataclass(frozen=True)
@checked
class Boxes:
    """Boxes of one image, padded with zeros to K = ``max_boxes`` rows.

    Features: ``<feature>`` float32[K, 4] y0, x0, y1, x1 in pixels, the last two exclusive;
    ``valid`` bool[K]; with ``names``, ``<feature>_label`` int32[K], -1 padded. A feature called
    ``boxes`` and its ``valid`` follow the image through geometric ops.

    The cell is a list (or JSON) of lists of four numbers, or of mappings with the four numbers
    under ``box`` or ``bbox`` and a class under ``label`` or ``category``. A missing cell or an
    empty list is an image without boxes. Coordinates up to half a pixel outside the image are
    rounding and clipped.

    Attributes:
      max_boxes: K. An image with more boxes is a bad record: none are left out.
      order: of a box's four numbers in the table; ``xywh`` starts at the top left corner (COCO),
        ``cxcywh`` in the middle (YOLO).
      unit: ``pixels``, or ``shares`` of the image's width and height, 0..1.
      outside: what to do with boxes that reach outside the image: ``error`` or ``clip`` (a box
        wholly outside is an error still).
      names: of the boxes' classes; they are then required.
      label_column: a column with a list of the boxes' classes; empty when they are in the boxes.
      valid: what the feature that says which rows are boxes is called.
      column: in the table; empty when it is called like the feature.
    """

    max_boxes: Positive[int]
    order: Literal["yxyx", "xyxy", "xywh", "cxcywh"] = "xyxy"
    unit: Literal["pixels", "shares"] = "pixels"
    outside: Literal["error", "clip"] = "error"
    names: tuple[str, ...] = ()
    label_column: str = ""
    valid: str = "valid"
    column: str = ""

    def __post_init__(self) -> None:
        if self.label_column and not self.names:
            raise ValueError("label_column is set but names=(): give the boxes' classes")

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(self.names)

    @property
    def learned(self) -> bool:
        return True

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> Boxes:
        return self

    def reads(self, feature: str) -> tuple[str, ...]:
        names = (self.column or feature,)
        return (*names, self.label_column) if self.label_column else names

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = row.get(self.column or feature)
        items = [] if is_missing(cell) else as_list(cell, "")
        _check_number(items, self.max_boxes, "max_boxes")
        labels = [_entry(item, ("label", "category")) for item in items]
        if self.label_column:
            listed = row.get(self.label_column)
            labels = [] if is_missing(listed) else as_list(listed, "|")
            if len(labels) != len(items):
                raise DataError(f"{self.label_column!r} has {len(labels)} for {len(items)} boxes")
        boxes = np.zeros((self.max_boxes, 4), np.float32)
        if items:
            boxes[: len(items)] = self._boxes(items, *size())
        result: dict[str, Any] = {feature: boxes, self.valid: _valid(items, self.max_boxes)}
        if self.names:
            codes = np.full(self.max_boxes, -1, np.int32)
            codes[: len(items)] = [self.vocabulary.index(label) for label in labels]
            result[f"{feature}_label"] = codes
        return result

    def _boxes(self, items: list[Cell], height: int, width: int) -> np.ndarray:
        rows: list[list[float]] = []
        for item in items:
            numbers = _entry(item, ("box", "bbox")) if isinstance(item, Mapping) else item
            numbers = as_list(numbers, " ") if numbers is not None else []
            if len(numbers) != 4:
                raise DataError(f"{shown(item)} is not a box of four numbers")
            rows.append([as_number(x) for x in numbers])
        boxes = _ORDERS[self.order](np.asarray(rows, np.float64))
        limit = np.asarray([height, width, height, width], np.float64)
        boxes = boxes * limit if self.unit == "shares" else boxes
        inside = np.clip(boxes, 0, limit)
        allowed = np.inf if self.outside == "clip" else _ROUNDING_PX
        for item, box, clipped in zip(items, boxes, inside, strict=True):
            if box[2] <= box[0] or box[3] <= box[1]:
                raise DataError(f"box {shown(item)} has no area; is order={self.order!r} right?")
            if np.abs(box - clipped).max() > allowed:
                raise DataError(
                    f"box {shown(item)} reaches outside the image of {height} x {width} pixels "
                    "(height x width); mend it, or set outside='clip'"
                )
            if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
                raise DataError(
                    f"box {shown(item)} lies wholly outside the image of {height} x {width} pixels"
                )
        return inside

    def describe(self, feature: str) -> dict[str, str]:
        k = self.max_boxes
        named = {f"{feature}_label": f"int32[{k}], 0..{len(self.names) - 1}, -1 padded"}
        return {
            feature: f"float32[{k},4]: y0, x0, y1, x1 in pixels, the last two exclusive",
            self.valid: f"bool[{k}], which rows are boxes",
            **(named if self.names else {}),
        }


@dataclasses.dataclass(frozen=True)
@checked
class Masks:
    """Masks of one image: bool[K, H, W], K = ``max_masks``, and ``<feature>_valid`` bool[K].

    The cell is a list (or JSON) of masks as COCO writes them, each one of

    * polygons: a list of lists x0, y0, x1, y1, ... in pixels; their union is the mask,
    * run lengths: ``{"size": [H, W], "counts": ...}``, column by column, starting with zeros,
      as a list of numbers or in COCO's compressed text,

    or a mapping with either under ``segmentation``. A pixel is inside a polygon when its centre
    is (even-odd rule). A missing cell or an empty list is an image without masks.

    Attributes:
      max_masks: K. An image with more masks is a bad record.
      column: in the table; empty when it is called like the feature.
    """

    max_masks: Positive[int]
    column: str = ""

    @property
    def learned(self) -> bool:
        return True

    def learn(self, cells: Iterable[tuple[str, Cell]]) -> Masks:
        return self

    def reads(self, feature: str) -> tuple[str, ...]:
        return (self.column or feature,)

    def read(self, feature: str, row: Row, size: ImageSize) -> dict[str, Any]:
        cell = row.get(self.column or feature)
        items = [] if is_missing(cell) else as_list(cell, "")
        _check_number(items, self.max_masks, "max_masks")
        height, width = size()
        masks = np.zeros((self.max_masks, height, width), bool)
        for k, item in enumerate(items):
            masks[k] = _mask(item, height, width)
        return {feature: masks, f"{feature}_valid": _valid(items, self.max_masks)}

    def describe(self, feature: str) -> dict[str, str]:
        k = self.max_masks
        return {
            feature: f"bool[{k},H,W], height and width of the image",
            f"{feature}_valid": f"bool[{k}], which rows are masks",
        }


def polygon_mask(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """bool[H, W]: pixels whose centre is inside the polygon by the even-odd rule.

    Args:
      points: float [N, 2], x and y in pixels; the last point joins the first.
      height: H.
      width: W.
    """
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, 0).T
    mask = np.zeros((height, width), bool)
    top = max(int(np.floor(y0.min())), 0)
    bottom = min(int(np.ceil(y0.max())), height)
    centres = np.arange(width) + 0.5
    for row in range(top, bottom):
        y = row + 0.5
        cross = (y0 <= y) != (y1 <= y)
        at = x0[cross] + (y - y0[cross]) * (x1[cross] - x0[cross]) / (y1[cross] - y0[cross])
        # A centre is inside when an odd number of crossings lies to its left.
        mask[row] = np.searchsorted(np.sort(at), centres, side="right") % 2 == 1
    return mask


def run_length_mask(counts: Any, height: int, width: int) -> np.ndarray:
    """bool[H, W] from COCO run lengths: zeros, ones, zeros, ... down the columns.

    Args:
      counts: list of lengths, or COCO's compressed text.
      height: H.
      width: W.

    Raises:
      DataError: the lengths are malformed or do not sum to H * W.
    """
    if isinstance(counts, str | bytes):
        lengths = _uncompressed(as_text(counts))
    else:
        lengths = [as_number(count) for count in as_list(counts, "")]
    if any(n < 0 or n != int(n) for n in lengths) or sum(lengths) != height * width:
        raise DataError(
            f"run lengths sum to {sum(lengths):g}, not to {height} x {width} = {height * width}"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, np.asarray(lengths, np.int64)).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """COCO's text form: six bits a character, low bits first, from the third on differences."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError(f"{shown(text)} is not a compressed run length")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError(f"{shown(text)} ends in the middle of a run length")
    return lengths


def _mask(item: Cell, height: int, width: int) -> np.ndarray:
    if isinstance(item, Mapping) and item.get("segmentation") is not None:
        item = item["segmentation"]
    if isinstance(item, Mapping):
        size = item.get("size")
        size = [] if size is None else [int(as_number(x)) for x in as_list(size, ",")]
        if item.get("counts") is None or len(size) != 2:
            raise DataError(f"{shown(item)} lacks 'size' or 'counts'")
        if size != [height, width]:
            raise DataError(f"a mask is {size[0]} x {size[1]}, its image {height} x {width}")
        return run_length_mask(item["counts"], height, width)
    polygons = as_list(item, "")
    if polygons and not isinstance(polygons[0], list | tuple | np.ndarray):
        polygons = [polygons]  # a single polygon without the outer list
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        numbers = np.asarray([as_number(x) for x in as_list(polygon, " ")], np.float64)
        if len(numbers) < 6 or len(numbers) % 2:
            raise DataError(f"{shown(polygon)} is not a polygon x0, y0, x1, y1, x2, y2, ...")
        mask |= polygon_mask(numbers.reshape(-1, 2), height, width)
    if not polygons or not mask.any():
        raise DataError(f"mask {shown(item)} has no pixel inside the image")
    return mask


def _entry(item: Cell, names: tuple[str, ...]) -> Cell:
    return next((item[n] for n in names if n in item), None) if isinstance(item, Mapping) else None


def _valid(items: list[Cell], most: int) -> np.ndarray:
    return np.arange(most) < len(items)


def _check_number(items: list[Cell], most: int, argument: str) -> None:
    if len(items) > most:
        raise DataError(f"holds {len(items)}, more than {argument}={most}; raise {argument}")
