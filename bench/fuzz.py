"""Damaged and hostile image files against the decoder: ``python -m bench.fuzz [--files 10000]``.

File i is a pure function of i. Every file goes through the pipeline with ``on_error="mask"``, in a
process of its own that is watched, and through a panel of reference decoders: Pillow with every
check it has, OpenCV, and libjpeg with warnings as errors (simplejpeg called directly). Counted per
kind of damage:

    refused    listed by the pipeline as a bad record, with its key and reason
    accepted   decoded; of these ``changed`` gave other pixels than the undamaged file
    missed     accepted although one of the panel refuses it: should be 0
    unlisted   refused but not in the list, or listed without a reason: should be 0

``changed`` is what no decoder notices: JPEG, GIF, BMP, PPM and TIFF carry no checksum, so a damaged
byte that still reads as valid code is only other pixels. Written to bench/results/fuzz.csv.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import io
import multiprocessing
import os
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from vision.data import ops
from vision.data.decode import FORMATS, DecodeError, decode
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays

CHUNK = 1000
SECONDS_PER_FILE = 5.0
_FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("jpeg", "JPEG", {"quality": 90}),
    ("jpeg", "JPEG", {"quality": 75, "progressive": True}),
    ("jpeg", "JPEG", {"quality": 85, "restart_marker_rows": 1}),
    ("png", "PNG", {}),
    ("gif", "GIF", {}),
    ("webp", "WEBP", {"quality": 80}),
    ("webp", "WEBP", {"lossless": True}),
    ("bmp", "BMP", {}),
    ("tiff", "TIFF", {"compression": "tiff_lzw"}),
    ("ppm", "PPM", {}),
)
_HEADS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF", b"BM", b"II*\0", b"P6 9 9")


@functools.cache
def clean(which: int) -> bytes:
    """The undamaged file: a 64x48 photograph in one of the formats."""
    _, container, options = _FORMATS[which]
    photo = Image.fromarray(load_sample_images().images[which % 2]).resize((64, 48))
    out = io.BytesIO()
    photo.save(out, container, **options)
    return out.getvalue()


def _truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def _flip_bit(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    out[rng.integers(len(out))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    at, count = int(rng.integers(len(data))), int(rng.integers(1, 64))
    filler = bytes(count) if rng.random() < 0.3 else rng.bytes(count)
    return data[:at] + filler + data[at + count :]


def _cut_out(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + data[at + int(rng.integers(1, 64)) :]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


def _wrong_magic(data: bytes, rng: np.random.Generator) -> bytes:
    head = _HEADS[rng.integers(len(_HEADS))]
    if data.startswith(head):
        head = b"\0" * len(head)
    return head + data[len(head) :]


def _zip_bomb(data: bytes, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photo.jpg", bytes(int(rng.integers(1, 8)) << 20))
    bomb = out.getvalue()
    # Bare, or behind a picture's magic number.
    return bomb if rng.random() < 0.5 else _HEADS[rng.integers(len(_HEADS))] + bomb


def _huge_header(data: bytes, rng: np.random.Generator) -> bytes:
    side = int(rng.integers(20_000, 60_000))
    if rng.random() < 0.5:
        out = bytearray(clean(int(rng.integers(3))))
        at = next(out.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in out) + 5
        out[at : at + 4] = struct.pack(">HH", side, side)
        return bytes(out)
    out = bytearray(clean(3))
    out[16:24] = struct.pack(">II", side, side)
    out[29:33] = struct.pack(">I", zlib.crc32(out[12:29]))
    return bytes(out)


def _nothing(data: bytes, rng: np.random.Generator) -> bytes:
    return bytes(int(rng.integers(0, 2)) * int(rng.integers(0, 4096)))


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    return _HEADS[rng.integers(len(_HEADS))] + rng.bytes(int(rng.integers(0, 2000)))


DAMAGES: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "truncated": _truncate,
    "one bit flipped": _flip_bit,
    "bytes overwritten": _overwrite,
    "bytes cut out": _cut_out,
    "bytes inserted": _insert,
    "wrong magic": _wrong_magic,
    "zip bomb": _zip_bomb,
    "400-megapixel header": _huge_header,
    "zero bytes": _nothing,
    "noise behind a magic number": _noise,
}
_FREE = ("zip bomb", "400-megapixel header", "zero bytes", "noise behind a magic number")
_WEIGHTS = (4, 6, 4, 2, 2, 2, 1, 1, 1, 1)  # of 24: most where a format's own code is reached


@dataclasses.dataclass(frozen=True)
class Case:
    """A damaged file: how, of what format (``any`` where that plays no part), and the original."""

    damage: str
    container: str
    data: bytes
    original: bytes


def case(i: int) -> Case:
    """File number ``i``."""
    rng = np.random.Generator(np.random.Philox(key=[17, i]))
    names = list(DAMAGES)
    damage = names[int(rng.choice(len(names), p=np.array(_WEIGHTS) / sum(_WEIGHTS)))]
    which = int(rng.integers(len(_FORMATS)))
    container = "any" if damage in _FREE else _FORMATS[which][0]
    data = clean(which)
    return Case(damage, container, DAMAGES[damage](data, rng), data)


def panel_refuses(data: bytes) -> str:
    """Which reference decoder refuses the bytes, or an empty string.

    OpenCV is asked for the formats that it reads, and not about size: its limit is another one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            container = image.format
            image.verify()
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            ImageOps.exif_transpose(image)
    except Exception as error:
        return f"Pillow: {error}"
    if container == "JPEG":
        try:
            simplejpeg.decode_jpeg(data, strict=True)
        except ValueError as error:
            return f"libjpeg, strict: {error}"
    if container in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"):
        try:
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            return f"OpenCV: {error}"
        if found is None:
            return "OpenCV: refused"
    return ""


def judge(numbers: range) -> list[dict[str, Any]]:
    """What became of these files: kind, whether accepted, changed, missed, listed; seconds."""
    cases = [case(i) for i in numbers]
    source = Arrays(
        {"image": np.array([c.data for c in cases], dtype=object), "label": np.arange(len(cases))},
        "fuzz",
    )
    data = EvalData(source, 25, (ops.Decode(), ops.Resize((8, 8))), on_error="mask", threads=0)
    listed: dict[int, Any] = {}
    with data.loader() as loader:
        for _ in loader:
            pass
        listed = {bad.index: bad for bad in loader.take_bad()}
    verdicts = []
    for i, (number, one) in enumerate(zip(numbers, cases, strict=True)):
        start = time.perf_counter()
        pixels, reason = None, ""
        try:
            pixels = decode(one.data)
        except DecodeError as error:
            reason = str(error)
        seconds = time.perf_counter() - start
        accepted = pixels is not None
        bad = listed.get(i)
        verdicts.append(
            {
                "number": number,
                "damage": one.damage,
                "container": one.container,
                "accepted": accepted,
                "changed": pixels is not None and not np.array_equal(pixels, decode(one.original)),
                "missed": panel_refuses(one.data) if accepted else "",
                "unlisted": accepted == (bad is not None) or (bad is not None and not bad.reason),
                "reason": reason,
                "seconds": seconds,
            }
        )
    return verdicts


def _child(numbers: range, out: Any) -> None:
    warnings.simplefilter("ignore")  # Pillow's, about metadata: thousands of them
    out.send(judge(numbers))


def watched(numbers: range) -> tuple[list[dict[str, Any]], str]:
    """``judge`` in a process of its own; the second value says if it crashed or hung."""
    here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(numbers, there))
    child.start()
    there.close()
    try:
        if not here.poll(60 + SECONDS_PER_FILE * len(numbers)):
            return [], "hang"
        return here.recv(), ""
    except EOFError:
        return [], "crash"
    finally:
        child.kill()
        child.join()


def main() -> None:
    from bench.common import record

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=10_000)
    arguments = parser.parse_args()
    counts: dict[tuple[str, str], collections.Counter[str]] = {}
    failures: collections.Counter[str] = collections.Counter()
    for first in range(0, arguments.files, CHUNK):
        numbers = range(first, min(first + CHUNK, arguments.files))
        verdicts, failure = watched(numbers)
        if failure:
            failures[failure] += 1
            print(f"{failure} among files {numbers}", file=sys.stderr)
        for v in verdicts:
            count = counts.setdefault((v["damage"], v["container"]), collections.Counter())
            count["files"] += 1
            count["refused"] += not v["accepted"]
            for name in ("accepted", "changed", "missed", "unlisted"):
                count[name] += bool(v[name])
            count["slow"] += v["seconds"] > SECONDS_PER_FILE
            if v["missed"] or v["unlisted"]:
                print(v, file=sys.stderr)
    names = ("files", "refused", "accepted", "changed", "missed", "unlisted", "slow")
    rows = [
        {"damage": damage, "format": container, **{name: count[name] for name in names}}
        for (damage, container), count in sorted(counts.items())
    ]
    total = {name: sum(row[name] for row in rows) for name in names}
    rows.append({"damage": "all", "format": "all", **total})
    rows = [{**row, "crashes": failures["crash"], "hangs": failures["hang"]} for row in rows]
    record("fuzz", rows)


if __name__ == "__main__":
    main()
