"""TIFF and PNG files whose meaning is in their tags, against values written by hand."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from bench import image_files
from bench.image_files import filtered, png, upright
from vision.data.decode import DecodeError, decode
from vision.data.pixel_formats import upright_size
from vision.data.regions import Boxes, Masks
from vision.data.table import read_row

H, W = 6, 10


def tiff(*args, size=(H, W), **options) -> bytes:
    return image_files.tiff(*args, size=size, **options)


def ramp(high: int) -> np.ndarray:
    return np.linspace(0, high, H * W).astype(int).reshape(H, W)


def packed12(values: np.ndarray) -> bytes:
    a, b = values.reshape(-1, 2).T
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_grey_of_more_than_eight_bits(byte_order):
    twelve, sixteen = ramp(4095), ramp(65535)
    data = sixteen.astype(f"{byte_order}u2").tobytes()
    cases = {
        "12": (tiff(packed12(twelve), 12, 1, byte_order=byte_order), twelve >> 4),
        "16": (tiff(data, 16, 1, byte_order=byte_order), sixteen >> 8),
        "16 white is zero": (tiff(data, 16, 0, byte_order=byte_order), 255 - (sixteen >> 8)),
    }
    for name, (file, expected) in cases.items():
        if byte_order == ">" and name != "16":  # Pillow knows no such files
            with pytest.raises(DecodeError, match="not an image"):
                decode(file)
            continue
        np.testing.assert_array_equal(decode(file, mode="grey")[..., 0], expected, name)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_of_at_most_eight_bits(bits, photometric):
    size = (H, 8)
    levels = np.arange(H * 8).reshape(size) % (1 << bits)
    flat = (levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    data = np.packbits(flat.reshape(H, -1), axis=1).tobytes()
    expected = levels * 255 // ((1 << bits) - 1)
    out = decode(tiff(data, bits, photometric, size=size), mode="grey")[..., 0]
    np.testing.assert_array_equal(out, expected if photometric else 255 - expected)


def test_planes_of_eight_bits_are_read_and_of_sixteen_refused():
    planes = np.stack([ramp(255), 255 - ramp(255), ramp(99)])
    file = tiff(planes.astype(np.uint8).tobytes(), 8, 2, 3, planar=2)
    np.testing.assert_array_equal(decode(file), planes.transpose(1, 2, 0))
    wide = (planes * 257).astype("<u2")
    np.testing.assert_array_equal(
        decode(tiff(wide.transpose(1, 2, 0).tobytes(), 16, 2, 3, planar=1)),
        planes.transpose(1, 2, 0),
    )
    with pytest.raises(DecodeError, match="16-bit samples in separate planes; convert"):
        decode(tiff(wide.tobytes(), 16, 2, 3, planar=2))


def test_what_is_not_proven_is_refused():
    data = ramp(255).astype(np.uint8).tobytes()
    with pytest.raises(DecodeError, match="signed"):
        decode(tiff(data, 8, 1, sample_format=2))
    with pytest.raises(DecodeError, match="YCbCr"):
        decode(tiff(data * 3, 8, 6, 3))
    with pytest.raises(DecodeError, match="reversed bit order"):
        decode(tiff(data * 2, 16, 1, fill_order=2))


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="%d"/></x:xmpmeta>'


@pytest.mark.parametrize("xmp", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "TIFF lzw", "PNG", "JPEG"])
def test_orientation_is_applied_once_to_pixels_boxes_and_masks(kind, orientation, xmp):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 200
    pixels[8:, :8] = 100
    out = io.BytesIO()
    if kind.startswith("TIFF"):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[274] = orientation
        if xmp:
            tags[700] = XMP % orientation
        compression = "tiff_lzw" if "lzw" in kind else None
        Image.fromarray(pixels).save(out, "TIFF", tiffinfo=tags, compression=compression)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(pixels).save(out, kind, exif=exif)
    file, expected = out.getvalue(), upright(pixels, orientation)
    decoded = decode(file)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 8
    with Image.open(io.BytesIO(file)) as image:
        assert upright_size(image) == expected.shape[:2]
    height, width = expected.shape[:2]
    y, x = (values.min() for values in np.nonzero(expected[..., 0] == 200))
    columns = {
        "boxes": Boxes(max_boxes=1),
        "shares": Boxes(max_boxes=1, unit="shares", valid="shares_valid"),
        "masks": Masks(max_masks=1),
    }
    corners = [x, y, x + 8, y + 8]
    row = {
        "boxes": [corners],
        "shares": [[a / b for a, b in zip(corners, (width, height) * 2, strict=True)]],
        "masks": [[[x, y, x + 8, y, x + 8, y + 8, x, y + 8]]],
    }
    example = read_row(columns, row, "m.csv:2", file)
    np.testing.assert_allclose(example["boxes"][0], [y, x, y + 8, x + 8])
    np.testing.assert_allclose(example["shares"][0], [y, x, y + 8, x + 8], atol=1e-4)
    np.testing.assert_array_equal(example["masks"][0], expected[..., 0] == 200)


def test_a_tiff_that_only_xmp_turns_is_turned_alike_for_pixels_and_size():
    pixels = np.zeros((16, 24, 3), np.uint8)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = XMP % 6
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF", tiffinfo=tags)
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert decode(out.getvalue()).shape[:2] == upright_size(image)


@pytest.mark.parametrize("mode", ["rgb", "grey"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_is_white(depth, mode):
    top = (1 << depth) - 1
    levels = np.unique(np.linspace(0, top, min(top + 1, 9)).astype(int))
    if depth == 16:
        levels = np.append(levels, levels[3] + 1)  # the same upper byte as the key
        data = levels.astype(">u2").tobytes()
    else:
        bits = (levels[:, None] >> np.arange(depth - 1, -1, -1)) & 1
        data = np.packbits(bits.ravel()).tobytes()
    for index in range(min(len(levels), 4)):
        # Bits of the key above the depth do not count.
        key = int(levels[index]) | (0 if depth == 16 else 1 << depth)
        file = png((1, len(levels)), depth, 0, b"\0" + data, struct.pack(">H", key))
        expected = levels >> 8 if depth == 16 else levels * 255 // top
        expected = np.where(levels == levels[index], 255, expected)
        np.testing.assert_array_equal(decode(file, mode=mode)[0, :, 0], expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_is_white(depth):
    rng = np.random.default_rng(0)
    kind = ">u2" if depth == 16 else "u1"
    pixels = rng.integers(0, 1 << depth, (10, 7, 3)).astype(kind)
    key = pixels[4, 3].copy()
    pixels[8, 1] = pixels[0, 0] = key
    near = key.copy()
    near[2] ^= 1
    pixels[2, 2] = near
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(10, -1)
    raw = filtered(rows, [0, 1, 2, 3, 4] * 2, 3 * depth // 8)
    file = png((10, 7), depth, 2, raw, struct.pack(">3H", *key.tolist()))
    expected = (pixels >> (depth - 8)).astype(np.uint8)
    expected[(pixels == key).all(-1)] = 255
    np.testing.assert_array_equal(decode(file), expected)


def test_a_transparent_colour_of_sixteen_bits_in_an_interlaced_file():
    """It was refused."""
    for key, white in (((0x1234, 5, 6), True), ((0x1235, 5, 6), False)):
        raw = b"\0" + struct.pack(">3H", 0x1234, 5, 6)
        file = png((1, 1), 16, 2, raw, struct.pack(">3H", *key), interlace=1)
        assert decode(file)[0, 0].tolist() == ([255] * 3 if white else [0x12, 0, 0])
