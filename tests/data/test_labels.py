"""What a label's cell says, alike in folders, CSV, JSON, parquet and tar shards."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import png

from vision.data.columns import (
    ClassLabel,
    Group,
    Metadata,
    MultiLabel,
    Number,
    PartialLabels,
    SoftLabel,
)
from vision.data.descriptions import HierarchyText
from vision.data.labels import Vocabulary, is_unlabelled, label_form, label_text
from vision.data.source import DataError
from vision.data.sources.folder import Folder
from vision.data.sources.manifest import Manifest
from vision.data.sources.parquet import Parquet
from vision.data.sources.webdataset import WebDataset

KINDS = ("csv", "jsonl", "json", "parquet", "tar")


def source(tmp_path, kind: str, cells: list, column):
    """A table of labels; cells of CSV and tar are written as text, None as nothing."""
    texts = ["" if cell is None else str(cell) for cell in cells]
    path = str(tmp_path / f"t.{kind}")
    columns = {"label": column}
    if kind == "csv":
        lines = "".join(f'{i},"{text}"\n' for i, text in enumerate(texts))
        (tmp_path / "t.csv").write_text("id,label\n" + lines, encoding="utf-8")
    elif kind in ("json", "jsonl"):
        rows = [{"id": i, "label": cell} for i, cell in enumerate(cells)]
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
        (tmp_path / f"t.{kind}").write_text(text)
    elif kind == "parquet":
        pq.write_table(pa.table({"label": cells}), path)
        return Parquet(path, columns, image_column="")
    else:
        with tarfile.open(path, "w") as tar:
            for i, text in enumerate(texts):
                for name, data in ((f"{i}.png", png()), (f"{i}.cls", text.encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return WebDataset(path, {"label": type(column)(**{**vars(column), "column": "cls"})})
    return Manifest(path, columns, image_column="", key_column="")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_floats_are_whole_numbers_and_gaps_no_label(tmp_path, kind):
    numbers = [*(float(n) for n in range(12)), None]
    table = source(tmp_path, kind, numbers, ClassLabel(optional=True))
    assert table.info.class_names == tuple(map(str, range(12)))
    assert [int(label) for label in table.column("label")] == [*range(12), -1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("none", [-1, -1.0, None])
def test_no_label_is_unknown_or_refused_by_record(tmp_path, kind, none):
    if kind != "parquet" or none != -1:
        cells = [0, 1, none] if none is None or kind != "parquet" else [0.0, 1.0, none]
    else:
        cells = [0, 1, -1]
    table = source(tmp_path, kind, cells, ClassLabel(optional=True))
    assert table.info.class_names == ("0", "1")
    assert [int(label) for label in table.column("label")] == [0, 1, -1]
    table = source(tmp_path, kind, cells, ClassLabel())
    assert int(table[1]["label"]) == 1
    with pytest.raises(DataError, match=r"label .*(is missing|is '?-1).*give it"):
        table[2]


def test_one_and_one_point_zero_are_one_class(tmp_path):
    table = source(tmp_path, "csv", ["1", "1.0", "0", "0.", " 1 "], ClassLabel())
    assert table.info.class_names == ("0", "1")
    assert [int(label) for label in table.column("label")] == [1, 1, 0, 0, 1]


def test_a_class_that_is_called_so_keeps_its_name(tmp_path):
    column = ClassLabel(names=("-1", "1"))
    table = source(tmp_path, "csv", ["-1", "1", "-1.0"], column)
    assert [int(label) for label in table.column("label")] == [0, 1, 0]
    table = source(tmp_path, "csv", ["1.0", "2.5"], ClassLabel(names=("1.0", "2.5")))
    assert [int(label) for label in table.column("label")] == [0, 1]
    for names in (("1.0", "1.5", "2.0"), ("+1", "-1")):  # 1 is a name, and not the second class
        with pytest.raises(DataError, match="'1' differs from"):
            Vocabulary(names).index(1)


def test_negative_numbers_are_no_classes(tmp_path):
    with pytest.raises(DataError, match="class number -2 is negative"):
        _ = source(tmp_path, "csv", ["-2", "0", "1"], ClassLabel()).info


TWINS = [
    ("caf\u00e9", "cafe\u0301"),
    ("red fox", "red\u00a0fox"),
    ("red fox", "red\u2003fox"),
    ("red fox", "red  fox"),
    ("cat", "cat "),
    ("cat", "cat\u200b"),
    ("cat", "\ufeffcat"),
    ("cat", "c\u00adat"),
    ("cat", "Cat"),
    ("cat", "\uff43at"),
    ("heart", "heart\ufe0f"),
    ("t-shirt", "t\u2011shirt"),
    ("dog's", "dog\u2019s"),
    ("stra\u00dfe", "STRASSE"),
]


@pytest.mark.parametrize("pair", TWINS, ids=ascii)
def test_names_that_differ_only_in_form_are_refused(tmp_path, pair):
    for name in pair:
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(png())
    with pytest.raises(DataError, match=r"differs from .* only in"):
        _ = Folder(str(tmp_path / "images")).info
    for kind in ("csv", "jsonl", "parquet"):
        with pytest.raises(DataError, match=r"differs from .* only in .*make them one name"):
            _ = source(tmp_path, kind, list(pair), ClassLabel()).names("label")
        groups = source(tmp_path, kind, list(pair), Group())  # identifiers, not names
        assert set(groups.names("label")) == set(pair)
        assert sorted(int(x) for x in groups.column("label")) == [0, 1]
    with pytest.raises(ValueError, match="only in"):
        ClassLabel(names=pair)
    with pytest.raises(DataError, match=r"differs from .* only in .*mend it"):
        Vocabulary(pair[:1]).index(pair[1])


def test_forms_of_numbers_and_other_names():
    assert label_form("1") == label_form("1.0") == label_form("\uff11") == "1"
    assert label_form("m\u00b2") == label_form("m2")
    assert len({label_form(name) for name in ("cat", "cats", "c at", "c-at", "10", "1.5")}) == 6
    assert [label_text(x) for x in (2.0, np.float32(2), "2.0", " 3", "2.5", "a ")] == [
        *("2", "2", "2", "3", "2.5", "a ")
    ]
    assert all(is_unlabelled(x) for x in (None, "", " \u200b", "nan", float("nan"), -1, "-1.0"))
    assert not any(is_unlabelled(x) for x in (0, "0", "-10", False, "none"))


def test_zero_padded_numbers_are_names(tmp_path):
    table = source(tmp_path, "csv", ["01", "00", "10"], ClassLabel())
    assert table.info.class_names == ("00", "01", "10")


def test_a_folder_that_stands_for_no_label_is_refused(tmp_path):
    for name in ("0", "1", "-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(png())
    with pytest.raises(DataError, match="stands for no label; rename or remove it"):
        _ = Folder(str(tmp_path)).info


def hugging_face(path, labels: list, feature: dict, **more) -> str:
    content = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
    table = pa.table({"label": labels, **more})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(content)}), path)
    return str(path)


ANIMALS = {"names": ["dog", "cat", "ape"], "_type": "ClassLabel"}


def test_class_names_of_hugging_face_are_read(tmp_path):
    path = hugging_face(tmp_path / "a.parquet", [0, 1, 2, -1], ANIMALS)
    table = Parquet(path, {"label": ClassLabel(optional=True)}, image_column="")
    assert table.info.class_names == table.names("label") == ("dog", "cat", "ape")
    assert [int(label) for label in table.column("label")] == [0, 1, 2, -1]
    assert int(table[2]["label"]) == 2
    strict = Parquet(path, {"label": ClassLabel()}, image_column="")
    with pytest.raises(DataError, match=r"a.parquet\[3\]: label .*is missing"):
        strict[3]


def test_given_names_in_another_order_are_matched_by_name(tmp_path):
    path = hugging_face(tmp_path / "a.parquet", [0, 1, 2], ANIMALS)

    def labels(*names):
        table = Parquet(path, {"label": ClassLabel(names=names)}, image_column="")
        return [int(label) for label in table.column("label")]

    assert labels("ape", "cat", "dog") == [2, 1, 0]
    assert labels("ape", "bee", "cat", "dog") == [3, 2, 0]
    assert labels("Hund", "Katze", "Affe") == [0, 1, 2]
    assert labels("dog", "cat", "monkey") == [0, 1, 2]
    with pytest.raises(DataError, match="agree in part and in another order"):
        labels("cat", "dog", "monkey")
    assert labels("Dog", "Cat", "Ape") == [0, 1, 2]
    with pytest.raises(DataError, match=r"'dog' differs from 'Dog'|'cat' differs from 'Cat'"):
        labels("Cat", "Dog", "Ape")


def test_names_that_are_numbers_stay_in_the_files_order(tmp_path):
    digits = {"names": ["10", "2", "1"], "_type": "ClassLabel"}
    path = hugging_face(tmp_path / "a.parquet", [0, 1, 2, 1], digits)
    table = Parquet(path, {"label": ClassLabel()}, image_column="")
    assert table.info.class_names == ("10", "2", "1")
    assert [int(label) for label in table.column("label")] == [0, 1, 2, 1]


@pytest.mark.parametrize(
    "feature",
    [{"feature": ANIMALS, "_type": "Sequence"}, {"feature": ANIMALS, "_type": "List"}, [ANIMALS]],
)
def test_lists_of_hugging_face_labels(tmp_path, feature):
    path = hugging_face(tmp_path / "a.parquet", [[0, 2], [], [1]], feature)
    table = Parquet(path, {"label": MultiLabel()}, image_column="")
    assert table.names("label") == ("dog", "cat", "ape")
    assert np.stack(table.column("label")).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_faults_of_hugging_face_metadata(tmp_path):
    path = hugging_face(tmp_path / "a.parquet", [0, 3], ANIMALS)
    table = Parquet(path, {"label": ClassLabel()}, image_column="")
    with pytest.raises(DataError, match=r"a.parquet\[1\]: column 'label' is class 3, but .*only 3"):
        table[1]
    numbers = Parquet(path, {"label": Number()}, image_column="")
    assert [float(x) for x in numbers.column("label")] == [0, 3]
    other = {"names": ["cat", "dog", "ape"], "_type": "ClassLabel"}
    second = hugging_face(tmp_path / "b.parquet", [0], other)
    with pytest.raises(DataError, match=r"b.parquet: its metadata names the classes of column"):
        len(Parquet((path, second), {"label": ClassLabel()}, image_column=""))
    broken = pa.table({"label": [1, 0]}).replace_schema_metadata({"huggingface": "{"})
    pq.write_table(broken, tmp_path / "c.parquet")
    plain = Parquet(str(tmp_path / "c.parquet"), {"label": ClassLabel()}, image_column="")
    assert plain.info.class_names == ("0", "1")


def test_declared_names_that_are_no_names_of_classes_are_named(tmp_path):
    twins = {"names": ["A", "a"], "_type": "ClassLabel"}
    path = hugging_face(tmp_path / "a.parquet", [0, 1], twins)
    with pytest.raises(DataError, match=r"a.parquet: column 'label': .*declares.*only in case"):
        len(Parquet(path, {"label": ClassLabel()}, image_column="").info.class_names)
    # Identifiers may differ in case only, and be any numbers.
    for cells in (["7k", "7K", "7k"], [4, 9, 4]):
        table = pa.table({"owner": cells, "label": [0, 1, 0]})
        pq.write_table(table, tmp_path / "b.parquet")
        groups = Parquet(str(tmp_path / "b.parquet"), {"owner": Group()}, image_column="")
        assert len(groups.names("owner")) == 2
        numbers = [int(x) for x in groups.column("owner")]
        assert numbers[0] == numbers[2] != numbers[1]


def test_declared_names_hold_for_each_column_that_takes_names(tmp_path):
    """A second reader of the column, which takes no names, dropped them for the first."""
    path = hugging_face(tmp_path / "a.parquet", [2, 0, -1], ANIMALS)
    columns = {
        "label": ClassLabel(optional=True),
        "number": Number(column="label"),
        "_raw": Metadata(column="label"),
        "german": ClassLabel(names=("Hund", "Katze", "Affe"), column="label", optional=True),
    }
    table = Parquet(path, columns, image_column="")
    assert table.info.class_names == ("dog", "cat", "ape")
    for feature, expected in (
        ("label", [2, 0, -1]),
        ("number", [2, 0, -1]),
        ("_raw", [2, 0, -1]),
        ("german", [2, 0, -1]),
    ):
        assert [int(x) for x in table.column(feature)] == expected, feature
        assert [int(table[i][feature]) for i in range(3)] == expected, feature


@pytest.mark.parametrize("names", [("0", "1", "2"), ("cat", "dog"), ("5", "x"), ("-1", "nan")])
def test_whole_numbers_and_texts_take_a_short_way_to_the_same_index(names):
    vocabulary = Vocabulary(names)

    def index(cell):
        try:
            return vocabulary.index(cell)
        except DataError:
            return None

    for number in (-1, 0, 1, 2, 5, 7):
        assert index(number) == index(np.int64(number)) == index(float(number))
    assert [index(name) for name in names] == list(range(len(names)))


def test_a_class_that_is_given_twice_is_an_error(tmp_path):
    partial = PartialLabels(names=("cat", "dog"))
    soft = SoftLabel(names=("cat", "dog"))
    for column, cell in ((partial, {"cat": 1, "0": 0}), (soft, {"cat": 0.5, "0": 0.5})):
        with pytest.raises(DataError, match="'cat' is given twice"):
            source(tmp_path, "jsonl", [cell], column)[0]


def test_paths_of_a_hierarchy_end_in_padding_and_hold_whole_numbers(tmp_path):
    table = source(tmp_path, "jsonl", [[3, 7, -1], [3.0, 8], ["3", "7", "2"]], HierarchyText(3))
    assert [table[i]["label"].tolist() for i in range(3)] == [[0, 0, -1], [0, 1, -1], [0, 0, 0]]
    with pytest.raises(DataError, match="is missing"):
        source(tmp_path, "csv", ["a/b", "-1"], HierarchyText(2))[1]
