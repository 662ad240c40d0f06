"""Edits do what their words say, and triplets hold together."""

from __future__ import annotations

import numpy as np
import pytest

from vision.data.source import Source
from vision.data.sources.scenes import (
    EDITS,
    Background,
    Edit,
    Object,
    Scene,
    Triplets,
    View,
    World,
    apply,
    clauses,
    ground,
    read_modifier,
    remove,
    render,
    replace_background,
    triplet,
    write_modifier,
)

SCENE = Scene(
    (
        Object("star", "red", size=0.24, y=0.3, x=0.3),
        Object("circle", "blue", "outlined", size=0.11, y=0.7, x=0.75),
        Object("circle", "green", texture="striped", size=0.16, y=0.25, x=0.75),
    ),
    Background("sand"),
)
ADDED = Object("cross", "pink", size=0.11, y=0.8, x=0.2)

WORDED = [
    (Edit("remove", 1), "remove the blue circle"),
    (Edit("add", addition=ADDED), "add a small solid plain pink cross"),
    (Edit("move", 0, "bottom left"), "move the red star to the bottom left"),
    (Edit("background", value="grass"), "change the background to grass"),
    (Edit("colour", 2, "yellow"), "make the green circle yellow"),
    (Edit("shape", 0, "arrow"), "turn the red star into an arrow"),
    (Edit("size", 0, "small"), "make the red star small"),
    (Edit("texture", 2, "plain"), "make the green circle plain"),
    (Edit("variant", 1, "solid"), "make the blue circle solid"),
]


@pytest.mark.parametrize(("edit", "text"), WORDED)
def test_every_edit_has_words_that_read_back(edit, text):
    told = clauses(SCENE, [edit])
    assert write_modifier(told) == text
    assert read_modifier(text) == told
    if edit.kind != "add":
        assert ground(told, SCENE) == (edit,)


def test_all_kinds_are_covered():
    assert {edit.kind for edit, _ in WORDED} == set(EDITS)


def test_edits_change_what_they_name_and_nothing_else():
    recoloured = apply(SCENE, Edit("colour", 2, "yellow"))
    assert recoloured.objects[2].colour == "yellow"
    assert recoloured.objects[:2] == SCENE.objects[:2]
    assert apply(SCENE, Edit("size", 0, "small")).objects[0].size_name == "small"
    assert apply(SCENE, Edit("move", 0, "bottom left")).placed()[0].position == "bottom left"
    assert apply(SCENE, Edit("background", value="grass")) == replace_background(SCENE, "grass")
    several = apply(SCENE, Edit("remove", 0), Edit("shape", 2, "star"), Edit("add", addition=ADDED))
    assert [thing.shape for thing in several.objects] == ["circle", "star", "cross"]


def test_removing_is_exact_in_the_picture():
    before, after = render(SCENE, 64), render(remove(SCENE, 1), 64)
    y0, x0, y1, x1 = before.boxes[1]
    changed = (before.image != after.image).any(2)
    assert changed[before.masks[1]].all()
    changed[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = False
    assert not changed.any()


@pytest.mark.parametrize("position", ["top", "centre", "bottom right"])
def test_a_move_lands_where_the_camera_sees_it(position):
    scene = Scene(SCENE.objects, view=View(zoom=0.8, shift_x=0.05, angle_deg=70.0))
    assert apply(scene, Edit("move", 0, position)).placed()[0].position == position


def test_impossible_edits_are_refused():
    with pytest.raises(ValueError, match="same thing twice"):
        apply(SCENE, Edit("colour", 0, "red"), Edit("colour", 0, "blue"))
    with pytest.raises(ValueError, match="same thing twice"):
        apply(SCENE, Edit("remove", 0), Edit("colour", 0, "blue"))
    with pytest.raises(ValueError, match="index=3"):
        apply(SCENE, Edit("remove", 3))
    with pytest.raises(ValueError, match="value='mauve'"):
        Edit("colour", 0, "mauve")
    with pytest.raises(ValueError, match="index=None does not go"):
        Edit("remove")
    with pytest.raises(ValueError, match="addition=None"):
        Edit("add")
    with pytest.raises(ValueError, match="outside the grammar of modifiers: 'paint it'"):
        read_modifier("remove the red star and paint it")
    with pytest.raises(ValueError, match="fits 2 objects"):
        ground(read_modifier("remove the circle"), SCENE)
    twins = Scene((Object("star", "red"), Object("star", "red", x=0.2)))
    with pytest.raises(ValueError, match="cannot tell"):
        clauses(twins, [Edit("remove", 0)])


@pytest.mark.parametrize("num_edits", [1, 2])
def test_triplets_hold_together(num_edits):
    world, kinds = World(num_objects=(2, 4)), set()
    for index in range(80):
        each = triplet(world, index, num_edits)
        assert each == triplet(world, index, num_edits)
        assert len(each.edits) == num_edits
        assert apply(each.reference, *each.edits) == each.target != each.reference
        assert each.target not in each.distractors
        assert len(set(each.distractors)) == len(each.distractors) == 4
        assert each.kinds.count("reference") == 1
        assert read_modifier(each.modifier) == each.clauses
        if all(edit.kind != "add" for edit in each.edits):
            assert ground(each.clauses, each.reference) == each.edits
        kinds |= {edit.kind for edit in each.edits}
    assert kinds == set(EDITS)


def test_distractors_share_the_condition_or_the_reference():
    for index in range(30):
        each = triplet(World(), index, kinds=("background",))
        by_kind = dict(zip(each.kinds, each.distractors, strict=True))
        assert by_kind["reference"] == each.reference
        assert by_kind["other scene"].background.kind == each.target.background.kind
        assert by_kind["other edit"].objects == each.reference.objects


def test_vague_texts_leave_the_value_open():
    each = triplet(World(num_objects=(2, 3)), 0, kinds=("colour",), vague=1.0)
    assert each.modifier.startswith("change the colour of the ")
    assert each.clauses[0].value is None
    assert each.edits[0].value == each.target.objects[each.edits[0].index or 0].colour


def test_seen_worlds_edit_into_seen_pairs_only():
    held_out = tuple(f"{colour} star" for colour in ("red", "blue", "green", "yellow", "cyan"))
    world = World(held_out=held_out, pairs="seen", shapes=("star", "circle"))
    for index in range(60):
        for thing in triplet(world, index, kinds=("colour", "shape")).target.objects:
            assert f"{thing.colour} {thing.shape}" not in held_out


def test_the_triplet_source():
    source = Triplets(num_examples=5, image_size=24, num_distractors=3)
    assert isinstance(source, Source)
    assert source.key(2) == "triplets/train/seed0/2"
    example = source[2]
    assert set(example) == set(source.info.features)
    assert example["distractors"].shape == (3, 24, 24, 3)
    assert (example["reference"] == render(source.triplet(2).reference, 24).image).all()
    assert example["modifier"] == source.triplet(2).modifier
    assert not np.array_equal(example["reference"], example["target"])
    with pytest.raises(ValueError, match=r"kinds\[0\] is 'paint'.*remove"):
        Triplets(kinds=("paint",))
    with pytest.raises(ValueError, match="raise num_objects"):
        Triplets(num_objects=(1, 1), kinds=("remove",))[0]
