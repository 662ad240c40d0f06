"""Films, line drawings and the contact sheet."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vision.data.source import Source
from vision.data.sources.scenes import (
    MOTIONS,
    Clips,
    Object,
    Scene,
    View,
    clip,
    draw_strokes,
    film,
    render,
    stroke_array,
    strokes,
)
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.clips import REVERSED
from vision.data.sources.scenes.pen import MAX_POINTS, OUTLINES
from vision.data.sources.scenes.shapes import DISTANCES

SCENE = Scene((Object("star", "red", size=0.15), Object("circle", "blue", size=0.1, x=0.2, y=0.2)))


@pytest.mark.parametrize("motion", REVERSED)
def test_a_motion_backwards_is_its_partner(motion):
    forwards = clip(SCENE, [motion, "still"], 5)
    backwards = clip(SCENE, [REVERSED[motion], "still"], 5)[::-1]
    for a, b in zip(forwards, backwards, strict=True):
        first, second = a.objects[0], b.objects[0]
        assert (first.y, first.x, first.size, first.rotation_deg) == pytest.approx(
            (second.y, second.x, second.size, second.rotation_deg)
        )
    assert all(frame.objects[1] == SCENE.objects[1] for frame in forwards)


def test_motions_move_the_masks():
    boxes = np.array([render(f, 64).boxes[0] for f in clip(SCENE, ["right", "still"], 4)])
    assert (np.diff(boxes[:, 1]) > 0).all()
    assert (boxes[:, 0] == boxes[0, 0]).all()
    areas = [render(frame, 64).areas_px[0] for frame in clip(SCENE, ["grow", "still"], 4)]
    assert areas == sorted(areas)
    with pytest.raises(ValueError, match="1 motions for 2 objects"):
        clip(SCENE, ["left"], 4)
    with pytest.raises(ValueError, match=r"motion='fly'.*still"):
        clip(SCENE, ["fly", "still"], 4)


def test_films_are_cut_from_segments():
    frames, segments = film(SCENE, ["left", "grow"], 3)
    assert len(frames) == 6
    assert segments == (("left", 0, 3), ("grow", 3, 6))
    assert frames[3:] == clip(SCENE, ["grow", "still"], 3)


def test_the_clip_source():
    source = Clips(num_examples=40, image_size=24, num_frames=3, others_move=True)
    assert isinstance(source, Source)
    assert source.info.class_names == MOTIONS
    motions = [source.motions_of(i)[0] for i in range(20)]
    assert sorted(motions[:10]) == sorted(motions[10:]) == sorted(MOTIONS)
    for index in range(3):
        example = source[index]
        assert set(example) == set(source.info.features)
        assert example["video"].shape == (3, 24, 24, 3)
        assert MOTIONS[example["label"]] == source.motions_of(index)[0]
        for t, frame in enumerate(source.clip(index)):
            drawn = render(frame, 24)
            assert (example["video"][t] == drawn.image).all()
            assert (example["boxes"][t, : len(drawn.boxes)] == drawn.boxes).all()
    appearance = Clips(num_examples=5, target="label", label="size")
    assert appearance.info.class_names == words.SIZES
    name = appearance.class_names[appearance[0]["label"]]
    assert name == appearance.scene(0).subject.size_name
    with pytest.raises(ValueError, match="num_frames is 1, expected a whole number >= 2"):
        Clips(num_frames=1)
    with pytest.raises(ValueError, match="target is 'mood'"):
        Clips(target="mood")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", words.SHAPES)
def test_outlines_are_closed_and_lie_on_the_edge_of_the_shape(shape):
    drawn = OUTLINES[shape]
    ends = zip(drawn, [*drawn[1:], drawn[0]], strict=True)
    for before, after in ends:
        assert before[-1] == pytest.approx(after[0], abs=2e-3)
    points = np.array([point for stroke in drawn for point in stroke], np.float32)
    middle = np.array(
        [(np.add(a, b) / 2) for s in drawn if len(s) == 2 for a, b in [s]], np.float32
    )
    for rows in (points, middle):
        if len(rows):
            away = DISTANCES[shape](rows[:, 1:].copy(), rows[:, :1].copy())
            assert np.abs(away).max() < 2e-3


def test_strokes_follow_the_camera():
    scene = Scene(
        (Object("tee", "red", size=0.3, y=0.4, rotation_deg=30.0),), view=View(1.2, 0.05, 0.1, 25.0)
    )
    ink = draw_strokes(strokes(scene), 96) < 128
    mask = render(scene, 96).masks[0]
    shifted = [np.roll(mask, step, axis) for step in (-2, 2) for axis in (0, 1)]
    assert not (ink & mask & np.logical_and.reduce(shifted)).any()
    box = np.argwhere(ink)
    y0, x0, y1, x1 = render(scene, 96).boxes[0]
    assert np.abs(np.concatenate([box.min(0) - (y0, x0), box.max(0) + 1 - (y1, x1)])).max() <= 2


def test_strokes_are_packed_into_one_array():
    plain = strokes(SCENE)
    table = stroke_array(plain, 2 * MAX_POINTS)
    used = table[:, 3] >= 0
    assert used.sum() == sum(len(stroke) for drawn in plain for stroke in drawn)
    assert (table[used][:, 2] == 0).sum() == sum(map(len, plain))
    assert (table[~used] == -1).all()
    with pytest.raises(ValueError, match="max_points=3"):
        stroke_array(plain, 3)


def test_the_contact_sheet_is_written(tmp_path):
    path = tmp_path / "sheet.png"
    command = [sys.executable, "-m", "vision.data.sources.scenes", "--sheet", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(path) as picture:
        assert picture.width > 1000
        assert picture.height > 2000
