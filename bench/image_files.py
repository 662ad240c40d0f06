"""Image files written by hand, bit by bit: what they mean is known without any library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def tiff(
    data: bytes,
    bits: int,
    photometric: int,
    samples: int = 1,
    *,
    size: tuple[int, int],
    byte_order: str = "<",
    **tags: int,
) -> bytes:
    """An uncompressed TIFF of one strip, or one strip per plane where planar=2.

    Args:
      data: of all strips, as they lie in the file.
      bits: of a sample.
      photometric: 0 white is zero, 1 black is zero, 2 RGB, 6 YCbCr.
      samples: of a pixel.
      size: height and width.
      byte_order: ``<`` or ``>``.
      tags: any of ``orientation``, ``planar``, ``sample_format``, ``fill_order``.
    """
    count = samples if tags.get("planar") == 2 else 1
    step = len(data) // count
    names = {"orientation": 274, "planar": 284, "sample_format": 339, "fill_order": 266}
    entries = {
        256: (4, [size[1]]),
        257: (4, [size[0]]),
        258: (3, [bits] * samples),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [samples]),
        278: (4, [size[0]]),
        279: (4, [step] * count),
    }
    entries |= {names[name]: (3, [value]) for name, value in tags.items()}
    entries[273] = (4, [8 + step * i for i in range(count)])
    body = bytearray(data + b"\0" * (len(data) % 2))
    directory = b""
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"{byte_order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            at = 8 + len(body)
            body += packed + b"\0" * (len(packed) % 2)
            packed = struct.pack(f"{byte_order}I", at)
        directory += struct.pack(f"{byte_order}HHI", tag, kind, len(values)) + packed.ljust(
            4, b"\0"
        )
    head = (b"II" if byte_order == "<" else b"MM") + struct.pack(
        f"{byte_order}HI", 42, 8 + len(body)
    )
    count = struct.pack(f"{byte_order}H", len(entries))
    return head + bytes(body) + count + directory + b"\0" * 4


def packed(values: np.ndarray, bits: int, byte_order: str = "<") -> bytes:
    """Samples [H, N] of 1 to 16 bits, each row filled up to whole bytes, first sample first."""
    if bits in (8, 16):
        return values.astype(f"{byte_order}u{bits // 8}").tobytes()
    flat = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(flat.reshape(len(values), -1), axis=1).tobytes()


def png(
    size: tuple[int, int],
    depth: int,
    kind: int,
    raw: bytes,
    key: bytes | None = None,
    interlace: int = 0,
    palette: bytes | None = None,
) -> bytes:
    """A PNG.

    Args:
      size: height and width.
      depth: bits of a sample.
      kind: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
      raw: rows, each after the number of its filter.
      key: content of tRNS.
      interlace: 1 where the rows are Adam7's.
      palette: content of PLTE.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", size[1], size[0], depth, kind, 0, 0, interlace)
    transparent = chunk(b"tRNS", key) if key is not None else b""
    colours = chunk(b"PLTE", palette) if palette is not None else b""
    content = chunk(b"IHDR", head) + colours + transparent + chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


def filtered(rows: np.ndarray, kinds: Sequence[int], bpp: int) -> bytes:
    """Rows uint8 (H, bytes) under the filters 0..4 of the PNG standard; ``bpp`` bytes a pixel."""
    out, above = b"", np.zeros(rows.shape[1], int)
    for row, kind in zip(rows.astype(int), kinds, strict=True):
        left = np.concatenate([np.zeros(bpp, int), row[:-bpp]])
        corner = np.concatenate([np.zeros(bpp, int), above[:-bpp]])
        p = left + above - corner
        a, b, c = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        guess = [0, left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, ...] as they are meant to be seen, by the words of the TIFF standard: where row
    0 and column 0 are in the picture."""
    transposed = pixels.swapaxes(0, 1)
    return {
        1: pixels,  # top, left
        2: pixels[:, ::-1],  # top, right
        3: pixels[::-1, ::-1],  # bottom, right
        4: pixels[::-1],  # bottom, left
        5: transposed,  # left, top
        6: transposed[:, ::-1],  # right, top
        7: transposed[::-1, ::-1],  # right, bottom
        8: transposed[::-1],  # left, bottom
    }[orientation]
