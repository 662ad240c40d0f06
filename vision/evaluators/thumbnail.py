"""Small pictures of records, for galleries."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from vision.data.decode import decode
from vision.data.source import DataError, Source
from vision.evaluate.figures import Picture


def thumbnail(record: Mapping[str, Any], feature: str = "image", size_px: int = 128) -> bytes:
    """PNG of a record's image, at most ``size_px`` on its longer side, never enlarged.

    Args:
      record: as a source gives it.
      feature: where the image is: an encoded file (bytes), or an array [H, W] or [H, W, C].
        uint8 is shown as it is; other dtypes are stretched from their smallest to their largest
        value (NaN is black). One channel is grey, three are RGB, four RGBA; of any other number
        the mean is shown.
      size_px: bound on height and width.

    Raises:
      DataError: no such feature, bytes that are no image, or an array of another shape.
    """
    if feature not in record:
        raise DataError(f"no feature {feature!r}; the record has {', '.join(sorted(record))}")
    value = record[feature]
    pixels = decode(bytes(value)) if isinstance(value, bytes | bytearray) else np.asarray(value)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.size == 0 or pixels.dtype == object:
        raise DataError(
            f"feature {feature!r} is {pixels.dtype}{list(pixels.shape)}, not an image [H, W, C]"
        )
    if pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.mean(-1, keepdims=True, dtype=np.float32)
    if pixels.dtype != np.uint8:
        pixels = _stretch(pixels)
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def picture(
    source: Source, index: int, image: str, label: str, prediction: str, score: float
) -> Picture:
    """Record ``index`` with its thumbnail, or the reason why there is none."""
    png, note = b"", ""
    try:
        png = thumbnail(source[index], image)
    except DataError as error:
        note = str(error)
    return Picture(index, source.key(index), label, prediction, score, png, note)


def _stretch(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.astype(np.float64)
    finite = pixels[np.isfinite(pixels)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    scaled = (pixels - low) * (255 / (high - low) if high > low else 0)
    return np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).round().astype(np.uint8)
