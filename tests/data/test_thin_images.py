"""What an op makes is bounded, and running out of memory is an error of the record."""

from __future__ import annotations

import dataclasses
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vision.data import ops
from vision.data.cache import InMemory
from vision.data.ops.corruptions import Corruption
from vision.data.ops.sliders import Slider
from vision.data.pipeline import EvalData
from vision.data.source import DataError
from vision.data.sources.arrays import Arrays

RNG = np.random.default_rng(0)


def jpeg(height: int, width: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize("shape", [(1, 20_000), (65_500, 1), (2, 60_000)])
@pytest.mark.parametrize(
    "op",
    [ops.Resize(72), ops.Resize(224, "torch_bilinear"), ops.ResizeInto((224, 160), cover=True)],
)
def test_a_thin_image_is_a_bad_record_before_anything_large_is_made(op, shape):
    image = np.zeros((*shape, 3), np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"pixels .* would become .*crop it first"):
            op({"image": image}, RNG)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "op", "made"),
    [
        ((20, 1000), ops.Resize(64), (64, 3200)),  # a panorama
        ((1, 3000), ops.Resize(16), (16, 48_000)),
        ((8, 8), ops.Resize(4200), (4200, 4200)),
        ((1, 3000), ops.Resize((32, 32)), (32, 32)),
        ((1, 60_000), ops.ResizeInto((64, 64)), (1, 64)),
        ((1, 60_000), ops.RandomResizedCrop(32), (32, 32)),
    ],
)
def test_what_is_asked_for_is_made(shape, op, made):
    out = op({"image": np.zeros((*shape, 1), np.uint8)}, RNG)["image"]
    assert out.shape[:2] == made


@pytest.mark.parametrize("op", [Corruption("fog"), Corruption("frost"), Slider("fog")])
def test_noise_on_a_square_around_a_thin_image_is_refused(op):
    with pytest.raises(DataError, match="crop it first"):
        op({"image": np.zeros((1, 20_000, 3), np.uint8)}, RNG)


def test_mask_takes_thin_images():
    files = np.empty(3, object)
    files[:] = [jpeg(64, 80), jpeg(1, 65_500), jpeg(80, 64)]
    prepare = (ops.Decode(), ops.Resize(72), ops.CenterCrop(64))
    data = EvalData(Arrays({"image": files}), 3, prepare, on_error="mask", threads=0)
    with data.loader() as loader:
        batch = next(loader)
        bad = loader.take_bad()
    assert batch["_mask"].tolist() == [True, False, True]
    assert "1 x 65500" in bad[0].reason


@dataclasses.dataclass(frozen=True)
class TooMuch:
    """Asks for more memory than any machine has, for images whose first pixel is 1."""

    def __call__(self, example, rng):
        if example["image"].flat[0] == 1:
            np.ones((1 << 50,), np.uint8)
        return example


def test_a_memory_error_is_an_error_of_the_record():
    images = np.zeros((3, 2, 2, 1), np.uint8)
    images[1] = 1
    source = Arrays({"image": images})
    with EvalData(source, 3, (TooMuch(),), on_error="mask", threads=0).loader() as loader:
        assert next(loader)["_mask"].tolist() == [True, False, True]
        assert "TooMuch() ran out of memory" in loader.take_bad()[0].reason
    loader = EvalData(source, 3, (TooMuch(),), threads=0).loader()
    with loader, pytest.raises(DataError, match=r"arrays/1: TooMuch.* ran out of memory"):
        next(loader)
    kept = InMemory(source, (TooMuch(),))
    assert kept[0]["image"].shape == (2, 2, 1)
    with pytest.raises(DataError, match=r"arrays/1: .*ran out of memory"):
        kept[1]
