"""Pixels follow the record: exactly, everywhere the same, and only where they should."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from vision.data.sources.scenes import (
    Artefact,
    Background,
    Glyph,
    Object,
    Scene,
    View,
    World,
    render,
)
from vision.data.sources.scenes import vocabulary as words

PAIR = Scene(
    (
        Object("star", "red", texture="striped", size=0.26, y=0.45, x=0.4, rotation_deg=20.0),
        Object("circle", "blue", "bordered", size=0.16, y=0.6, x=0.6, layer=1),
    ),
    Background("wood", 0.3, 0.1, 0.95),
)


def digest() -> str:
    """Hash of pictures that use every shape, style, background and artefact."""
    total = hashlib.sha256()
    world = World(
        num_objects=(1, 4), styles=words.STYLES, overlap=0.4, clutter=2, glyph=True, label="style",
        artefacts=words.ARTEFACTS,
    )  # fmt: skip
    for index in range(60):
        drawn = render(world.scene(index), (40, 48))
        total.update(drawn.image.tobytes())
        total.update(drawn.instances.tobytes())
    for background in words.BACKGROUNDS:
        total.update(render(Scene((), Background(background)), 64).image.tobytes())
    return total.hexdigest()


_EXTENSIONS = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[index]
STORED = "b43ea30bb7d2a0560b4951d1884cb0cfad492a2844e6a188f61a4266a81ac659"


def test_pixels_are_the_stored_ones():
    assert digest() == STORED


def test_pixels_do_not_depend_on_the_process_or_its_vector_instructions():
    environment = {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        "NPY_DISABLE_CPU_FEATURES": " ".join(_EXTENSIONS.get("found", ())),
    }
    code = "import test_render; print(test_render.digest())"
    again = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    assert again.stdout.strip() == STORED


@pytest.mark.parametrize("change", [{"colour": "green"}, {"texture": "plain"}])
def test_a_changed_object_changes_its_own_pixels_only(change):
    before = render(PAIR, 64)
    star, circle = PAIR.objects
    after = render(
        dataclasses.replace(PAIR, objects=(dataclasses.replace(star, **change), circle)), 64
    )
    assert (before.instances == after.instances).all()
    changed = (before.image != after.image).any(2)
    reach = _grow(before.masks[0])
    assert not (changed & ~reach).any()
    if "colour" in change:
        inside = before.masks[0] & ~_grow(~before.masks[0])
        assert changed[inside].all()


def _grow(mask: np.ndarray) -> np.ndarray:
    """Two pixels wider: the antialiased tip of a star reaches that far."""
    wide = np.pad(mask, 2, mode="edge")
    height, width = mask.shape
    shifts = [wide[y : y + height, x : x + width] for y in range(5) for x in range(5)]
    return np.logical_or.reduce(shifts)


def test_removing_an_object_uncovers_the_background():
    empty = render(dataclasses.replace(PAIR, objects=()), 64)
    drawn = render(PAIR, 64)
    away = ~_grow(drawn.instances > 0)
    assert (drawn.image[away] == empty.image[away]).all()
    assert (drawn.image[drawn.instances > 0] != empty.image[drawn.instances > 0]).any(1).all()


def test_masks_are_disjoint_boxes_tight_and_areas_consistent():
    world = World(num_objects=(2, 5), overlap=0.7)
    hidden = 0
    for index in range(40):
        scene = world.scene(index)
        drawn = render(scene, (48, 64))
        assert drawn.masks.sum(0).max() <= 1
        assert (drawn.masks.sum((1, 2)) == drawn.areas_px).all()
        assert (drawn.areas_px <= drawn.extents_px).all()
        hidden += int((drawn.visible < 1).any())
        for mask, (y0, x0, y1, x1) in zip(drawn.masks, drawn.boxes, strict=True):
            assert mask.sum() == mask[y0:y1, x0:x1].sum()
            if mask.any():
                assert mask[y0].any()
                assert mask[y1 - 1].any()
                assert mask[:, x0].any()
                assert mask[:, x1 - 1].any()
    assert hidden > 10


def test_visible_share_of_half_a_square():
    below = Object("square", "red", size=0.3, y=0.5, x=0.5)
    cover = Object("square", "blue", size=0.3, y=0.5, x=0.5 + 0.3 * 0.7, layer=1)
    drawn = render(Scene((below, cover)), 200)
    assert drawn.visible[1] == 1
    assert drawn.visible[0] == pytest.approx(0.5, abs=0.02)


def test_layers_decide_who_is_in_front_and_equal_layers_follow_the_order():
    a, b = Object("circle", "red"), Object("circle", "blue")
    assert render(Scene((a, b)), 32).instances[16, 16] == 2
    front = dataclasses.replace(a, layer=1)
    assert render(Scene((front, b)), 32).instances[16, 16] == 1


def test_resolutions_show_the_same_scene():
    small, large = render(PAIR, 64), render(PAIR, 256)
    pooled = large.image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(pooled - small.image).mean() < 8
    agreement = large.instances[2::4, 2::4] == small.instances
    assert agreement.mean() > 0.97


@pytest.mark.parametrize("variant", words.VARIANTS)
@pytest.mark.parametrize("shape", words.SHAPES)
def test_every_shape_lies_in_its_circle_and_shows(shape, variant):
    drawn = render(Scene((Object(shape, "red", variant, size=0.4),)), 100)
    y, x = drawn.masks[0].nonzero()
    assert np.hypot(y - 49.5, x - 49.5).max() < 41.5
    assert np.hypot(y - 49.5, x - 49.5).max() > 0.8 * 40
    assert len(y) > 300


def test_shapes_and_variants_differ_from_one_another():
    masks = [
        render(Scene((Object(shape, "red", size=0.4),)), 64).masks[0] for shape in words.SHAPES
    ]
    for k, mask in enumerate(masks):
        for other in masks[:k]:
            assert (mask & other).sum() / (mask | other).sum() < 0.93
    solid, outlined = (
        render(Scene((Object("circle", "red", v, size=0.4),)), 64) for v in ("solid", "outlined")
    )
    assert solid.masks[0, 32, 32]
    assert not outlined.masks[0, 32, 32]


def test_a_quarter_turn_turns_the_mask():
    upright = render(Scene((Object("arrow", "red", size=0.4),)), 64).masks[0]
    turned = render(Scene((Object("arrow", "red", size=0.4, rotation_deg=90.0),)), 64).masks[0]
    assert (np.rot90(upright, -1) == turned).mean() > 0.995


def test_the_view_moves_turns_and_scales():
    thing = Object("square", "red", size=0.2, y=0.5, x=0.75)
    moved = render(Scene((thing,), view=View(shift_x=-0.25)), 64)
    assert moved.boxes[0].tolist() == render(
        Scene((dataclasses.replace(thing, x=0.5),)), 64
    ).boxes[0].tolist()  # fmt: skip
    turned = Scene((thing,), view=View(angle_deg=90.0)).placed()[0]
    assert (turned.y, turned.x) == pytest.approx((0.75, 0.5))
    zoomed = render(Scene((dataclasses.replace(thing, x=0.5),), view=View(zoom=2.0)), 64)
    assert zoomed.areas_px[0] == pytest.approx(4 * moved.areas_px[0], rel=0.05)
    assert Scene((thing,)).placed()[0] is thing


def test_the_glyph_is_where_its_mask_is():
    plain = render(PAIR, 64)
    marked = render(dataclasses.replace(PAIR, glyph=Glyph(3, 0.2, 0.8, 0.1)), 64)
    assert marked.glyph_mask is not None
    assert marked.glyph_mask.sum() == 36
    assert ((plain.image != marked.image).any(2) == marked.glyph_mask).all()
    assert (marked.instances == plain.instances).all()


@pytest.mark.parametrize("kind", words.ARTEFACTS)
def test_artefacts_grow_with_their_strength_and_vanish_at_zero(kind):
    plain = render(PAIR, 64)
    none = render(dataclasses.replace(PAIR, artefact=Artefact(kind, 0.0)), 64)
    assert (none.image == plain.image).all()
    weak, strong = (
        np.abs(
            render(dataclasses.replace(PAIR, artefact=Artefact(kind, s)), 64).image.astype(int)
            - plain.image
        ).mean()
        for s in (0.2, 1.0)
    )
    assert 0 < weak < strong
    spoiled = render(dataclasses.replace(PAIR, artefact=Artefact(kind, 1.0)), 64)
    assert (spoiled.image != plain.image).any(2).mean() > 0.2


def test_styles_change_the_picture_but_not_the_masks():
    plain = render(PAIR, 64)
    for style in words.STYLES[1:]:
        styled = render(dataclasses.replace(PAIR, style=style), 64)
        assert (styled.instances == plain.instances).all()
        assert np.abs(styled.image.astype(int) - plain.image).mean() > 3
    grey = render(dataclasses.replace(PAIR, style="greyscale"), 64).image
    assert (grey[..., :1] == grey).all()


def test_wrong_records_are_refused_by_name():
    with pytest.raises(ValueError, match=r"shape is 'cube'.*circle"):
        Object("cube", "red")
    with pytest.raises(ValueError, match="size is 0, expected a number > 0"):
        Object("star", "red", size=0)
    with pytest.raises(ValueError, match="Background: kind is 'moon'"):
        Background("moon")
    with pytest.raises(ValueError, match="zoom"):
        View(zoom=0)
    with pytest.raises(ValueError, match="pattern is 8"):
        Glyph(8)
    with pytest.raises(ValueError, match="strength is 2"):
        Artefact("blur", 2)
    with pytest.raises(ValueError, match="8 x 8"):
        render(PAIR, 7)
    with pytest.raises(ValueError, match="no subject"):
        _ = Scene(()).subject
