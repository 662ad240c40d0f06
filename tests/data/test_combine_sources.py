from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image
from table_files import png

from vision.config.specs import build, spec
from vision.data.all_records import feature_of, names_of
from vision.data.columns import ClassLabel, Group, Metadata, Number
from vision.data.ops.values import Decode
from vision.data.pipeline import TrainData
from vision.data.source import DataError, Source
from vision.data.sources.arrays import Arrays
from vision.data.sources.combine import Concat, Joined, Relabel, Subset
from vision.data.sources.folder import Folder
from vision.data.sources.manifest import Manifest
from vision.data.sources.splits import Chronological, GroupHash, Split, StratifiedSplit

NAMES = ("cat", "dog", "fox")


def animals(count: int = 12, name: str = "animals", names: tuple[str, ...] = NAMES) -> Arrays:
    labels = np.arange(count, dtype=np.int32) % len(names)
    return Arrays({"x": np.arange(count), "label": labels}, name, names)


def table(folder, rows: list[dict], name: str = "t.jsonl", **columns) -> Manifest:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Manifest(str(folder / name), columns, image_column="", key_column="id")


def made(constructor: Any, *args: Any, options: dict[str, Any]) -> Any:
    return constructor(*args, **options)


def xs(source: Source) -> list[int]:
    return [int(source[i]["x"]) for i in range(len(source))]


@pytest.mark.parametrize(
    "source",
    [
        Subset(animals(), indices=(5, 0, 7)),
        Split(animals(), "val", (("train", 0.5), ("val", 0.5))),
        Concat((animals(), animals(4, "more")), origin="origin"),
        Relabel(animals(), (("cat", "pet"), ("dog", "pet"), ("fox", "wild"))),
        Relabel(animals(), (("cat", "pet"), ("dog", "pet")), unmapped="drop"),
        Joined(animals(), Arrays({"age": np.arange(12)}, "animals")),
    ],
    ids=lambda s: type(s).__name__,
)
def test_source_contract(source: Any):
    assert isinstance(source, Source) is True
    assert len(source) == source.info.num_examples > 0
    again: Any = pickle.loads(pickle.dumps(source))
    keys = [source.key(i) for i in range(len(source))]
    assert keys == [again.key(i) for i in range(len(source))]
    assert len(set(keys)) == len(keys)
    for i in range(len(source)):
        assert source[i] == again[i]
        assert set(source[i]) == set(source.info.features)
    for feature in source.info.features:
        assert source.column(feature) == [source[i][feature] for i in range(len(source))]
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source[index]


def test_subset_by_position_key_and_file(tmp_path):
    assert xs(Subset(animals(), indices=(5, 0, 7))) == [5, 0, 7]
    assert xs(Subset(animals(), keys=("animals/3", "animals/1"))) == [3, 1]
    (tmp_path / "ids.txt").write_text("animals/2\n\nanimals/9\n")
    assert xs(Subset(animals(), keys_file=str(tmp_path / "ids.txt"))) == [2, 9]
    for options, message in (
        ({"indices": (12,)}, "no record 12 among 12"),
        ({"indices": (1, 1)}, "'animals/1' is given twice"),
        (
            {"keys": ("animals/3", "3")},
            r"1 of 2 names are not in animals, first \['3'\]",
        ),
        ({"keys_file": str(tmp_path / "none")}, "none: cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            len(made(Subset, animals(), options=options))
    for options in ({}, {"indices": (1,), "keys": ("a",)}):
        with pytest.raises(ValueError, match="give one of"):
            made(Subset, animals(), options=options)


def test_concat_keeps_order_and_refuses_other_classes():
    both = Concat((animals(5, "a"), animals(4, "b")), origin="from")
    assert xs(both) == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert [int(both[i]["from"]) for i in (4, 5)] == [0, 1]
    assert [both.key(i) for i in (4, 5)] == ["a/4", "b/0"]
    assert both.info.class_names == NAMES
    with pytest.raises(DataError, match=r"b and a have different classes \(\['fox', 'wolf'\]\)"):
        len(Concat((animals(5, "a"), animals(4, "b", ("cat", "dog", "wolf")))))
    with pytest.raises(DataError, match="in another order"):
        len(Concat((animals(5, "a"), animals(4, "b", NAMES[::-1]))))


def test_relabel_merges_drops_and_counts():
    pairs = (("cat", "pet"), ("dog", "pet"), ("fox", "wild"))
    merged = Relabel(animals(6), pairs, class_names=("wild", "pet"))
    assert merged.column("label") == [1, 1, 0, 1, 1, 0]
    assert merged.info.class_names == ("wild", "pet")
    dropped = Relabel(animals(6), (("cat", "c"), ("fox", "f")), unmapped="drop")
    assert xs(dropped) == [0, 2, 3, 5]
    assert dropped.column("label") == [0, 1, 0, 1]
    assert "2 records of other classes dropped" in dropped.info.features["label"]
    unknown = Arrays({"label": np.array([0, -1, 2])}, "u", NAMES)
    assert [int(Relabel(unknown, pairs)[i]["label"]) for i in range(3)] == [0, -1, 1]
    for mapping, message in (
        (pairs[:2], "leaves out 1 classes, first 'fox'"),
        ((*pairs, ("wolf", "wild")), "animals has no class 'wolf'"),
    ):
        with pytest.raises(DataError, match=message):
            len(Relabel(animals(), mapping))
    for mapping, options, message in (
        ((), {}, r"mapping is \(\), expected .*not empty"),
        ((*pairs, pairs[0]), {}, "'cat' occurs twice"),
        (pairs, {"class_names": ("pet",)}, "'wild' is not among class_names"),
        (pairs, {"unmapped": "x"}, "unmapped is 'x', expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            made(Relabel, animals(), mapping, options=options)


def test_a_folder_joined_with_a_table(tmp_path):
    for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(png())
    folder, prefix = Folder(str(tmp_path / "images")), f"{tmp_path}/images/"
    rows = [{"id": i, "age": a} for i, a in (("dog/0.png", 3), ("x", 9), ("cat/0.png", 1))]
    part = table(tmp_path, rows, age=Number())
    with pytest.raises(DataError, match=r"lacks 1 of 3 records, first 'cat/1.png'"):
        Joined(folder, part, prefix)[0]
    lenient = Joined(folder, part, prefix, missing="record")
    assert [lenient[i]["age"] for i in (0, 2)] == [1, 3]
    with pytest.raises(DataError, match=r"cat/1.png: t.jsonl has no such record"):
        lenient[1]
    whole = Joined(folder, table(tmp_path, [*rows, {"id": "cat/1.png", "age": 2}], age=Number()),
                   prefix)  # fmt: skip
    assert whole.column("age") == [1, 2, 3]
    assert whole[2].keys() == {"image", "label", "age"}
    assert whole.info.class_names == ("cat", "dog")
    with pytest.raises(DataError, match="lacks 3 of 3 records"):
        len(Joined(folder, part).column("age"))
    with pytest.raises(DataError, match="both have the feature 'label'"):
        Joined(folder, animals())[0]
    config = spec(
        TrainData,
        source=spec(
            Joined,
            source=spec(Folder, root=folder.root),
            sidecar=spec(Manifest, path=part.path, columns={"age": spec(Number)}, image_column="",
                         key_column="id"),
            prefix=prefix,
        ),
        batch_size=4,
        ops=[spec(Decode)],
    )  # fmt: skip
    with build(config).loader(seed=0) as loader:
        batch = next(loader)
    np.testing.assert_array_equal(batch["age"], np.array([1, 2, 3])[batch["_index"]])


THREE = (("train", 0.7), ("val", 0.2), ("test", 0.1))


def three(source: Source, rule: Any) -> list[set[str]]:
    parts = [Split(source, name, THREE, rule) for name, _ in THREE]
    return [{part.key(i) for i in range(len(part))} for part in parts]


@pytest.mark.parametrize(
    "rule", [StratifiedSplit(), StratifiedSplit(by=""), GroupHash("label"), Chronological("x")]
)
def test_parts_are_disjoint_complete_and_do_not_depend_on_order(rule):
    source = animals(90, names=tuple(map(str, range(30))))
    parts = three(source, rule)
    assert sum(map(len, parts)) == 90
    assert len(set.union(*parts)) == 90
    assert all(parts)
    shuffled = Subset(source, indices=tuple(np.random.default_rng(0).permutation(90).tolist()))
    assert three(shuffled, rule) == parts


def test_stratified_shares_hold_in_every_class_and_are_stable():
    source = animals(90)
    parts = [Split(source, name, THREE) for name, _ in THREE]
    counts = [np.bincount(part.column("label")).tolist() for part in parts]
    assert counts == [[21] * 3, [6] * 3, [3] * 3]
    more = three(animals(96), StratifiedSplit())
    assert len(three(source, StratifiedSplit())[0] - more[0]) <= 3
    assert three(source, StratifiedSplit(seed=1)) != three(source, StratifiedSplit())
    few = [Split(animals(9), name, THREE) for name, _ in THREE]
    assert [np.bincount(part.column("label")).tolist() for part in few] == [[1] * 3] * 3


def test_groups_stay_together_whatever_comes_later(tmp_path):
    def visits(patients: range) -> Manifest:
        rows = [{"id": f"{p}-{v}", "who": f"p{p}"} for p in patients for v in range(3)]
        return table(tmp_path, rows, f"{patients}.jsonl", group=Group(column="who"))

    def patients(parts: list[set[str]]) -> list[set[str]]:
        return [{key.split("-")[0] for key in part} for part in parts]

    first = patients(three(visits(range(20, 60)), GroupHash()))
    assert not first[0] & first[1]
    assert not first[0] & first[2]
    later = patients(three(visits(range(90)), GroupHash()))
    assert all(old <= new for old, new in zip(first, later, strict=True))
    both = Concat((visits(range(5)), visits(range(3, 9))))
    with pytest.raises(DataError, match="number 'group' differently"):
        three(both, GroupHash())


def test_chronological_splits_never_part_a_moment(tmp_path):
    days = ["2020-01-03", "2020-01-01", "2020-01-02", "2020-01-02", "2020-01-02", "2020-01-04"]
    rows = [{"id": str(i), "day": day} for i, day in enumerate(days)]
    source = table(tmp_path, rows, _day=Metadata("day"))
    halves = (("past", 0.5), ("future", 0.5))
    past = Split(source, "past", halves, Chronological("_day"))
    future = Split(source, "future", halves, Chronological("_day"))
    assert [past.key(i) for i in range(len(past))] == ["1", "2", "3", "4"]
    assert [future.key(i) for i in range(len(future))] == ["0", "5"]
    for day, message in ((None, "5: has no time"), ("soon", "5: 'soon' is not a time")):
        bad = table(tmp_path, [*rows[:5], {"id": "5", "day": day}], _day=Metadata("day"))
        with pytest.raises(DataError, match=message):
            len(Split(bad, "past", halves, Chronological("_day")))
    mixed = [*rows[:5], {"id": "5", "day": "2020-01-04T00:00:00+00:00"}]
    with pytest.raises(DataError, match="do not compare"):
        len(Split(table(tmp_path, mixed, _day=Metadata("day")), "past", halves,
                  Chronological("_day")))  # fmt: skip


def test_split_arguments_and_features_are_checked(tmp_path):
    for options, message in (
        ({"part": "dev"}, "part='dev'"),
        ({"parts": (("train", 0.5), ("val", 0.4))}, "sum to 1"),
        ({"parts": (("train", 0.5), ("train", 0.5))}, "each once"),
    ):
        with pytest.raises(ValueError, match=message):
            made(Split, animals(), options=options)
    with pytest.raises(DataError, match="no feature 'time' but x, label"):
        len(Split(animals(), rule=Chronological()))
    source = table(tmp_path, [{"id": "1", "label": "a"}], label=ClassLabel())
    with pytest.raises(DataError, match=r"t.jsonl has no feature 'y' but label"):
        feature_of(source, "y")
    with pytest.raises(DataError, match="no record falls into part 'val'"):
        len(Split(source, "val"))


def test_a_folder_and_a_table_of_the_same_classes_have_its_names(tmp_path):
    """A folder names no features: its classes are those of ``label``."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / "0.png")
    (tmp_path / "t.csv").write_text("image,label\nimages/cat/0.png,cat\nimages/dog/0.png,dog\n")
    folder = Folder(str(tmp_path / "images"))
    table = Manifest(str(tmp_path / "t.csv"), {"label": ClassLabel()})
    assert Concat((folder, table)).names("label") == ("cat", "dog")
    assert names_of(folder, "label") == ("cat", "dog")
    assert names_of(folder, "group") == ()
