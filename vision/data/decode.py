"""Encoded images to uint8 arrays, strictly: what cannot be decoded cleanly is an error.

JPEGs go through simplejpeg (libjpeg-turbo) when it is installed, everything else and every JPEG
without it through Pillow. Both give the same pixels; only simplejpeg's strict mode treats
libjpeg's warnings (truncation, stray bytes, broken Huffman codes) as errors. A JPEG carries no
checksum, so a damaged byte that still reads as valid code changes pixels unnoticed with any
decoder. PNG chunks do carry checksums, and they are verified.
"""

from __future__ import annotations

import io
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps

from vision.config.ranges import Ge, Le
from vision.data.memory import keep_freed_memory
from vision.data.pixel_formats import (
    ORIENTATION,
    PngKey,
    SampleLayout,
    is_key,
    png_key,
    tiff_layout,
)
from vision.data.source import DataError

try:
    import simplejpeg
except ImportError:  # Pillow alone decodes everything, less strictly and more slowly
    simplejpeg = None

# Formats with a decoder inside Pillow; EPS and the like would start other programs.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
"""Lower-case endings of the files that ``decode`` reads; all sources go by these."""
MAX_PIXELS = 80_000_000
_PILLOW_LIMIT = 178_956_970  # above this Pillow refuses by itself
PixelLimit = Annotated[int, Ge(1), Le(_PILLOW_LIMIT)]
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_PNG_END = b"IEND\xaeB`\x82"
_TRANSPOSED = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: x[::-1].transpose(1, 0, 2),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: x[:, ::-1].transpose(1, 0, 2),
}


class DecodeError(DataError):
    """The bytes are not an image that can be decoded cleanly; the message says why."""


def _check_arguments(mode: str, max_pixels: int) -> None:
    if mode not in ("rgb", "grey"):
        raise ValueError(f"mode={mode!r}: valid modes are 'rgb' and 'grey'")
    if not 1 <= max_pixels <= _PILLOW_LIMIT:
        raise ValueError(f"max_pixels={max_pixels}: must lie in 1..{_PILLOW_LIMIT}")


def decode(
    data: bytes,
    *,
    mode: Literal["rgb", "grey"] = "rgb",
    max_pixels: int = MAX_PIXELS,
    strict: bool = True,
) -> np.ndarray:
    """Decodes one image; the first frame of an animation, the first page of a TIFF.

    The format is told from the bytes, never from a file name. EXIF orientation is applied.
    Grey, palette and CMYK images (Adobe's inverted ones too) become RGB. Transparent pixels are
    composited on white. Of samples of 12 and 16 bits the upper eight are kept. 32-bit integer and
    float pixels have no agreed range and are refused.

    Args:
      data: the encoded file.
      mode: ``rgb`` for three channels, ``grey`` for one (ITU-R 601 luma).
      max_pixels: refuse larger images by their header, before any pixel is decoded.
      strict: refuse JPEGs that libjpeg can only read with a warning. False leaves JPEGs to
        Pillow, which accepts damage in the middle of a file but still refuses truncated ones.

    Returns:
      uint8 [H, W, 3] or [H, W, 1], 0..255, C-contiguous and writable.

    Raises:
      DecodeError: the reason, without the file's name, which is not known here.
    """
    _check_arguments(mode, max_pixels)
    keep_freed_memory()
    if not data:
        raise DecodeError("empty file (0 bytes)")
    try:
        if _is_fast(data, strict):
            pixels = _decode_jpeg(data, mode, max_pixels)
        else:
            pixels = _decode_pillow(data, mode, max_pixels)
    except DecodeError:
        raise
    except Exception as error:  # Pillow raises nearly every built-in type on hostile bytes
        raise DecodeError(f"damaged or unsupported image: {_brief(error)}") from error
    if pixels.flags.c_contiguous and pixels.flags.writeable:
        return pixels
    return pixels.copy(order="C")


def from_pillow(image: Image.Image, mode: Literal["rgb", "grey"] = "rgb") -> np.ndarray:
    """Pixels of an open Pillow image by the rules of ``decode``: turned by its EXIF orientation,
    transparent pixels on white, the upper eight bits of sixteen.

    Returns:
      uint8 [H, W, 3] or [H, W, 1], 0..255.

    Raises:
      DecodeError: pixels without an agreed range, a damaged file, or too many pixels.
    """
    _check_arguments(mode, MAX_PIXELS)
    try:
        _check_size(*image.size, MAX_PIXELS)
        return _to_uint8(ImageOps.exif_transpose(image), image.format, mode, SampleLayout())
    except DecodeError:
        raise
    except Exception as error:  # a file that is opened lazily fails here, in any way
        raise DecodeError(f"damaged or unsupported image: {_brief(error)}") from error


def plain_jpeg_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """(height, width) of a JPEG that ``decode_plain_jpeg`` takes; None for others.

    Those are the files without EXIF or XMP data, which may turn them, in grey or YCbCr. Only the
    header is read: this costs microseconds.

    Raises:
      DecodeError: the header is damaged, or the image larger than ``max_pixels``.
    """
    if not _is_fast(data, True) or _has_metadata(data):
        return None
    assert simplejpeg is not None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise DecodeError(f"damaged or unsupported image: {_brief(error)}") from error
    _check_size(int(width), int(height), max_pixels)
    return None if colorspace in ("CMYK", "YCCK") else (int(height), int(width))


def decode_plain_jpeg(
    data: bytes, size: tuple[int, int], mode: Literal["rgb", "grey"] = "rgb", shrink: int = 1
) -> np.ndarray:
    """A JPEG whose ``size`` ``plain_jpeg_size`` gave, strictly, whole or at a fraction of it.

    Args:
      data: the encoded file.
      size: (height, width) before shrinking.
      mode: as for ``decode``.
      shrink: 1 for the pixels of ``decode``; 2, 4 or 8 for ceil(side / shrink), faster, through
        the scaled inverse DCT of libjpeg, which averages.

    Raises:
      DecodeError: the reason.
    """
    if shrink not in (1, 2, 4, 8):
        raise ValueError(f"shrink={shrink}: must be 1, 2, 4 or 8")
    assert simplejpeg is not None
    keep_freed_memory()
    least = (0, 0) if shrink == 1 else (-(-size[0] // shrink), -(-size[1] // shrink))
    colours = "RGB" if mode == "rgb" else "GRAY"
    try:
        return simplejpeg.decode_jpeg(data, colours, min_height=least[0], min_width=least[1])
    except ValueError as error:
        raise DecodeError(f"damaged or unsupported image: {_brief(error)}") from error


def _is_fast(data: bytes, strict: bool) -> bool:
    return data[:2] == b"\xff\xd8" and strict and simplejpeg is not None


def _decode_jpeg(data: bytes, mode: str, max_pixels: int) -> np.ndarray:
    assert simplejpeg is not None
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    _check_size(int(width), int(height), max_pixels)
    if colorspace in ("CMYK", "YCCK"):
        simplejpeg.decode_jpeg(data, "CMYK")  # for its errors: Pillow knows Adobe's inversion
        return _decode_pillow(data, mode, max_pixels)
    pixels = simplejpeg.decode_jpeg(data, "RGB" if mode == "rgb" else "GRAY")
    if _has_metadata(data):
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            turn = _TRANSPOSED.get(image.getexif().get(0x0112, 1))
        pixels = pixels if turn is None else turn(pixels)
    return pixels


def _has_metadata(data: bytes) -> bool:
    """Whether a JPEG has an APP1 segment (EXIF or XMP): cheaper to see than to parse."""
    at, end = 2, len(data) - 4
    while at <= end and data[at] == 0xFF and (marker := data[at + 1]) != 0xDA:
        if marker == 0xE1:
            return True
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    # Anything but the start of the scan is unusual (fill bytes): let Pillow look.
    return data[at : at + 2] != b"\xff\xda"


def _decode_pillow(data: bytes, mode: str, max_pixels: int) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise DecodeError(
            f"not an image ({len(data)} bytes starting with {bytes(data[:16])!r})"
        ) from None
    except Image.DecompressionBombError:
        raise DecodeError(f"more than {_PILLOW_LIMIT} pixels") from None
    with image:
        _check_size(*image.size, max_pixels)
        if image.format == "PNG":
            with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
                again.verify()  # checks every chunk's CRC, which loading does not
            if _PNG_END not in data:
                raise DecodeError("truncated PNG: the IEND chunk at the end is incomplete")
        key = png_key(data) if image.format == "PNG" else None
        layout, turned = SampleLayout(), False
        if image.format == "TIFF":
            tags: Any = image.tag_v2  # type: ignore[attr-defined]
            layout, turned = tiff_layout(tags), ORIENTATION in tags
        image.load()
        if key is not None:
            return _keyed(image, key, data, mode)
        # Pillow has turned a TIFF by its tag already; XMP data beside it would turn it again.
        upright = image if turned else ImageOps.exif_transpose(image)
        return _to_uint8(upright, image.format, mode, layout)


def _keyed(image: Image.Image, key: PngKey, data: bytes, mode: str) -> np.ndarray:
    """A PNG with one transparent colour, on white."""
    transparent = is_key(image, key, data)
    orientation = image.getexif().get(ORIENTATION, 1)
    image.info.pop("transparency", None)
    pixels = np.array(_to_uint8(image, image.format, mode, SampleLayout()))
    pixels[transparent] = 255
    turn = _TRANSPOSED.get(orientation)
    return pixels if turn is None else turn(pixels)


def _to_uint8(
    image: Image.Image, container: str | None, mode: str, layout: SampleLayout
) -> np.ndarray:
    wide = image.mode in _SIXTEEN_BIT or (image.mode == "I" and container in ("PNG", "PPM"))
    if wide:
        high = np.clip(np.asarray(image).astype(np.int64) >> layout.shift, 0, 255).astype(np.uint8)
        image = Image.fromarray(255 - high if layout.inverted else high)
    elif image.mode in ("I", "F"):
        raise DecodeError(
            f"32-bit pixels (Pillow mode {image.mode!r}) have no agreed range; "
            "convert the file to 8 or 16 bits"
        )
    elif image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image.alpha_composite(layer)
        image = image.convert("RGB")
    if mode == "rgb":
        return np.asarray(image.convert("RGB"))
    return np.asarray(image.convert("L"))[:, :, None]


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError(
            f"{width}x{height} is {width * height} pixels, more than max_pixels={max_pixels}; "
            "shrink the file or raise max_pixels"
        )


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
