"""Emoji: what is packed, which drawings are where, what the features say."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest

from vision.data.source import DataError, Source
from vision.data.sources.emoji import (
    FEATURES,
    GROUPS,
    HOUSES,
    LANGUAGES,
    TONES,
    Emoji,
    Placed,
    build,
    compose,
    index,
    names,
    packed,
    pixels,
    unseen_families,
)

EVERYTHING = Emoji(
    num_examples=20,
    image_size=(40, 48),
    features=tuple(FEATURES),
    num_objects=(1, 4),
    overlap=0.6,
    rotation_deg=40,
    clutter=2,
    tones=TONES,
    languages=("en", "de", "ja"),
)


def test_the_packed_file_is_the_one_that_was_built():
    data = packed.PATH.read_bytes()
    assert hashlib.sha256(data).hexdigest() == packed.SHA256
    assert len(data) <= 8_000_000
    with zipfile.ZipFile(packed.PATH) as archive:
        made = json.loads(archive.read("made_from.json"))
        assert made["packages"] == dict(build.PACKAGES.values())
        digests = made["sha256"]
        assert set(archive.namelist()) == {*digests, "made_from.json"}
        for name, digest in digests.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest, name
        # The licences travel with the drawings, also where only the archive is passed on.
        beside = packed.PATH.with_name("LICENSE.emoji.md").read_bytes()
        assert archive.read("LICENSE.emoji.md") == beside
    assert len(index().emoji) == 1911
    drawn = [sum(d.house == h and not d.tone for d in index().drawings) for h in range(3)]
    assert drawn == [1911, 1911, 1852]


def test_a_missing_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    with pytest.raises(DataError, match=r"noto/99.webp.*emoji\.build"):
        packed.read("noto/99.webp")
    monkeypatch.setattr(packed, "PATH", tmp_path / "emoji.zip")
    with pytest.raises(DataError, match="check the file out again"):
        packed.read("index.json")


def test_features_have_the_described_shape_and_type():
    described = EVERYTHING.info.features
    assert isinstance(EVERYTHING, Source)
    assert tuple(described) == tuple(FEATURES)
    for i in range(len(EVERYTHING)):
        example = EVERYTHING[i]
        for name, text in described.items():
            value = example[name]
            if "string" in text:
                texts = (value,) if isinstance(value, str) else value
                assert all(isinstance(each, str) and each for each in texts), name
                assert isinstance(value, str) == text.startswith("string")
                continue
            kind, _, rest = text.partition(",") if "[" not in text else text.partition("[")
            assert value.dtype == kind, name
            shape = tuple(int(n) for n in rest.partition("]")[0].split(",")) if "[" in text else ()
            assert value.shape == shape, name


def test_features_agree_with_one_another():
    covered = 0
    for i in range(len(EVERYTHING)):
        example, placed = EVERYTHING[i], EVERYTHING.placed(i)
        count = len(placed)
        assert example["valid"].tolist() == [True] * count + [False] * (4 - count)
        drawing, sign = placed[0].drawing, index().emoji[placed[0].drawing.emoji]
        assert (example["drawing"] == pixels(drawing)).all()
        assert example["hierarchy"].tolist() == [sign.group, sign.subgroup, drawing.emoji]
        assert (example["house"], example["tone"]) == (drawing.house, drawing.tone)
        assert EVERYTHING.class_names[example["label"]] == names("en")[drawing.emoji][0]
        assert example["objects"][0] == example["label"]
        assert (example["objects"][count:] == -1).all()
        language = EVERYTHING.languages[example["language"]]
        said = [names(language)[thing.drawing.emoji][0] for thing in placed]
        assert example["caption"] == ", ".join(said)
        assert example["names"][example["language"]] == said[0]
        assert example["masks"].sum(0).max() == 1
        for k, mask in enumerate(example["masks"]):
            ys, xs = mask.nonzero()
            box = example["boxes"][k].tolist()
            if not len(ys):
                assert box == [0, 0, 0, 0]
                continue
            assert box == [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
            assert (example["instances"][mask] == k + 1).all()
            group = index().emoji[placed[k].drawing.emoji].group
            assert (example["segmentation"][mask] == group + 1).all()
            covered += example["visible"][k] < 1
    assert covered > 3  # some lie over others


def test_masks_are_those_of_the_pixels_that_change():
    """Where a drawing is opaque the picture shows it, whatever the ground; elsewhere the ground."""
    source = Emoji(num_examples=1)
    thing = Placed(source.subject(0), 0.5)
    stored = pixels(thing.drawing)
    pictures = []
    for ground in (source.ground(0), None):
        drawn = compose(ground, (thing,), (48, 48))
        assert (drawn.masks[0] == (stored[:, :, 3] >= 128)).all()
        solid, clear = stored[:, :, 3] == 255, stored[:, :, 3] == 0
        assert solid.any()
        assert clear.any()
        assert (drawn.image[solid] == stored[:, :, :3][solid]).all()
        bare = compose(ground, (), (48, 48)).image
        assert (drawn.image[clear] == bare[clear]).all()
        pictures.append(drawn.image)
    assert (pictures[1][clear] == 255).all()
    assert (pictures[0][clear] != 255).any()


def test_a_drawing_may_reach_over_the_edge_or_lie_outside():
    drawing = Emoji().drawings[0]
    half = compose(None, (Placed(drawing, 0.5, y=0.0),), (48, 48))
    assert half.boxes[0][0] == 0
    assert half.areas_px[0] < (pixels(drawing)[:, :, 3] >= 128).sum()
    outside = compose(None, (Placed(drawing, 0.2, y=3.0),), (48, 48))
    assert not outside.instances.any()
    assert (outside.image == 255).all()


def test_every_aligned_run_has_every_drawing_once():
    source = Emoji(groups=("food-drink",), houses=("fluent", "noto"), num_examples=600)
    count = len(source.drawings)
    first = [source.subject(i) for i in range(count)]
    second = [source.subject(i) for i in range(count, 2 * count)]
    assert sorted(first, key=repr) == sorted(second, key=repr) == sorted(source.drawings, key=repr)
    assert first != second
    assert len(Emoji(groups=("food-drink",), houses=("fluent", "noto"))) == count


def test_held_out_emoji_and_houses_are_apart():
    for label in ("emoji", "subgroup", "group"):
        seen = Emoji(part="seen", houses=("noto", "twemoji"), label=label)
        unseen = Emoji(part="unseen", houses=("fluent",), label=label)
        assert seen.class_names == unseen.class_names  # one head serves both
    families = [{index().emoji[d.emoji].family for d in s.drawings} for s in (seen, unseen)]
    assert not families[0] & families[1]
    assert {d.house for d in seen.drawings} == {0, 1}
    assert {d.house for d in unseen.drawings} == {HOUSES.index("fluent")}
    assert 0.15 < len(unseen.drawings) / 1852 < 0.25
    assert unseen_families(0.1) < unseen_families(0.3)
    assert not unseen_families(0.0)


def test_near_duplicates_are_one_family():
    toned = Emoji(tones=TONES, groups=("people-body",), features=("family",), num_examples=400)
    codes: dict[int, set[str]] = {}
    for i in range(400):
        code = index().emoji[toned.subject(i).emoji].family
        codes.setdefault(int(toned[i]["family"]), set()).add(code)
    assert all(len(family) == 1 for family in codes.values())
    members: dict[str, set[tuple[str, int]]] = {}
    for drawing in toned.drawings:
        sign = index().emoji[drawing.emoji]
        members.setdefault(sign.family, set()).add((sign.code, drawing.tone))
    assert len({code for code, _ in members["1F3C3"]}) == 6  # who runs, and where to
    assert {tone for _, tone in members["1F3C3"]} == {0, 1, 2}
    cooks = {code for code, _ in members["1F9D1-200D-1F373"]}
    assert cooks == {f"{who}-200D-1F373" for who in ("1F9D1", "1F468", "1F469")}


@pytest.mark.parametrize(
    ("imbalance", "skew", "shares"),
    [
        ("none", 1.0, [1 / 3] * 3),
        ("zipf", 1.0, [6 / 11, 3 / 11, 2 / 11]),
        ("exponential", 4.0, [4 / 7, 2 / 7, 1 / 7]),
    ],
)
def test_classes_have_their_shares(imbalance: Any, skew: float, shares: list[float]):
    groups = ("flags", "food-drink", "activities")
    source = Emoji(label="group", groups=groups, imbalance=imbalance, skew=skew)
    assert source.class_names == groups
    np.testing.assert_allclose(source.class_shares, shares)
    counts = np.bincount([source.label_of(source.subject(i)) for i in range(500)], minlength=3)
    np.testing.assert_allclose(counts / 500, shares, atol=0.01)


def test_natural_shares_are_those_of_the_drawings():
    source = Emoji(label="house")
    assert source.class_names == HOUSES
    np.testing.assert_allclose(source.class_shares, np.array([1906, 1906, 1852]) / 5664)


def test_names_are_there_in_all_languages():
    for language in LANGUAGES:
        rows = names(language)
        assert len(rows) == 1911
        assert all(row and row[0] for row in rows)
    pizza = next(k for k, row in enumerate(names("en")) if row[0] == "pizza")
    assert names("fi")[pizza][0] == "pizza"
    assert names("ru")[pizza][0] == "пицца"
    assert set(GROUPS) >= set(Emoji().groups)


def test_a_source_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="no drawing is left"):
        Emoji(part="unseen", held_out=0.0).drawings  # noqa: B018
    with pytest.raises(ValueError, match="skew"):
        Emoji(imbalance="exponential", skew=0.5)
    with pytest.raises(ValueError, match="groups"):
        Emoji(groups=("food",))
    with pytest.raises(IndexError, match=r"0\.\.19, not 20"):
        EVERYTHING[20]


def test_pickles_and_names_its_content():
    again = pickle.loads(pickle.dumps(EVERYTHING))
    assert (again[7]["image"] == EVERYTHING[7]["image"]).all()
    assert again.fingerprint() == EVERYTHING.fingerprint() != Emoji().fingerprint()
    assert EVERYTHING.key(3) == "emoji/train/seed0/3"
    stacked = EVERYTHING.__getitems__(range(2))
    assert stacked["image"].shape == (2, 40, 48, 3)
    assert stacked["names"].shape == (2, 3)


def test_a_wrong_package_is_refused(tmp_path: Any):
    name, _ = build.PACKAGES["noto"]
    with pytest.raises(Exception, match="npm pack"):
        build.package(tmp_path / name, "0" * 64)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(Exception, match="SHA-256 is"):
        build.package(tmp_path / name, "0" * 64)
