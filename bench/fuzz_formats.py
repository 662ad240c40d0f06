"""Image files whose tags change what their bits mean: ``python -m bench.fuzz_formats``.

File i of ``--files`` is a function of i. It is written by hand (``bench.image_files``), so that
its pixels are known without any library: grey TIFF of 1 to 16 bits, both ways round and in both
byte orders; RGB TIFF of 8 and 16 bits, interleaved and in planes; signed samples and reversed bits;
PNG with a transparent level, colour or palette entry of every depth; all eight orientations with
boxes and masks, in TIFF, PNG and JPEG; pictures a few pixels thin and up to 65,500 long. Counted
per kind:

    equal      decoded to what the bits mean (JPEG: within 8 of 255)
    refused    a DataError that says why
    silent     other pixels, boxes, masks or shapes, without a word: should be 0
    large      took more than 500 MiB: should be 0

Written to bench/results/fuzz_formats.csv.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import io
import os
import struct
import sys
import warnings
from collections.abc import Callable

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from PIL import Image

from bench.image_files import filtered, packed, png, tiff, upright
from vision.data import ops
from vision.data.decode import decode
from vision.data.regions import Boxes, Masks
from vision.data.source import DataError
from vision.data.table import read_row

LARGE_BYTES = 500 << 20
Verdict = str
_SIDES = (3, 40)


@dataclasses.dataclass(frozen=True)
class Written:
    """A file and its pixels, uint8 [H, W, 1 or 3]; None where only refusing it is right."""

    kind: str
    data: bytes
    pixels: np.ndarray | None


def _size(rng: np.random.Generator) -> tuple[int, int]:
    height, width = rng.integers(*_SIDES, 2).tolist()
    return height, width


def _eight_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Samples of ``bits`` as 0..255: the upper eight of more, all levels spread of fewer."""
    top = (1 << bits) - 1
    return (values >> bits - 8 if bits > 8 else values * 255 // top).astype(np.uint8)


def _grey_tiff(rng: np.random.Generator) -> Written:
    bits = int(rng.choice([1, 2, 4, 8, 12, 16]))
    size, photometric = _size(rng), int(rng.integers(2))
    order, orientation = str(rng.choice(["<", ">"])), int(rng.integers(1, 9))
    values = rng.integers(0, 1 << bits, size)
    tags = {"orientation": orientation}
    signed = bits in (8, 16) and rng.random() < 0.15
    data = packed(values, bits, order)
    if signed:
        tags["sample_format"] = 2
    elif rng.random() < 0.15:
        tags["fill_order"] = 2
        data = np.packbits(
            np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, 8)[:, ::-1]
        ).tobytes()
    pixels = _eight_bits(values, bits)
    pixels = upright(pixels if photometric else 255 - pixels, orientation)[..., None]
    name = f"grey TIFF, {bits} bits" if not signed else "grey TIFF, signed"
    name += ", reversed bits" if "fill_order" in tags else ""
    file = tiff(data, bits, photometric, size=size, byte_order=order, **tags)
    return Written(name, file, None if signed else pixels)


def _rgb_tiff(rng: np.random.Generator) -> Written:
    bits, planar = int(rng.choice([8, 16])), int(rng.integers(1, 3))
    (height, width), order = _size(rng), str(rng.choice(["<", ">"]))
    orientation = int(rng.integers(1, 9))
    values = rng.integers(0, 1 << bits, (height, width, 3))
    laid = values if planar == 1 else values.transpose(2, 0, 1)
    data = packed(laid.reshape(1, -1), bits, order)
    tags = {"planar": planar, "orientation": orientation}
    file = tiff(data, bits, 2, 3, size=(height, width), byte_order=order, **tags)
    name = f"RGB TIFF, {bits} bits" + (", planes" if planar == 2 else "")
    return Written(name, file, upright(_eight_bits(values, bits), orientation))


def _rows(values: np.ndarray, depth: int, rng: np.random.Generator, samples: int = 1) -> bytes:
    height = len(values)
    data = np.frombuffer(packed(values.reshape(height, -1), depth, ">"), np.uint8)
    kinds = rng.integers(0, 5, height).tolist()
    return filtered(data.reshape(height, -1), kinds, max(1, depth * samples // 8))


def _grey_png(rng: np.random.Generator) -> Written:
    depth, size = int(rng.choice([1, 2, 4, 8, 16])), _size(rng)
    values = rng.integers(0, 1 << depth, size)
    key = None
    pixels = _eight_bits(values, depth)
    if rng.random() < 0.8:
        level = int(values.flat[0]) ^ int(rng.random() < 0.3)  # often near a level that is there
        key = struct.pack(">H", level)
        pixels = np.where(values == level, 255, pixels).astype(np.uint8)
    name = f"grey PNG, {depth} bits" + (", key" if key else "")
    return Written(name, png(size, depth, 0, _rows(values, depth, rng), key), pixels[..., None])


def _rgb_png(rng: np.random.Generator) -> Written:
    depth, (height, width) = int(rng.choice([8, 16])), _size(rng)
    values = rng.integers(0, 1 << depth, (height, width, 3))
    colour = values[0, 0].copy()
    values[-1, -1] = colour
    colour[2] ^= int(rng.random() < 0.3)
    key = struct.pack(">3H", *colour.tolist())
    pixels = _eight_bits(values, depth)
    pixels[(values == colour).all(-1)] = 255
    raw = _rows(values, depth, rng, 3)
    return Written(f"RGB PNG, {depth} bits, key", png((height, width), depth, 2, raw, key), pixels)


def _palette_png(rng: np.random.Generator) -> Written:
    depth, size = int(rng.choice([1, 2, 4, 8])), _size(rng)
    count = 1 << depth
    colours = rng.integers(0, 256, (count, 3)).astype(np.uint8)
    alpha = rng.choice([0, 255], int(rng.integers(1, count + 1))).astype(np.uint8)
    values = rng.integers(0, count, size)
    shown = colours.copy()
    shown[: len(alpha)][alpha == 0] = 255
    raw = _rows(values, depth, rng)
    file = png(size, depth, 3, raw, alpha.tobytes(), palette=colours.tobytes())
    return Written(f"palette PNG, {depth} bits, key", file, shown[values])


WRITERS: tuple[Callable[[np.random.Generator], Written], ...] = (
    *(_grey_tiff, _rgb_tiff, _grey_png, _rgb_png, _palette_png),
)


def _pixels(rng: np.random.Generator) -> tuple[str, Verdict]:
    file = WRITERS[rng.integers(len(WRITERS))](rng)
    grey = file.pixels is None or file.pixels.shape[2] == 1
    try:
        found = decode(file.data, mode="grey" if grey else "rgb")
    except DataError:
        return file.kind, "refused"
    same = file.pixels is not None and np.array_equal(found, file.pixels)
    return file.kind, "equal" if same else "silent"


def _regions(rng: np.random.Generator) -> tuple[str, Verdict]:
    """A bright rectangle of a picture that its file turns, with its box and its outline."""
    container, orientation = str(rng.choice(["TIFF", "PNG", "JPEG"])), int(rng.integers(1, 9))
    height, width = (8 * rng.integers(2, 8, 2)).tolist()
    y0, x0 = (8 * rng.integers(0, [height // 8, width // 8])).tolist()
    stored = np.zeros((height, width, 3), np.uint8)
    stored[y0 : y0 + 8, x0 : x0 + 8] = 200
    out = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(out, container, exif=exif)
    expected = upright(stored, orientation)
    inside = expected[..., 0] == 200
    ys, xs = np.nonzero(inside)
    box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    shares = [a / b for a, b in zip(box, expected.shape[1::-1] * 2, strict=True)]
    left, top, right, bottom = box
    columns = {
        "boxes": Boxes(max_boxes=1),
        "shares": Boxes(max_boxes=1, unit="shares", valid="shares_valid"),
        "masks": Masks(max_masks=1),
    }
    outline = [left, top, right, top, right, bottom, left, bottom]
    row = {"boxes": [box], "shares": [shares], "masks": [[outline]]}
    kind = f"{container} turned, with boxes and masks"
    try:
        found = decode(out.getvalue())
        example = read_row(columns, row, "fuzz", out.getvalue())
    except DataError:
        return kind, "refused"
    corners = [top, left, bottom, right]
    same = (
        found.shape == expected.shape
        and np.abs(found.astype(int) - expected).max() <= (8 if container == "JPEG" else 0)
        and np.allclose(example["boxes"][0], corners)
        and np.allclose(example["shares"][0], corners, atol=1e-4)
        and np.array_equal(example["masks"][0], inside)
    )
    return kind, "equal" if same else "silent"


def _thin(rng: np.random.Generator) -> tuple[str, Verdict]:
    """What an op makes of a strip is what it says, or the record is refused."""
    long, short = int(rng.integers(2_000, 65_500)), int(rng.integers(1, 9))
    shape = (short, long) if rng.random() < 0.5 else (long, short)
    side = int(rng.choice([32, 72, 224]))
    choices = {
        "Resize to a shorter side": (ops.Resize(side), None),
        "Resize to a shape": (ops.Resize((side, side)), (side, side)),
        "ResizeInto covering": (ops.ResizeInto((side, side), cover=True), None),
        "RandomResizedCrop": (ops.RandomResizedCrop(side), (side, side)),
    }
    name = str(rng.choice(list(choices)))
    op, wanted = choices[name]
    out = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(out, str(rng.choice(["PNG", "JPEG"])))
    kind = f"thin pictures, {name}"
    try:
        made = op({"image": decode(out.getvalue())}, rng)["image"].shape[:2]
    except DataError:
        return kind, "refused"
    good = made == wanted if wanted else min(made) == side and max(made) >= side * long // short - 1
    return kind, "equal" if good else "silent"


def judge(number: int) -> tuple[str, Verdict]:
    """Kind and verdict of file ``number``."""
    rng = np.random.Generator(np.random.Philox(key=[23, number]))
    return (_pixels, _pixels, _pixels, _pixels, _regions, _thin)[number % 6](rng)


def _peak_bytes() -> int:
    """Of this process, since ``_forget_peak``."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def main() -> None:
    from bench.common import record

    warnings.simplefilter("ignore")  # Pillow's, about metadata
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=6_000)
    counts: dict[str, collections.Counter[str]] = {}
    for number in range(parser.parse_args().files):
        _forget_peak()
        before = _peak_bytes()
        kind, verdict = judge(number)
        count = counts.setdefault(kind, collections.Counter())
        count["files"] += 1
        count[verdict] += 1
        count["large"] += _peak_bytes() - before > LARGE_BYTES
        if verdict == "silent":
            print(f"file {number}: {kind}", file=sys.stderr)
    names = ("files", "equal", "refused", "silent", "large")
    rows = [
        {"kind": kind, **{name: count[name] for name in names}}
        for kind, count in sorted(counts.items())
    ]
    rows.append({"kind": "all", **{name: sum(row[name] for row in rows) for name in names}})
    record("fuzz_formats", rows)


if __name__ == "__main__":
    main()
