"""The knobs of a world do what they say."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

from vision.data.sources.scenes import LABELS, Scenes, World, read_label
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.draws import spread, turn, uniforms


@pytest.mark.parametrize("label", LABELS)
def test_scenes_have_the_class_they_were_drawn_for(label):
    world = World(label=label, artefacts=("blur", "fingerprint"), artefact_seeds=(0, 1))
    names = world.class_names
    count = len(names)
    assert len(set(names)) == count
    classes = [world.class_of(index) for index in range(2 * count)]
    assert sorted(classes[:count]) == sorted(classes[count:]) == list(range(count))
    for index in range(min(count, 60)):
        assert read_label(world.scene(index), label) == names[classes[index]]


def test_a_scene_depends_on_its_index_and_world_only():
    world = World(clutter=3, glyph=True)
    first = [world.scene(index) for index in range(5)]
    assert [World(clutter=3, glyph=True).scene(index) for index in (4, 2, 0)] == [
        first[4],
        first[2],
        first[0],
    ]
    assert Scenes(num_examples=7, image_size=32, clutter=3, glyph=True).scene(4) == first[4]
    assert World(seed=1, clutter=3, glyph=True).scene(4) != first[4]
    assert world.scene(10**15) != world.scene(10**15 + 1)


def test_other_knobs_leave_the_objects_alone():
    plain = World().scene(11)
    for world in (
        World(clutter=4),
        World(glyph=True),
        World(styles=("noisy",)),
        World(artefacts=("blur",)),
    ):
        assert world.scene(11).objects == plain.objects
    more = World(num_objects=(1, 8)).scene(11)
    assert more.objects[0].rotation_deg == plain.objects[0].rotation_deg


def test_splits_are_disjoint():
    scenes = [World(split=split).scene(i) for split in ("train", "test") for i in range(500)]
    placed = [tuple((o.y, o.x, o.size) for o in scene.objects) for scene in scenes]
    assert len(set(placed)) == 1000


def test_subject_is_the_largest_and_objects_keep_apart():
    overlapping = 0
    for index in range(200):
        objects = World(num_objects=(2, 3)).scene(index).objects
        assert objects[0].size == max(thing.size for thing in objects)
        gaps = [
            np.hypot(a.y - b.y, a.x - b.x) - a.size - b.size
            for k, a in enumerate(objects)
            for b in objects[:k]
        ]
        overlapping += min(gaps) < 0
    assert overlapping < 60


def test_nested_objects_lie_inside_the_subject():
    nested = 0
    for index in range(100):
        subject, *_, last = World(num_objects=(2, 3), nested=1.0).scene(index).objects
        nested += (last.y, last.x) == (subject.y, subject.x)
    assert nested > 35


def test_restricted_vocabularies_are_kept():
    world = World(
        shapes=("star", "circle"), colours=("red",), textures=("plain",), variants=("solid",),
        sizes=("small",), backgrounds=("sky", "sand"),
    )  # fmt: skip
    for index in range(50):
        scene = world.scene(index)
        assert scene.background.kind in ("sky", "sand")
        for thing in scene.objects:
            assert (thing.colour, thing.texture, thing.variant) == ("red", "plain", "solid")
            assert thing.shape in ("star", "circle")
            assert thing.size_name == "small"
    assert world.class_names == ("star", "circle")


def test_labels_say_what_the_camera_shows():
    world = World(label="quadrant", view_angle_deg=180.0, view_zoom=(0.5, 1.0))
    moved = 0
    for index in range(40):
        scene = world.scene(index)
        seen = scene.placed()[0]
        assert read_label(scene, "quadrant") == seen.quadrant
        assert read_label(scene, "size") == seen.size_name
        moved += seen.quadrant != scene.subject.quadrant
    assert moved > 10


def test_held_out_pairs():
    held_out = ("red circle", "blue star", "green cross")
    free = {f"{o.colour} {o.shape}" for i in range(400) for o in World().scene(i).objects}
    assert free & set(held_out)
    for index in range(300):
        for thing in World(held_out=held_out, pairs="seen").scene(index).objects:
            assert f"{thing.colour} {thing.shape}" not in held_out
        subject = World(held_out=held_out, pairs="unseen").scene(index).subject
        assert f"{subject.colour} {subject.shape}" in held_out
    unseen = World(held_out=held_out, pairs="unseen")
    assert len(unseen.class_names) == 16
    assert {unseen.class_names[c] for c in unseen.drawable_classes} == {"circle", "star", "cross"}


@pytest.mark.parametrize(("imbalance", "skew"), [("zipf", 1.5), ("exponential", 50.0)])
def test_imbalance_follows_the_asked_shares(imbalance, skew):
    world = World(imbalance=imbalance, skew=skew)
    counts = np.bincount([world.class_of(i) for i in range(2000)], minlength=16)
    expected = 2000 * np.array(world.class_shares)
    assert np.abs(counts - expected).max() <= 4
    ratio = world.class_shares[0] / world.class_shares[-1]
    assert ratio == pytest.approx(16**1.5 if imbalance == "zipf" else 50)


def test_uniforms_are_uniform_independent_and_prefix_stable():
    rows = np.array([uniforms(3, "train", index, "x", 20) for index in range(2000)])
    assert rows.min() >= 0
    assert rows.max() < 1
    assert np.abs(rows.mean(0) - 0.5).max() < 0.03
    assert np.abs(rows.var(0) - 1 / 12).max() < 0.01
    assert np.abs(np.corrcoef(rows.T) - np.eye(20)).max() < 0.1
    assert (uniforms(3, "train", 7, "x", 5) == uniforms(3, "train", 7, "x", 50)[:5]).all()
    assert (uniforms(3, "train", 7, "x", 5) != uniforms(3, "train", 7, "y", 5)).all()
    assert uniforms(0, "train", 0, "scene", 2).tolist() == [
        0.6291208607700409,
        0.19826184032212346,
    ]


def test_turn_is_a_bijection_and_spread_is_even():
    for size in (1, 2, 10, 16):
        offset, step = turn(0, "s", 3, size)
        assert sorted((offset + step * i) % size for i in range(size)) == list(range(size))
    counts = np.histogram([spread(0, "s", i) for i in range(100)], bins=10, range=(0, 1))[0]
    assert counts.min() >= 8
    assert counts.max() <= 12


def test_hierarchy_is_a_tree():
    assert len(words.LEAVES) == 48
    families = collections.Counter(words.FAMILY_OF.values())
    assert families == dict.fromkeys(words.FAMILIES, 4)
    for place, leaf in enumerate(words.LEAVES):
        assert leaf.split()[1] == words.SHAPES[place // len(words.VARIANTS)]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"label": "mood"}, "label is 'mood', expected one of 'shape'"),
        ({"shapes": ("cube",)}, r"shapes\[0\] is 'cube', expected one of"),
        ({"colours": ()}, r"colours is \(\), expected .*not empty"),
        ({"shapes": ("star", "star")}, "twice"),
        ({"num_objects": (0, 2)}, "num_objects"),
        ({"spurious": 1.5}, "spurious is 1.5, expected a number in"),
        ({"overlap": -0.1}, "overlap"),
        ({"clutter": -1}, "clutter is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"rotation_deg": -5.0}, "rotation_deg is -5.0"),
        ({"imbalance": "odd"}, "imbalance is 'odd', expected one of 'none', 'zipf'"),
        ({"imbalance": "exponential", "skew": 0.5}, "skew=0.5"),
        ({"spurious_cue": "smell"}, "spurious_cue"),
        ({"spurious": 0.5, "label": "background"}, "would decide"),
        ({"held_out": ("round red",)}, "held_out='round red'"),
        ({"pairs": "seen"}, "needs held_out"),
        ({"pairs": "unseen", "held_out": ("red star",), "shapes": ("circle",)}, "no scene"),
        ({"label": "artefact"}, "artefacts is empty"),
        ({"artefact_seeds": ()}, "artefact_seeds"),
        ({"glyph_size": 0.0}, "glyph_size"),
    ],
)
def test_wrong_knobs_are_refused_by_name(knobs, message):
    with pytest.raises(ValueError, match=message):
        World(**knobs)


def test_worlds_are_values():
    assert World(seed=3) == World(seed=3)
    assert dataclasses.replace(World(), seed=3) == World(seed=3)
    assert hash(World()) == hash(World())
