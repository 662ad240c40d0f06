"""Pictures of examples with their boxes, masks and key points drawn on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vision.data.source import DataError
from vision.evaluators.thumbnail import thumbnail

SIDE_PX = 192
_COLOURS = (
    *((255, 92, 92), (64, 156, 255), (52, 211, 133), (255, 176, 32)),
    *((190, 120, 255), (38, 208, 224), (255, 110, 190), (180, 210, 50)),
)
_TINT = 0.45


def pictures_in(example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Everything that looks like a picture, ``image`` first; stacks as ``name[0]``, ``name[1]``.

    A picture is [H, W, C] with C 1, 3 or 4 and sides of 4 or more, uint8 or floating-point; a
    stack has one axis more. Of a stack the first four are taken.
    """
    names = sorted((name for name in example if not name.startswith("_")), key=_image_first)
    found: dict[str, np.ndarray] = {}
    for name in names:
        value = example[name]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "uf":
            continue
        if value.ndim == 3 and _drawable(value.shape):
            found[name] = value
        elif value.ndim == 4 and _drawable(value.shape[1:]):
            found |= {f"{name}[{i}]": value[i] for i in range(min(4, len(value)))}
    return found


def _image_first(name: str) -> tuple[bool, str]:
    return name != "image", name


def _drawable(shape: tuple[int, ...]) -> bool:
    return min(shape[:2]) >= 4 and shape[2] in (1, 3, 4)


def plain(picture: np.ndarray) -> bytes:
    """A picture as PNG, small ones enlarged by whole factors."""
    return thumbnail_of({"image": picture})


def annotated(example: Mapping[str, Any], picture: np.ndarray) -> tuple[bytes, str] | None:
    """``picture`` with the annotations of ``example`` on it as PNG, and what was drawn in words.

    Understood are ``boxes`` (y0, x0, y1, x1 in pixels; ``valid`` says which count), ``masks``
    [K, H, W], else ``segmentation`` or ``instances`` [H, W] (0 is background), and ``keypoints``.
    None if the example has none of them, or none that fits the picture's size.
    """
    height, width = picture.shape[:2]
    base = _rgb(picture)
    drawn: list[str] = []
    valid = example.get("valid")
    masks = _masks(example, (height, width))
    if masks is not None and len(masks):
        base = base.astype(np.float32)
        for k, mask in enumerate(masks):
            base[mask] += _TINT * (np.asarray(_COLOURS[k % len(_COLOURS)]) - base[mask])
        base = base.round().astype(np.uint8)
        drawn.append(f"{len(masks)} mask{'s' * (len(masks) != 1)}")
    canvas = _enlarged(base)
    factor = canvas.width / width
    pen = ImageDraw.Draw(canvas)
    boxes = np.asarray(example.get("boxes", ()), np.float32)
    if boxes.ndim == 2 and boxes.shape[1] == 4:
        shown = np.ones(len(boxes), bool) if valid is None else np.asarray(valid, bool)
        count = 0
        for k, (y0, x0, y1, x1) in enumerate(boxes.tolist()):
            if not (k < len(shown) and shown[k]) or y1 <= y0 or x1 <= x0:
                continue
            corners = (factor * x0, factor * y0, factor * x1 - 1, factor * y1 - 1)
            pen.rectangle(corners, outline=(0, 0, 0), width=4)
            pen.rectangle(corners, outline=_COLOURS[k % len(_COLOURS)], width=2)
            count += 1
        drawn.append(f"{count} box{'es' * (count != 1)}")
    points = np.asarray(example.get("keypoints", ()), np.float32)
    if points.ndim >= 2 and points.shape[-1] in (2, 3):
        rows = points.reshape(-1, points.shape[-1]).tolist()
        seen = [row for row in rows if len(row) == 2 or row[2] > 0]
        for k, (y, x, *_) in enumerate(seen):
            spot = (factor * x - 4, factor * y - 4, factor * x + 4, factor * y + 4)
            pen.ellipse(spot, fill=_COLOURS[k % len(_COLOURS)], outline=(0, 0, 0))
        drawn.append(f"{len(seen)} key point{'s' * (len(seen) != 1)}")
    return (_png(canvas), ", ".join(drawn)) if drawn else None


def _masks(example: Mapping[str, Any], size: tuple[int, int]) -> list[np.ndarray] | None:
    """Masks of objects, bool [H, W] each; those without a pixel are left out."""
    masks = example.get("masks")
    if isinstance(masks, np.ndarray) and masks.ndim == 3 and masks.shape[1:] == size:
        return [mask > 0 for mask in masks if mask.any()]
    for name in ("instances", "segmentation"):
        labels = example.get(name)
        if isinstance(labels, np.ndarray) and labels.shape == size:
            return [labels == k for k in np.unique(labels) if k != 0]
    return None


def _rgb(picture: np.ndarray) -> np.ndarray:
    with Image.open(io.BytesIO(thumbnail({"image": picture}, size_px=max(picture.shape)))) as image:
        return _on_white(image)


def _on_white(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3]; white shines through where the picture is transparent."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        white.alpha_composite(image)
        image = white
    return np.array(image.convert("RGB"))


def _enlarged(pixels: np.ndarray) -> Image.Image:
    """At least ``SIDE_PX`` long where whole factors allow, at most twice that."""
    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest > 2 * SIDE_PX:
        image.thumbnail((2 * SIDE_PX, 2 * SIDE_PX), Image.Resampling.LANCZOS)
        return image
    factor = max(1, -(-SIDE_PX // longest))
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def thumbnail_of(record: Mapping[str, Any]) -> bytes:
    """A record's picture as PNG, small ones enlarged; empty if it has none."""
    try:
        png = thumbnail(record, size_px=SIDE_PX)
    except DataError:
        return b""
    with Image.open(io.BytesIO(png)) as image:
        if 2 * max(image.size) > SIDE_PX:
            return png
        return _png(_enlarged(_on_white(image)))
