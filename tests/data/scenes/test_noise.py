"""Noise comes in the amount that was asked for, and what is true stays known."""

from __future__ import annotations

import numpy as np
import pytest

from vision.data.sources.scenes import (
    CAPTION_NOISE,
    LABELS,
    Scenes,
    World,
    agrees,
    cramers_v,
    describe,
    parse,
    translate,
)
from vision.data.sources.scenes import vocabulary as words
from vision.data.sources.scenes.noise import flipped, mistaken_for, votes


def test_cramers_v_of_known_tables():
    assert cramers_v([0, 1, 2, 0, 1, 2], [5, 7, 9, 5, 7, 9]) == pytest.approx(1)
    assert cramers_v([0, 0, 1, 1], [0, 1, 0, 1]) == 0
    assert cramers_v([0, 0, 1, 1], [3, 3, 3, 3]) == 0
    first, second = [0] * 10 + [1] * 10, [0] * 8 + [1] * 2 + [0] * 3 + [1] * 7
    chi2 = 20 * (8 * 7 - 2 * 3) ** 2 / (10 * 10 * 11 * 9)
    assert cramers_v(first, second) == pytest.approx((chi2 / 20) ** 0.5)
    with pytest.raises(ValueError, match="equally long"):
        cramers_v([0, 1], [0])


@pytest.mark.parametrize("cue", ["background", "colour", "companion", "glyph"])
def test_association_grows_with_the_spurious_strength(cue):
    def association(strength: float, shift: int = 0) -> tuple[float, list[int], list[int]]:
        world = World(spurious=strength, spurious_cue=cue, spurious_shift=shift)
        classes, cues = [], []
        for index in range(400):
            scene = world.scene(index)
            classes.append(world.class_of(index))
            if cue == "background":
                cues.append(world.backgrounds.index(scene.background.kind))
            elif cue == "glyph":
                cues.append(scene.glyph.pattern if scene.glyph else -1)
            else:
                thing = scene.objects[-1] if cue == "companion" else scene.subject
                cues.append(world.colours.index(thing.colour))
        return cramers_v(classes, cues), classes, cues

    values = [association(strength)[0] for strength in (0.0, 0.5, 1.0)]
    assert values == sorted(values)
    assert values[0] < 0.3
    assert values[1] == pytest.approx(0.5, abs=0.15)
    assert values[2] == pytest.approx(1)
    _, classes, cues = association(1.0, shift=1)
    count = 8 if cue == "glyph" else 10
    assert cues == [(c + 1) % count for c in classes]


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_label_noise_has_the_asked_rate(kind):
    source = Scenes(
        num_examples=1500, label_noise=0.3, label_noise_kind=kind, features=("label", "clean_label")
    )
    given, clean = (np.array([source[i][name] for i in range(1500)]) for name in source.features)
    assert (given != clean).mean() == pytest.approx(0.3, abs=0.04)
    assert (clean == [source.class_of(i) for i in range(1500)]).all()
    wrong = given != clean
    if kind == "asymmetric":
        assert (given[wrong] == np.array(mistaken_for(source.class_names))[clean[wrong]]).all()
        assert (given[wrong] // 4 == clean[wrong] // 4).all()
    else:
        assert len(set((given - clean)[wrong] % 16)) == 15


def test_label_noise_does_not_touch_the_picture():
    plain, noisy = Scenes(image_size=16), Scenes(image_size=16, label_noise=1.0)
    for index in range(10):
        assert (plain[index]["image"] == noisy[index]["image"]).all()
        assert plain[index]["label"] != noisy[index]["label"]


@pytest.mark.parametrize("label", LABELS)
def test_every_class_is_mistaken_for_another(label):
    names = World(label=label, artefacts=("blur",), styles=words.STYLES).class_names
    partners = mistaken_for(names)
    assert len(partners) == len(names)
    assert all(c != partner for c, partner in enumerate(partners))


def test_flips_reach_every_other_class_evenly():
    reached = [flipped(2, (1, 2, 0, 0), 1.0, "symmetric", (0.0, u / 300)) for u in range(300)]
    assert np.bincount(reached).tolist() == [100, 100, 0, 100]
    assert flipped(2, (1, 2, 0, 0), 0.0, "symmetric", (0.0, 0.0)) == 2


@pytest.mark.parametrize("kind", CAPTION_NOISE)
def test_caption_noise_has_the_asked_rate_and_is_false(kind):
    source = Scenes(
        num_examples=300, num_objects=(2, 3), caption_noise=0.4, caption_noise_kind=kind,
        features=("caption", "caption_long", "caption_is_clean"), image_size=16,
    )  # fmt: skip
    clean = 0
    for index in range(300):
        example, scene = source[index], source.scene(index)
        clean += bool(example["caption_is_clean"])
        for name in ("caption", "caption_long"):
            meaning = parse(example[name])
            if example["caption_is_clean"] or kind == "omit":
                assert agrees(meaning, scene)
            else:
                assert not agrees(meaning, scene)
        count = len(parse(example["caption"]).mentions)
        if not example["caption_is_clean"] and kind in ("omit", "invent"):
            assert count == len(scene.objects) + (1 if kind == "invent" else -1)
        elif kind == "attribute":
            assert count == len(scene.objects)
    assert clean / 300 == pytest.approx(0.6, abs=0.08)


def test_near_duplicates_are_known_and_near():
    source = Scenes(num_examples=400, duplicates=0.4, image_size=32, sizes=("medium",))
    pairs = [(i, source.duplicate_of(i)) for i in range(400)]
    repeated = [(i, j) for i, j in pairs if j >= 0]
    assert len(repeated) / 400 == pytest.approx(0.4, abs=0.07)
    assert all(j < i and source.duplicate_of(j) == -1 for i, j in repeated)

    def gap(a: int, b: int) -> float:
        first, second = (source[k]["image"].astype(float) for k in (a, b))
        return np.abs(first - second).mean()

    near = np.mean([gap(i, j) for i, j in repeated[:40]])
    far = np.mean([gap(i, i - 1) for i, j in repeated[:40] if j != i - 1])
    assert near < 0.6 * far
    assert Scenes().duplicate_of(3) == -1


def test_duplicates_by_attribute_differ_in_one_thing():
    source = Scenes(num_examples=200, duplicates=0.5, duplicate_kind="attribute")
    differing = set()
    for index in range(200):
        original = source.duplicate_of(index)
        if original >= 0:
            here, there = source.scene(index), source.scene(original)
            assert here.background == there.background
            changed = [(a, b) for a, b in zip(here.objects, there.objects, strict=True) if a != b]
            assert len(changed) == (here.view == there.view)
            for a, b in changed:
                fields = {f for f in ("shape", "colour", "size", "texture", "variant", "y", "x")
                          if getattr(a, f) != getattr(b, f)}  # fmt: skip
                assert len(fields) == 1 or fields <= {"y", "x"}
                differing |= fields
    assert len(differing) == 7


def test_raters_are_as_good_as_asked():
    source = Scenes(
        num_examples=600, num_raters=4, rater_accuracy=0.7, rater_spread=0.2,
        features=("votes", "clean_label"),
    )  # fmt: skip
    examples = [source[i] for i in range(600)]
    right = np.mean([e["votes"] == e["clean_label"] for e in examples], axis=0)
    assert right == pytest.approx(np.array(source.rater_accuracies), abs=0.07)
    assert all(0.5 <= accuracy <= 0.9 for accuracy in source.rater_accuracies)
    assert len(set(source.rater_accuracies)) == 4
    partners = mistaken_for(source.class_names)
    assert votes(3, partners, (1.0, 0.0), (0.9, 0.5, 0.1, 0.5)).tolist() == [3, partners[3]]


def test_views_show_the_same_objects():
    source = Scenes(
        num_views=3, view_zoom=(0.8, 1.2), view_shift=0.1, view_backgrounds=True,
        features=("image", "views"), image_size=32,
    )  # fmt: skip
    views = source.views(5, source.scene(5))
    assert source[5]["views"].shape == (3, 32, 32, 3)
    assert len({view.objects for view in views}) == 1
    assert len({view.view for view in views}) == 3
    assert len({view.background for view in views}) == 3


def test_metadata_goes_with_the_class():
    def spread(strength: float) -> float:
        source = Scenes(metadata_strength=strength, shapes=("star", "circle"))
        places = [source.metadata(i, 0)[:2] for i in range(200)]
        assert np.abs(places).max() <= 1
        return float(np.std(places, axis=0).mean())

    assert spread(1.0) < 0.3 * spread(0.0)


def test_languages_are_translated_without_loss():
    source = Scenes(features=("caption_long",), num_objects=(1, 4))
    for language in (1, 2):
        for index in range(40):
            text = source[index]["caption_long"]
            foreign = translate(text, language)
            assert not set(text.replace(",", "").split()) & set(foreign.replace(",", "").split())
            assert translate(foreign, language, back=True) == text
            assert parse(translate(foreign, language, back=True)) == describe(
                source.scene(index), "long"
            )
    assert translate("a red star", 0) == "a red star"
    assert translate("a red star", 1) != translate("a red star", 2)
    with pytest.raises(ValueError, match="'zebra' is not a word"):
        translate("a red zebra", 1)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"label_noise": 2}, r"label_noise is 2, expected a number in \[0, 1\]"),
        ({"label_noise_kind": "odd"}, "label_noise_kind is 'odd', expected one of 'symmetric'"),
        ({"caption_noise_kind": "odd"}, "caption_noise_kind is 'odd', expected one of 'attribute'"),
        ({"duplicates": 1.0}, r"duplicates is 1.0, expected a number in \[0, 1\)"),
        ({"duplicate_kind": "twin"}, "duplicate_kind is 'twin'"),
        ({"num_raters": 0}, "num_raters is 0, expected a whole number >= 1"),
        ({"view_zoom": (0.0, 1.0)}, "view_zoom"),
    ],
)
def test_wrong_noise_is_refused_by_name(knobs, message):
    with pytest.raises(ValueError, match=message):
        Scenes(**knobs)
