from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from vision.data import decode as decode_module
from vision.data.decode import (
    MAX_PIXELS,
    DecodeError,
    decode,
    decode_plain_jpeg,
    plain_jpeg_size,
)
from vision.data.source import DataError

PHOTO = Image.fromarray(load_sample_images().images[0]).resize((96, 64))


def encode(image: Image.Image, container: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, container, **options)
    return out.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


@pytest.fixture(params=["simplejpeg", "pillow"])
def either_decoder(request, monkeypatch):
    if request.param == "pillow":
        monkeypatch.setattr(decode_module, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


def test_jpeg_equals_pillow(either_decoder):
    for data in (
        encode(PHOTO, quality=90),
        encode(PHOTO, progressive=True),
        encode(PHOTO, subsampling=0),
    ):
        image = decode(data)
        np.testing.assert_array_equal(image, pixels(Image.open(io.BytesIO(data))))
        assert image.dtype == np.uint8
        assert image.shape == (64, 96, 3)
        assert image.flags.c_contiguous
        assert image.flags.writeable


@pytest.mark.parametrize("container", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_containers_are_exact(container):
    np.testing.assert_array_equal(decode(encode(PHOTO, container)), pixels(PHOTO))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, either_decoder):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(PHOTO, exif=exif)
    expected = pixels(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode(data), expected)
    assert decode(data).shape == ((96, 64, 3) if orientation >= 5 else (64, 96, 3))


def test_grey_palette_and_bilevel_become_rgb(either_decoder):
    grey = PHOTO.convert("L")
    three = np.repeat(np.asarray(grey)[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode(encode(grey, "PNG")), three)
    assert np.ptp(decode(encode(grey)), axis=2).max() == 0
    palette = PHOTO.quantize(32)
    np.testing.assert_array_equal(decode(encode(palette, "PNG")), pixels(palette))
    bilevel = PHOTO.convert("1")
    np.testing.assert_array_equal(decode(encode(bilevel, "PNG")), pixels(bilevel))


def test_grey_mode_gives_luma(either_decoder):
    image = decode(encode(PHOTO, "PNG"), mode="grey")
    np.testing.assert_array_equal(image[:, :, 0], np.asarray(PHOTO.convert("L")))
    assert decode(encode(PHOTO), mode="grey").shape == (64, 96, 1)


def test_cmyk_jpeg_with_adobe_inversion(either_decoder):
    data = encode(PHOTO.convert("CMYK"), quality=95)
    assert b"Adobe" in data
    difference = np.abs(decode(data).astype(int) - pixels(PHOTO).astype(int))
    assert difference.mean() < 3  # an inverted picture would differ by about 100


def test_cmyk_tiff():
    cmyk = PHOTO.convert("CMYK")
    np.testing.assert_array_equal(decode(encode(cmyk, "TIFF")), pixels(cmyk))


def test_transparency_is_composited_on_white():
    layer = PHOTO.convert("RGBA")
    alpha = np.zeros((64, 96), np.uint8)
    alpha[:, 48:] = 255
    layer.putalpha(Image.fromarray(alpha))
    image = decode(encode(layer, "PNG"))
    assert (image[:, :48] == 255).all()
    np.testing.assert_array_equal(image[:, 48:], pixels(PHOTO)[:, 48:])
    palette = Image.fromarray(np.zeros((2, 2), np.uint8), "P")
    palette.putpalette([9, 9, 9])
    assert (decode(encode(palette, "PNG", transparency=0)) == 255).all()


def test_sixteen_bits_keep_the_upper_byte():
    wide = (np.arange(64 * 96).reshape(64, 96) * 10).astype(np.uint16)
    for container in ("PNG", "TIFF", "PPM"):
        image = decode(encode(Image.fromarray(wide), container))
        np.testing.assert_array_equal(image[:, :, 0], wide >> 8)
        assert np.ptp(image, axis=2).max() == 0


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pixels_are_refused(dtype):
    with pytest.raises(DecodeError, match="no agreed range"):
        decode(encode(Image.fromarray(np.ones((4, 4), dtype)), "TIFF"))


def test_animation_gives_the_first_frame():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for container in ("GIF", "PNG", "WEBP"):
        data = encode(frames[0], container, save_all=True, append_images=frames[1:], lossless=True)
        np.testing.assert_array_equal(decode(data), pixels(frames[0]))


@pytest.mark.parametrize("container", ["JPEG", "PNG", "GIF"])
def test_one_pixel(container):
    assert decode(encode(Image.new("RGB", (1, 1), (7, 7, 7)), container)).shape == (1, 1, 3)


@pytest.mark.parametrize("container", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(container, either_decoder):
    data = encode(PHOTO, container)
    cuts = [int(share * len(data)) for share in (0.02, 0.3, 0.6, 0.9)]
    for cut in cuts + [len(data) - n for n in (1, 4, 8)] * (container == "PNG"):
        with pytest.raises(DecodeError):
            decode(data[:cut])


def test_strict_refuses_what_libjpeg_only_warns_about():
    pytest.importorskip("simplejpeg")
    data = encode(PHOTO, quality=95)
    end = data[:-2]  # only the end marker is missing
    with pytest.raises(DecodeError, match="Premature end"):
        decode(end)
    rng = np.random.default_rng(0)
    refused = lenient = 0
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.integers(700, len(data) - 2)] ^= 1 << int(rng.integers(8))
        for strict in (True, False):
            try:
                decode(bytes(flipped), strict=strict)
            except DecodeError:
                refused += strict
                lenient += not strict
    assert refused > 5
    assert lenient < refused


def test_every_flipped_bit_of_a_png_is_noticed():
    data = encode(PHOTO.resize((16, 16)), "PNG")
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data) - 12, 200):  # the last chunk holds no pixels
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(DecodeError):
            decode(bytes(flipped))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "DOCTYPE html"),
        (b"just some text in a file called .jpg\n", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\xff\xd8\xff\xe0 not more than the magic", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
        (bytes(4096), "not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(data)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_random_bytes_never_crash_anything_but_decode_error():
    rng = np.random.default_rng(0)
    heads = [b"\xff\xd8\xff\xe0", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"P6 9 9 255 "]
    for i in range(300):
        with pytest.raises(DecodeError):
            decode(heads[i % len(heads)] + rng.bytes(int(rng.integers(0, 200))))


def claim_size(data: bytes, width: int, height: int) -> bytes:
    """The same file with another size in its header (and, for PNG, the checksum to match)."""
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = struct.pack(">II", width, height)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    else:
        at = data.index(b"\xff\xc0") + 5
        changed[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(changed)


@pytest.mark.parametrize("container", ["JPEG", "PNG"])
def test_pixel_limit_is_checked_before_decoding(container, either_decoder):
    data = encode(PHOTO, container)
    with pytest.raises(DecodeError, match=f"9500x9400 is 89300000 .* max_pixels={MAX_PIXELS}"):
        decode(claim_size(data, 9500, 9400))
    with pytest.raises(DecodeError, match=r"20000x20000|more than 178956970 pixels"):
        decode(claim_size(data, 20000, 20000))
    with pytest.raises(DecodeError, match="96x64 is 6144 pixels, more than max_pixels=6143"):
        decode(data, max_pixels=6143)
    assert decode(data, max_pixels=6144).shape == (64, 96, 3)


def test_plain_jpegs_decode_alike_and_only_they_are_plain():
    pytest.importorskip("simplejpeg")
    for data in (encode(PHOTO, quality=90), encode(PHOTO, progressive=True), encode(PHOTO)):
        assert plain_jpeg_size(data) == (64, 96)
        for mode in ("rgb", "grey"):
            whole = decode_plain_jpeg(data, (64, 96), mode)
            np.testing.assert_array_equal(whole, decode(data, mode=mode))
        half = decode_plain_jpeg(data, (64, 96), shrink=2).astype(int)
        means = decode(data).reshape(32, 2, 48, 2, 3).mean((1, 3))
        assert np.abs(half - means).mean() < 2  # the DCT's average over blocks, nearly
        with pytest.raises(DecodeError, match="damaged"):
            decode_plain_jpeg(data[: len(data) * 2 // 3], (64, 96))
    exif = Image.Exif()
    exif[0x0112] = 6
    for other in (
        encode(PHOTO, exif=exif),
        encode(PHOTO, xmp=b"<x:xmpmeta/>"),
        encode(PHOTO.convert("CMYK")),
        encode(PHOTO, "PNG"),
        b"",
        b"\xff\xd8",
    ):
        assert plain_jpeg_size(other) is None
    with pytest.raises(DecodeError, match="max_pixels=6143"):
        plain_jpeg_size(encode(PHOTO), 6143)
    with pytest.raises(ValueError, match="shrink=3"):
        decode_plain_jpeg(encode(PHOTO), (64, 96), shrink=3)


def test_arguments_are_checked():
    assert issubclass(DecodeError, DataError)
    with pytest.raises(ValueError, match="mode='bgr'"):
        decode(encode(PHOTO), mode="bgr")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_pixels=0"):
        decode(encode(PHOTO), max_pixels=0)
