"""Annotations follow the image: boxes, masks, label maps and key points under the same geometry.

An op on the feature ``image`` changes these too, where an example has them:

    ``boxes``      [N, 4] y0, x0, y1, x1 in pixels, the last two exclusive; float32 afterwards
    ``valid``      [N] bool, which rows are objects; made when there are boxes without it
    ``masks``      [N, H, W] of any dtype
    ``keypoints``  [..., 2] y, x in pixels, or [..., 3] with a third column that is 0 where the
                   point cannot be seen; float32 afterwards
    ``segmentation``, ``instances``, ``glyph_mask``   [H, W] of any dtype

Pixel i covers i to i + 1, so a box of the whole image is (0, 0, H, W). Boxes are clipped to the
image; one without area left, and one that was not valid, becomes zeros with ``valid`` False. Key
points outside keep their coordinates, and their third column, if there is one, becomes 0. Masks
and maps are resized by nearest neighbour. An op on another feature (``key="image/a"``) leaves
annotations alone: they belong to ``image``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vision.data.ops.base import Example
from vision.data.ops.resizing import resize_labels

LABEL_MAPS = ("segmentation", "instances", "glyph_mask")
_CARRIED = frozenset(("boxes", "masks", "keypoints", *LABEL_MAPS))
Points = Callable[[np.ndarray], np.ndarray]


def carry_box(
    example: Example, key: str, box: tuple[int, int, int, int], to: tuple[int, int]
) -> Example:
    """After ``box`` (top, left, height, width), which may reach outside, became ``to``."""
    if not _has_annotations(example, key):
        return example
    top, left, height, width = box
    shift = np.asarray([top, left], np.float32)
    scale = np.asarray([to[0] / height, to[1] / width], np.float32)

    def maps(values: np.ndarray) -> np.ndarray:
        return resize_labels(_cut(values, box), *to)

    return _carried(example, lambda p: (p - shift) * scale, maps, to)


def carry_flip(
    example: Example,
    key: str,
    axis: str,
    size: tuple[int, int],
    keypoint_swap: tuple[int, ...] = (),
) -> Example:
    """After the image of ``size`` (H, W) was mirrored along ``axis``.

    ``keypoint_swap[k]`` is the key point that becomes k: left and right eye change places.
    """
    if not _has_annotations(example, key):
        return example
    coordinate = 1 if axis == "horizontal" else 0

    def points(p: np.ndarray) -> np.ndarray:
        p = p.copy()
        p[..., coordinate] = size[coordinate] - p[..., coordinate]
        return p

    def maps(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.flip(values, axis=values.ndim - 2 + coordinate))

    out = _carried(example, points, maps, size)
    if keypoint_swap and "keypoints" in out:
        keypoints = out["keypoints"]
        if keypoints.ndim < 2 or keypoints.shape[-2] != len(keypoint_swap):
            raise ValueError(
                f"RandomFlip: keypoint_swap names {len(keypoint_swap)} points, 'keypoints' has "
                f"shape {keypoints.shape}"
            )
        out["keypoints"] = keypoints[..., list(keypoint_swap), :]
    return out


def carry_affine(example: Example, key: str, inverse: np.ndarray, size: tuple[int, int]) -> Example:
    """After an affine map of an image of ``size`` (H, W) that stays this large.

    Args:
      example: what to carry.
      key: the image feature that was changed.
      inverse: (2, 3), from (y, x) after to (y, x) before, in the coordinates of boxes.
      size: (H, W).
    """
    if not _has_annotations(example, key):
        return example
    forward = np.linalg.inv(inverse[:, :2])
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    sources = inverse[:, :2] @ np.stack([rows.ravel(), columns.ravel()]) + inverse[:, 2:]
    i, j = np.floor(sources).astype(np.intp)
    inside = (i >= 0) & (i < size[0]) & (j >= 0) & (j < size[1])
    i, j = np.clip(i, 0, size[0] - 1), np.clip(j, 0, size[1] - 1)

    def maps(values: np.ndarray) -> np.ndarray:
        moved = np.where(inside, values[..., i, j], np.zeros((), values.dtype))
        return moved.reshape(values.shape)

    return _carried(
        example, lambda p: ((p - inverse[:, 2]) @ forward.T).astype(np.float32), maps, size
    )


def _has_annotations(example: Example, key: str) -> bool:
    return key == "image" and not _CARRIED.isdisjoint(example)


def _carried(example: Example, points: Points, maps: Points, size: tuple[int, int]) -> Example:
    out = dict(example)
    for name in ("masks", *LABEL_MAPS):
        if name in out:
            out[name] = maps(np.asarray(out[name]))
    if "boxes" in out:
        out["boxes"], out["valid"] = _boxes(
            np.asarray(out["boxes"], np.float32), out.get("valid"), points, size
        )
    if "keypoints" in out:
        keypoints = np.asarray(out["keypoints"], np.float32)
        moved = points(keypoints[..., :2])
        if keypoints.shape[-1] == 3:
            inside = ((moved >= 0) & (moved <= np.asarray(size, np.float32))).all(axis=-1)
            visible = np.where(inside, keypoints[..., 2], np.float32(0))
            moved = np.concatenate([moved, visible[..., None]], axis=-1)
        out["keypoints"] = moved
    return out


def _boxes(
    boxes: np.ndarray, valid: np.ndarray | None, points: Points, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    corners = boxes.reshape(-1, 2, 2)
    y, x = corners[:, [0, 0, 1, 1], 0], corners[:, [0, 1, 0, 1], 1]
    moved = points(np.stack([y, x], axis=-1))
    limits = np.asarray(size, np.float32)
    low, high = (np.clip(f(moved, axis=1), 0, limits) for f in (np.min, np.max))
    valid_after = (high > low).all(axis=-1)
    if valid is not None:
        valid_after &= np.asarray(valid, bool)
    out = np.concatenate([low, high], axis=-1).astype(np.float32)
    return np.where(valid_after[:, None], out, np.float32(0)), valid_after


def _cut(values: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The box out of the last two axes, zero outside."""
    top, left, height, width = box
    rows, columns = values.shape[-2:]
    first, last = (min(max(i, 0), rows) for i in (top, top + height))
    start, end = (min(max(i, 0), columns) for i in (left, left + width))
    inside = values[..., first:last, start:end]
    if inside.shape[-2:] == (height, width):
        return inside
    out = np.zeros((*values.shape[:-2], height, width), values.dtype)
    out[..., first - top : last - top, start - left : end - left] = inside
    return out
