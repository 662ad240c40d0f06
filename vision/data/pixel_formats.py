"""What PNG and TIFF files say about their pixels beyond Pillow's mode and size.

Pillow hands over 12-bit grey in 0..4095 as it does 16-bit grey, keeps "white is zero" of 16 bits as
it is, and leaves the transparent colour of a PNG at the file's own bit depth. Here the tags are
read; what is not known to be equal to a reference decoder is refused.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

# TIFF tags
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
ORIENTATION = 274
_PLANAR, _INK_SET, _SAMPLE_FORMAT = 284, 332, 339
_JPEG_COMPRESSIONS = (6, 7)


class SampleLayout(NamedTuple):
    """How grey samples of more than 8 bits are read.

    Attributes:
      shift: bits to drop so that 8 are left.
      inverted: 0 is white.
    """

    shift: int = 8
    inverted: bool = False


class PngKey(NamedTuple):
    """The one colour of a PNG that is transparent.

    Attributes:
      depth: bits of a sample.
      samples: the grey level or R, G, B at this depth.
    """

    depth: int
    samples: tuple[int, ...]


def tiff_layout(tags: Any) -> SampleLayout:
    """The layout of a TIFF's samples.

    Args:
      tags: Pillow's ``tag_v2`` of the file.

    Raises:
      ValueError: a kind of TIFF that Pillow is not known to decode rightly; says which.
    """
    bits = _list(tags.get(_BITS, 1))
    formats = set(_list(tags.get(_SAMPLE_FORMAT, 1)))
    photometric = tags.get(_PHOTOMETRIC, 0)
    if len(bits) > 1 and tags.get(_PLANAR, 1) == 2 and set(bits) != {8}:
        raise ValueError(f"a TIFF of {bits[0]}-bit samples in separate planes; {_REMEDY}")
    if formats - {1, 4} and max(bits) <= 16:
        raise ValueError(f"a TIFF of signed or complex samples; {_REMEDY}")
    if tags.get(_FILL_ORDER, 1) == 2 and max(bits) > 8:
        raise ValueError(f"a TIFF of {bits[0]}-bit samples in reversed bit order; {_REMEDY}")
    if photometric == 6 and len(bits) == 3 and tags.get(_COMPRESSION, 1) not in _JPEG_COMPRESSIONS:
        raise ValueError(f"a TIFF of YCbCr samples that are not JPEG; {_REMEDY}")
    if photometric == 5 and tags.get(_INK_SET, 1) != 1:
        raise ValueError(f"a TIFF of inks other than CMYK; {_REMEDY}")
    if bits[0] > 8 and len(bits) == 1:
        return SampleLayout(bits[0] - 8, photometric == 0)
    return SampleLayout()


_REMEDY = "convert the file to 8-bit grey or RGB"


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) after orientation of an opened image whose pixels are not read."""
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    if tags is not None and ORIENTATION in tags:  # Pillow's size may have it or not
        width, height, orientation = tags[_WIDTH], tags[_LENGTH], tags[ORIENTATION]
    else:
        (width, height), orientation = image.size, image.getexif().get(ORIENTATION, 1)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def png_key(data: bytes) -> PngKey | None:
    """The transparent colour of a grey or RGB PNG; None where there is none."""
    depth, kind = data[24], data[25]
    if kind not in (0, 2):
        return None
    for name, content in _chunks(data):
        if name == b"IDAT":
            return None
        if name == b"tRNS":
            count = 1 if kind == 0 else 3
            samples = struct.unpack(f">{count}H", content[: 2 * count])
            return PngKey(depth, tuple(sample & ((1 << depth) - 1) for sample in samples))
    return None


def is_key(image: Image.Image, key: PngKey, data: bytes) -> np.ndarray:
    """bool (H, W): the pixels of the transparent colour, not yet turned upright.

    Args:
      image: the loaded PNG.
      key: of its file.
      data: the file: of 16-bit colours Pillow has only the upper bytes.

    Raises:
      ValueError: 16-bit RGB that OpenCV cannot read, or OpenCV is not there.
    """
    pixels = np.asarray(image)
    if len(key.samples) == 1:
        if key.depth == 16:
            return pixels == key.samples[0]
        level = key.samples[0] * 255 // ((1 << key.depth) - 1)
        return (pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels) == level
    pixels = pixels[:, :, :3]
    if key.depth == 8:
        return (pixels == np.array(key.samples)).all(-1)
    possible = (pixels == np.array(key.samples) >> 8).all(-1)
    if not possible.any():
        return possible
    return (_rgb16(data) == np.array(key.samples)).all(-1)


def _chunks(data: bytes) -> Any:
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _rgb16(data: bytes) -> np.ndarray:
    """uint16 (H, W, 3) of a 16-bit RGB PNG, of which Pillow gives eight bits only."""
    try:
        import cv2
    except ImportError:
        raise ValueError(
            "a PNG of 16-bit colours, one of them transparent, needs opencv-python-headless; "
            "install it, or convert the file to RGBA"
        ) from None
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.ndim != 3:
        raise ValueError("damaged PNG: its 16-bit colours cannot be read")
    return found[:, :, 2::-1]


def _list(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [value]
