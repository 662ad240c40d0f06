"""Nuisances without steps: nothing at 0, more at more, and the same draws at every scale."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vision.data import ops
from vision.data.ops.sliders import SLIDERS, Slider, slide
from vision.data.pipeline import EvalData
from vision.data.sources.arrays import Arrays
from vision.data.sources.scenes import Scenes

SCALES = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5)
SCENES = Scenes(num_examples=4, image_size=32)
PICTURES = np.stack([SCENES[i]["image"] for i in range(4)])


def at(image: np.ndarray, name: str, scale: float, seed: int = 0) -> np.ndarray:
    return Slider(name, scale)({"image": image}, np.random.default_rng(seed))["image"]


@pytest.mark.parametrize("name", SLIDERS)
def test_more_is_further_from_the_image(name: str):
    for number, image in enumerate(PICTURES):
        assert np.array_equal(at(image, name, 0.0, number), image)
        found = [at(image, name, scale, number) for scale in SCALES]
        assert all(each.dtype == np.uint8 and each.shape == image.shape for each in found)
        apart = [abs(each.astype(float) - image).mean() for each in found]
        assert all(more > less for less, more in itertools.pairwise(apart)), apart
        assert np.array_equal(found[2], at(image, name, 1.0, number))
        # No step: a little more of it is a little more change.
        near = abs(at(image, name, 1.02, number).astype(float) - found[2]).mean()
        assert near < 0.25 * apart[2]
        grey = at(image[:, :, :1], name, 1.0, number)
        assert grey.shape == (32, 32, 1)
    assert not np.array_equal(PICTURES[0], at(PICTURES[0], name, 2.5))


@pytest.mark.parametrize("name", ["fog", "snow", "noise", "clutter"])
def test_records_have_draws_of_their_own_and_keep_them(name: str):
    assert not np.array_equal(at(PICTURES[0], name, 1.0, 1), at(PICTURES[0], name, 1.0, 2))
    source = Arrays({"image": PICTURES})
    read = {}
    for scale in (0.0, 0.5, 1.0):
        for batch_size in (1, 3):
            steps = (Slider(name, scale), ops.RandomFlip())
            loader = EvalData(source, batch_size, steps, threads=0).loader()
            rows = [batch["image"][batch["_mask"]] for batch in loader]
            read[scale, batch_size] = np.concatenate(rows)
        np.testing.assert_array_equal(read[scale, 1], read[scale, 3])
    # What follows draws the same numbers at every scale.
    flipped = (read[0.0, 1] != PICTURES).any((1, 2, 3))
    for number in range(4):
        image = slide(PICTURES[number], name, 1.0, _own(number))
        expected = image[:, ::-1] if flipped[number] else image
        np.testing.assert_array_equal(read[1.0, 1][number], expected)


def _own(position: int) -> np.random.Generator:
    rng = np.random.Generator(np.random.Philox(key=[0, position]))
    return np.random.default_rng(int(rng.integers(2**63)))


def test_what_sliders_are():
    image = PICTURES[0] / 255
    turned = SLIDERS["hue"](image, 6.0, np.random.default_rng(0))
    np.testing.assert_allclose(turned, image, atol=1e-12)  # six times 60 degrees
    half = SLIDERS["hue"](image, 3.0, np.random.default_rng(0))
    np.testing.assert_allclose(half.mean(-1), image.mean(-1))  # the grey axis stays
    flat = SLIDERS["contrast"](image, 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(flat.std((0, 1)), image.std((0, 1)) * np.exp(-0.8))
    few, many = (SLIDERS["clutter"](image, scale, np.random.default_rng(0)) for scale in (1, 2))
    hit = (few != image).any(-1)
    assert hit.sum() < (many != image).any(-1).sum()
    assert (many != image).any(-1)[hit].all()
    for name, scale, message in [
        ("rain", 1.0, "name is 'rain', expected one of"),
        ("fog", -1.0, "scale is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Slider(name, scale)
    with pytest.raises(ValueError, match="expected uint8"):
        at(np.zeros((8, 8, 3), np.float32), "fog", 1.0)
