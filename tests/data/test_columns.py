from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from table_files import from_rows, write

from vision.data import columns as typed
from vision.data.descriptions import Attributes, Captions, HierarchyText, Text
from vision.data.ops.geometry import CenterCrop
from vision.data.ops.values import Decode, Drop
from vision.data.pipeline import EvalData
from vision.data.regions import Boxes, Masks, polygon_mask, run_length_mask
from vision.data.source import DataError
from vision.data.sources.manifest import Manifest


def made(constructor: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls it without the type checker looking at the arguments."""
    return constructor(*args, **kwargs)


COLUMNS = {
    "label": typed.ClassLabel(),
    "tags": typed.MultiLabel(),
    "findings": typed.PartialLabels(),
    "soft": typed.SoftLabel(("a", "b", "c")),
    "age": typed.Number(low=0, high=120, optional=True),
    "pose": typed.Number((2, 2)),
    "grade": typed.ClassLabel(("low", "mid", "high"), ordered=True),
    "boxes": Boxes(3, order="xywh", names=("cat", "dog")),
    "masks": Masks(2),
    "captions": Captions(),
    "looks": Attributes({"colour": ("red", "blue"), "size": ("big", "small")}),
    "tree": HierarchyText(3),
    "patient": typed.Group(),
    "_meta": typed.Metadata("meta"),
}
ROWS: tuple[dict, ...] = (
    {
        "label": "x",
        "tags": ["q", "p"],
        "findings": {"flu": 1, "burn": 0},
        "soft": [0.5, 0.25, 0.25],
        "age": 31,
        "pose": [[1, 2], [3, 4]],
        "grade": "mid",
        "boxes": [
            {"bbox": [1, 0, 2, 3], "category": "dog"},
            {"box": [0, 0, 6, 4], "label": "cat"},
        ],
        "masks": [[[0, 0, 2, 0, 2, 2, 0, 2]], {"size": [4, 6], "counts": [20, 4]}],
        "captions": ["a dog", "two dogs"],
        "looks": {"size": "small"},
        "tree": "animal/dog/poodle",
        "patient": "p7",
        "meta": {"camera": "k"},
    },
    {
        "label": "y",
        "tags": "[]",
        "findings": {"flu": None, "rash": -1},
        "soft": {"c": 1},
        "pose": [[0, 0], [0, 0.5]],
        "grade": "high",
        "boxes": [],
        "captions": "a cat, asleep",
        "looks": "colour=blue|size=big",
        "tree": ["animal", "cat"],
        "patient": "p1",
    },
)


def test_every_column_type(tmp_path):
    source = from_rows(tmp_path, COLUMNS, *ROWS)
    first, second = source[0], source[1]
    described = source.info.features
    assert set(first) == set(second) == set(described)
    for name in described:
        if name not in ("image", "captions", "_meta"):
            one, two = np.asarray(first[name]), np.asarray(second[name])
            assert (one.shape, one.dtype) == (two.shape, two.dtype), name
            assert described[name].startswith(one.dtype.name), name
    assert source.names("tags") == ("p", "q")
    expected = {
        "tags": ([1, 1], [0, 0]),
        "findings": ([0, 1, 0], [0, 0, 0]),
        "findings_known": ([True, True, False], [False] * 3),
        "soft": ([0.5, 0.25, 0.25], [0, 0, 1]),
        "age": (31, 0),
        "age_known": (True, False),
        "pose": ([[1, 2], [3, 4]], [[0, 0], [0, 0.5]]),
        "grade": (1, 2),
        "boxes": ([[0, 1, 3, 3], [0, 0, 4, 6], [0] * 4], np.zeros((3, 4))),
        "valid": ([True, True, False], [False] * 3),
        "boxes_label": ([1, 0, -1], [-1] * 3),
        "masks_valid": ([True, True], [False, False]),
        "looks": ([-1, 1], [1, 0]),
        "tree": ([0, 1, 0], [0, 0, -1]),
        "patient": (1, 0),
    }
    for name, values in expected.items():
        for example, value in zip((first, second), values, strict=True):
            np.testing.assert_array_equal(example[name], value, err_msg=name)
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :2, :2] = True
    masks[1, :, 5] = True
    np.testing.assert_array_equal(first["masks"], masks)
    assert not second["masks"].any()
    assert (first["captions"], second["captions"]) == (("a dog", "two dogs"), ("a cat, asleep",))
    assert (first["_meta"], second["_meta"]) == ({"camera": "k"}, None)
    with EvalData(source, 2, (Decode(), Drop(("captions",)))).loader() as loader:
        batch = next(loader)
    assert batch["masks"].shape == (2, 2, 4, 6)
    assert batch["boxes"].shape == (2, 3, 4)


def test_lists_and_mappings_in_csv(tmp_path):
    text = (
        "image,tags,findings,soft,boxes,flu,rash\n"
        '0.png,p|q,flu=1|rash=0,0.5|0.5,"[[0, 0, 2, 2]]",1,\n'
        '1.png,[],,"{""b"": 1}",[],-1,0\n'
    )
    source = Manifest(
        write(tmp_path, text),
        {
            "tags": typed.MultiLabel(),
            "findings": typed.PartialLabels(),
            "soft": typed.SoftLabel(("a", "b")),
            "boxes": Boxes(1),
            "marks": typed.PartialLabels(("flu", "rash"), wide=True),
        },
    )
    first, second = source[0], source[1]
    np.testing.assert_array_equal([first["tags"], second["tags"]], [[1, 1], [0, 0]])
    assert first["findings_known"].all()
    assert not second["findings_known"].any()
    np.testing.assert_array_equal([first["soft"], second["soft"]], [[0.5, 0.5], [0, 1]])
    np.testing.assert_array_equal(first["boxes"], [[0, 0, 2, 2]])
    np.testing.assert_array_equal(first["marks_known"], [True, False])
    np.testing.assert_array_equal(second["marks_known"], [False, True])
    np.testing.assert_array_equal(second["marks"], [0, 0])


BAD_CELLS = [
    (typed.ClassLabel(("a", "b")), float("nan"), "is missing"),
    (typed.ClassLabel(("cat", "dog")), "Dog", "'Dog' differs from 'dog' only in case"),
    (typed.ClassLabel(("cat", "dog")), "dgo", "did you mean 'dog'"),
    (typed.ClassLabel(("cat", "dog")), ["cat"], "is not a text"),
    (typed.MultiLabel(("a",)), None, "is missing; write"),
    (typed.MultiLabel(("a",)), ["b"], "'b' is none of"),
    (typed.PartialLabels(("a",)), {"a": 2}, "'a' is 2; it is 1, 0, or -1"),
    (typed.PartialLabels(("a",)), "a", "not of the form a=1"),
    (typed.PartialLabels(("a",)), "a=1|a=0", "names something twice"),
    (typed.SoftLabel(("a", "b")), [0.5, 0.6], "is no distribution: its sum is 1.1"),
    (typed.SoftLabel(("a", "b")), [1.5, -0.5], "is no distribution"),
    (typed.SoftLabel(("a", "b")), [1], "has 1 probabilities for 2"),
    (typed.SoftLabel(("a", "b")), [float("nan"), 1], "not finite"),
    (typed.Number(), None, "is missing"),
    (typed.Number(), "1_000", "is not a number"),
    (typed.Number(), True, "is not a number"),
    (typed.Number(), "inf", "is not a number"),
    (typed.Number(), 10**400, "is not finite"),
    (typed.Number(low=0), -1, "is less than 0"),
    (typed.Number(high=1), "1.5", "is more than 1"),
    (typed.Number((2,)), [1], r"has shape \[1\], not \[2\]"),
    (typed.Number((2, 2)), [[1], [1, 2]], "is a ragged list"),
    (Captions(), [], "holds no caption"),
    (Captions(), [1.5, {}], "is not a text"),
    (Text(), "", "is missing"),
    (typed.Group(), None, "every record needs a group"),
    (HierarchyText(1), "a/b", "is deeper than levels=1"),
    (HierarchyText(3), "a//b", "has an empty name"),
    (Attributes({"hue": ("red",)}), {"size": "big"}, "'size' is none of the attributes"),
    (Attributes({"hue": ("red",)}), {"hue": "Red"}, "only in case"),
    (Boxes(1), [[0, 0, 7, 4]], "reaches outside the image of 4 x 6 pixels"),
    (Boxes(1), [[-1, 0, 3, 3]], "reaches outside"),
    (Boxes(1, outside="clip"), [[7, 5, 9, 9]], "lies wholly outside"),
    (Boxes(1), [[3, 3, 3, 4]], "has no area"),
    (Boxes(1), [[3, 3, 1, 4]], "has no area; is order='xyxy' right"),
    (Boxes(1), [[0, 0, 1, 1], [0, 0, 2, 2]], "holds 2, more than max_boxes=1"),
    (Boxes(1), [[0, 0, 1]], "is not a box of four numbers"),
    (Boxes(1), [[0, 0, float("nan"), 1]], "not finite"),
    (Boxes(1, names=("a",)), [[0, 0, 1, 1]], "is missing"),
    (Boxes(1, unit="shares"), [[0, 0, 1.2, 1]], "reaches outside"),
    (Masks(1), [{"size": [4, 6], "counts": [25]}], "sum to 25, not to 4 x 6"),
    (Masks(1), [{"size": [4, 6], "counts": [30, -6]}], "not to 4 x 6"),
    (Masks(1), [{"size": [6, 4], "counts": [24]}], "a mask is 6 x 4, its image 4 x 6"),
    (Masks(1), [{"size": [4, 6], "counts": "P"}], "ends in the middle"),
    (Masks(1), [[[0, 0, 1, 1]]], "is not a polygon"),
    (Masks(1), [[[10, 10, 20, 10, 20, 20]]], "has no pixel inside"),
    (Masks(1), [[[0, 0, 4, 0, 4, 4]], [[0, 0, 4, 0, 4, 4]]], "more than max_masks=1"),
]


@pytest.mark.parametrize(("column", "cell", "message"), BAD_CELLS)
def test_bad_cells_are_refused_with_file_line_and_column(tmp_path, column, cell, message):
    good = {"x": "a"} if isinstance(column, HierarchyText | typed.Group) else {}
    source = from_rows(tmp_path, {"x": column}, {**good, "y": 1}, {"x": cell})
    with pytest.raises(DataError, match=message) as error:
        source[1]
    assert "m.jsonl:2: x (column 'x')" in str(error.value)


def test_boxes_in_every_order_clipped_and_on_a_turned_image(tmp_path):
    same = {
        "yxyx": [1, 2, 3, 5],
        "xyxy": [2, 1, 5, 3],
        "xywh": [2, 1, 3, 2],
        "cxcywh": [3.5, 2, 3, 2],
    }
    for order, numbers in same.items():
        source = from_rows(tmp_path, {"b": made(Boxes, 1, order=order)}, {"b": [numbers]})
        np.testing.assert_array_equal(source[0]["b"], [[1, 2, 3, 5]])
    shares = from_rows(tmp_path, {"b": Boxes(1, unit="shares")}, {"b": [[0.5, 0.25, 1, 1]]})
    np.testing.assert_array_equal(shares[0]["b"], [[1, 3, 4, 6]])
    clipped = from_rows(tmp_path, {"b": Boxes(1, outside="clip")}, {"b": [[-3, 2, 99, 99]]})
    np.testing.assert_array_equal(clipped[0]["b"], [[2, 0, 4, 6]])
    rounded = from_rows(tmp_path, {"b": Boxes(1)}, {"b": [[-0.4, 0, 6.4, 4]]})
    np.testing.assert_array_equal(rounded[0]["b"], [[0, 0, 4, 6]])
    tall = from_rows(tmp_path, {"b": Boxes(1)}, {"b": [[0, 0, 4, 6]]})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "0.png", exif=exif)
    np.testing.assert_array_equal(tall[0]["b"], [[0, 0, 6, 4]])


def test_a_table_without_images_takes_its_sizes_from_columns(tmp_path):
    rows = {"b": [[0, 0, 4, 4]], "height": 4, "width": 5}
    source = from_rows(tmp_path, {"b": Boxes(1)}, rows, image_column="")
    assert set(source[0]) == {"b", "valid"}
    assert source.key(0).endswith("m.jsonl:1")
    bare = from_rows(tmp_path, {"b": Boxes(1)}, {"b": [[0, 0, 4, 4]]}, image_column="")
    with pytest.raises(DataError, match="needs the image's size"):
        bare[0]
    huge = {"m": [[0, 0, 4, 4, 4, 0]]} | {"height": 10**6, "width": 10**6}
    with pytest.raises(DataError, match="1000000 x 1000000 pixels"):
        from_rows(tmp_path, {"m": Masks(1)}, huge, image_column="")[0]


def test_boxes_and_masks_follow_the_image(tmp_path):
    rows = {"boxes": [[0, 0, 2, 2], [3, 1, 6, 4]], "masks": [[[0, 0, 2, 0, 2, 2, 0, 2]]]}
    source = from_rows(tmp_path, {"boxes": Boxes(3), "masks": Masks(1)}, rows)
    with EvalData(source, 1, (Decode(), CenterCrop(4))).loader() as loader:
        batch = next(loader)
    np.testing.assert_array_equal(batch["boxes"][0], [[0, 0, 2, 1], [1, 2, 4, 4], [0] * 4])
    assert batch["valid"].tolist() == [[True, True, False]]
    assert np.argwhere(batch["masks"][0, 0]).tolist() == [[0, 0], [1, 0]]


def test_polygons_cover_the_pixels_whose_centres_they_contain():
    star = np.array([[5, 0], [8, 9.5], [0.3, 3.4], [9.7, 3.4], [2, 9.5]])
    mask = polygon_mask(star, 10, 12)
    from skimage.measure import points_in_poly

    y, x = np.mgrid[:10, :12] + 0.5
    # A pentagram's middle is inside by winding number but not by the even-odd rule.
    centres = np.stack([x.ravel(), y.ravel()], 1)
    np.testing.assert_array_equal(mask, points_in_poly(centres, star).reshape(10, 12))
    assert not mask[5, 5]
    assert mask.any()


def compress(lengths: list[int]) -> str:
    """COCO's text form, written from its definition."""
    text = ""
    for i, length in enumerate(lengths):
        value = length - (lengths[i - 2] if i > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + (bits if done else bits | 32))
            if done:
                break
    return text


def test_run_lengths_compressed_and_not():
    rng = np.random.default_rng(0)
    for shape in ((7, 5), (40, 61)):
        mask = rng.random(shape) < 0.2
        mask[2:, 1:3] = True
        flat = mask.T.ravel().astype(np.int8)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
        lengths = np.diff(np.concatenate([[0], edges])).tolist()
        np.testing.assert_array_equal(run_length_mask(lengths, *shape), mask)
        np.testing.assert_array_equal(run_length_mask(compress(lengths), *shape), mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Manifest("m.txt", {}), r"must end in \.csv"),
        (lambda: Manifest("m.csv", {}, part="train"), "set both or neither"),
        (lambda: Manifest("m.csv", {"image": Text()}), "'image' is made by the source"),
        (
            lambda: Manifest("m.csv", {"b": Boxes(1), "valid": typed.Number()}),
            r"columns\['valid'\]: 'valid' is made by columns\['b'\]",
        ),
        (lambda: made(Manifest, "m.csv", {"x": "label"}), "is not a column type"),
        (lambda: typed.ClassLabel(("a", "A")), "differs from 'a'"),
        (lambda: typed.ClassLabel(("a", "a")), "occurs twice"),
        (lambda: typed.ClassLabel(ordered=True), "give the levels"),
        (lambda: typed.SoftLabel(()), r"names is \(\), .*not empty"),
        (lambda: typed.PartialLabels(wide=True), "wide=True needs"),
        (lambda: Boxes(0), "max_boxes is 0"),
        (lambda: made(Boxes, 1, order="zz"), "order is 'zz', expected one of"),
        (lambda: Boxes(1, label_column="x"), "names=()"),
        (lambda: HierarchyText(2, nodes=(("a",),)), "nodes has 1 levels"),
    ],
)
def test_arguments_are_checked(call, message):
    with pytest.raises(ValueError, match=message):
        call()
