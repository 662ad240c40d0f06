"""RAD-DINO's crops keep the order of grey levels; films of scenes and what they show."""

from __future__ import annotations

import numpy as np

from papers.rad_dino.method import Film, Findings, film_views
from vision.data.sources.scenes import Scenes
from vision.data.sources.scenes.vocabulary import SHAPES


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def test_crops_are_grey_and_never_inverted():
    ramp = np.repeat(np.linspace(40, 215, 64, dtype=np.uint8)[:, None, None], 48, 1).repeat(3, 2)
    views = film_views(24, 12, 3)
    for seed in range(12):
        out = views({"image": ramp}, rng(seed))
        assert out["image/global"].shape == (2, 24, 24, 3)
        assert out["image/local"].shape == (3, 12, 12, 3)
        for view in (*out["image/global"], *out["image/local"]):
            grey = view.astype(int)
            assert np.ptp(grey, axis=2).max() <= 1  # no colour appears
            assert grey[-1].mean() > grey[0].mean() + 10  # bright stays bright


def test_films_are_grey_low_in_contrast_and_grainy():
    scene = Scenes(num_examples=4, image_size=32)[0]
    plain = Film(contrast=0.3, grain=0.0)(scene, rng())["image"]
    assert plain.dtype == np.uint8
    assert plain.shape == scene["image"].shape
    assert not np.ptp(plain, axis=2).any()
    grey = scene["image"] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(plain[..., 0], 128 + 0.3 * (grey - 128), atol=0.51)
    grainy = Film(contrast=0.3, grain=8.0)(scene, rng())["image"].astype(int)
    assert 6 < (grainy - plain)[..., 0].std() < 10


def test_findings_are_what_the_segmentation_shows():
    kinds = ("star", "circle")
    codes = tuple(1 + SHAPES.index(kind) for kind in kinds)
    source = Scenes(
        num_examples=12, features=("segmentation", "attributes"), shapes=("circle", "star", "tee")
    )
    for i in range(12):
        out = Findings(codes)(source[i], rng())
        shown = {SHAPES[each] for each in source[i]["attributes"][:, 1] if each >= 0}
        expected = [kind in shown for kind in kinds]
        np.testing.assert_array_equal(out["findings"] == 1, expected)
        raw = source[i]["segmentation"]
        for place, code in enumerate(codes, 1):
            np.testing.assert_array_equal(out["segmentation"] == place, raw == code)
