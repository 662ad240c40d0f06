from __future__ import annotations

import json
import os
import pickle

import fsspec
import numpy as np
import pytest
from table_files import from_rows, png, write

from vision.config.specs import build, spec
from vision.data import columns as typed
from vision.data.ops.values import Decode
from vision.data.pipeline import EvalData
from vision.data.source import DataError, Source
from vision.data.sources.manifest import Manifest

ONE = {"label": typed.ClassLabel()}
CSV = 'image,label,note\n0.png,dog,"two\nlines"\n1.png,cat,\n\n2.png,dog,x\n'


def test_the_same_table_in_every_kind(tmp_path):
    rows = [{"image": f"{i}.png", "label": c} for i, c in enumerate(("dog", "cat", "dog"))]
    texts = {
        "m.csv": CSV,
        "m.tsv": CSV.replace(",", "\t"),
        "m.jsonl": "\ufeff" + "\n\n".join(map(json.dumps, rows)),
        "m.json": json.dumps(rows),
    }
    places = {"m.csv": ":5", "m.tsv": ":5", "m.jsonl": ":3", "m.json": "[1]"}
    for name, text in texts.items():
        source = Manifest(write(tmp_path, text, name), ONE)
        assert isinstance(source, Source)
        assert source.info.class_names == ("cat", "dog")
        assert source.info.num_examples == len(source) == 3
        assert [source.key(i) for i in range(3)] == ["0.png", "1.png", "2.png"]
        assert source.column("label") == [1, 0, 1]
        again = pickle.loads(pickle.dumps(source))
        assert again == source
        assert again[2] == {"image": png(value=2), "label": 1}
        assert again[2]["label"].dtype == np.int32
        line = Manifest(
            write(tmp_path, text.replace("cat", "bird"), name),
            {"label": typed.ClassLabel(names=("cat", "dog"))},
        )
        place = places[name] if name not in ("m.csv", "m.tsv") else ":4"
        with pytest.raises(DataError) as error:
            line[1]
        assert f"{name}{place}: label (column 'label') 'bird' is none of" in str(error.value)


def test_through_config_and_pipeline_with_a_bad_row(tmp_path):
    path = write(tmp_path, "image,label\n0.png,b\n1.png,nan\ngone.png,a\n2.png,a\n")
    config = spec(
        EvalData,
        source=spec(Manifest, path=path, columns={"label": spec(typed.ClassLabel)}),
        batch_size=4,
        ops=[spec(Decode)],
        on_error="mask",
    )
    with build(config).loader() as loader:
        batch = next(loader)
        bad = loader.take_bad()
    assert batch["_mask"].tolist() == [True, False, False, True]
    assert batch["label"].tolist() == [1, 0, 0, 0]
    assert batch["image"][3].max() == 2
    assert [record.key for record in bad] == ["1.png", "gone.png"]
    assert "m.csv:3: label (column 'label') is missing" in bad[0].reason
    assert "m.csv:4" in bad[1].reason
    assert "gone.png: cannot be read: No such file" in bad[1].reason


def test_numbered_and_given_classes(tmp_path):
    def source(cells, **options):
        text = "image,label\n" + "".join(f"{i}.png,{c}\n" for i, c in enumerate(cells))
        column = typed.ClassLabel(**options)
        return Manifest(write(tmp_path, text, images=len(cells)), {"label": column})

    numbered = source([10, 2, *range(10)])
    assert numbered.info.class_names == tuple(map(str, range(11)))
    assert numbered.column("label")[:2] == [10, 2]
    assert source(["01", "1"]).info.class_names == ("01", "1")  # not numbers: texts
    with pytest.raises(DataError, match=r"m.csv:3: class numbers go up to 5, but there is no 1"):
        len(source([0, 5]))
    given = source(["1", "dog", "0.5"], names=("dog", "cat"))
    assert [int(given[i]["label"]) for i in range(2)] == [1, 0]
    with pytest.raises(DataError, match=r"m.csv:4: .*'0.5' is none of the 2 names"):
        given.column("label")
    with pytest.raises(DataError, match="class 2 of only 2"):
        source(["2"], names=("dog", "cat")).column("label")
    assert source(["high", "low"], names=("low", "mid", "high"), ordered=True).column("label") == [
        2,
        0,
    ]
    assert source(["", "a"], optional=True).column("label") == [-1, 0]
    assert source(["nan", "pita"], names=("nan", "pita")).column("label") == [0, 1]


def test_parts_share_their_classes(tmp_path):
    text = "image,label,split\n0.png,a,train\n1.png,b,val\n2.png,c,train\n"
    path = write(tmp_path, text)
    train, val = (Manifest(path, ONE, part_column="split", part=p) for p in ("train", "val"))
    assert train.info.class_names == val.info.class_names == ("a", "b", "c")
    assert (len(train), len(val)) == (2, 1)
    assert (val.key(0), int(val[0]["label"])) == ("1.png", 1)
    assert train.info.name == "m.csv/train"
    with pytest.raises(DataError, match=r"no row has split='test' but 'train', 'val'"):
        len(Manifest(path, ONE, part_column="split", part="test"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n", "m.csv: the table has no rows"),
        ("", "m.csv: the table has no rows"),
        ("image,class\n0.png,a\n", "m.csv: no column 'label'; it has 'image', 'class'"),
        ("image,label,label\n0.png,a,b\n", "m.csv:1: two columns 'label'"),
        ("image,label\n0.png,a\n1.png\n", "m.csv:3: 1 cells under 2 columns"),
        ("image,label\n0.png,a,b\n", "m.csv:2: 3 cells under 2 columns"),
        ("image,label\n0.png,a\n0.png,b\n", r"m.csv:3: '0.png' is in .*m.csv:2 already"),
        ("image,label\n0.png,a\n,b\n", "m.csv:3: column 'image' is empty"),
        ("image,label\n0.png,Cat\n1.png,x\n2.png,cat\n", r"m.csv:4: 'cat' differs from 'Cat' \("),
        ("image,label\n0.png,cat \n1.png,cat\n", "only in case or spaces"),
        ("image,label\n0.png,\n1.png,nan\n", "column 'label' of 'label' holds no value at all"),
        ('image,label\n0.png,"a\n', "m.csv:2: unexpected end of data"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        len(Manifest(write(tmp_path, text), ONE))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.csv", b"image,label\n0.png,\xff\n", "m.csv:2: is not UTF-8"),
        ("m.jsonl", b'{"image": "0.png", "label": "a"}\n{"image"\n', "m.jsonl:2: is not JSON"),
        ("m.jsonl", b'{"image": "0.png", "image": "1.png"}\n', "m.jsonl:1: .*twice in one object"),
        ("m.jsonl", b"[1]\n", "m.jsonl:1: is not a JSON object"),
        ("m.jsonl", b"[" * 100_000, "m.jsonl:1: is JSON nested too deeply"),
        ("m.json", b'{"image": 1}', "m.json: is not a JSON list"),
        ("m.json", b"[1]", r"m.json\[0\]: is not a JSON object"),
    ],
)
def test_bad_bytes_are_refused_with_file_and_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        len(Manifest(str(tmp_path / name), ONE))
    with pytest.raises(DataError, match=r"none.csv: cannot be read: No such file"):
        len(Manifest(str(tmp_path / "none.csv"), ONE))


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../secret.png", "..", "C:\\x", "http://x/y"]
)
def test_paths_that_leave_the_root_are_refused(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in").mkdir()
    source = from_rows(tmp_path / "in", ONE, {"label": "a"}, {"image": path, "label": "a"})
    assert source[0]["image"]
    with pytest.raises(DataError, match=r"m.jsonl:2: .*(not a path below|drive letter)"):
        source[1]


def test_links_are_followed_inside_the_root_only(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in").mkdir()
    source = from_rows(tmp_path / "in", ONE, *({"label": "a"} for _ in range(3)))
    for name, target in (("1.png", "0.png"), ("2.png", tmp_path / "secret.png")):
        (tmp_path / "in" / name).unlink()
        os.symlink(target, tmp_path / "in" / name)
    assert source[1]["image"] == source[0]["image"]
    with pytest.raises(DataError, match=r"m.jsonl:3: .*2.png: leads to .*secret.png, outside"):
        source[2]


def test_a_manifest_and_its_images_in_an_fsspec_store():
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/set/a/0.png", png(value=7))
    store.pipe("/bucket/set/m.csv", b"image,label\na/0.png,x\na/1.png,y\n../up.png,y\n")
    store.pipe("/bucket/up.png", png())
    source = Manifest("memory://bucket/set/m.csv", ONE)
    assert source[0]["image"] == png(value=7)
    with pytest.raises(DataError, match=r"memory://bucket/set/a/1.png: cannot be read"):
        source[1]
    with pytest.raises(DataError, match="not a path below memory://bucket/set"):
        source[2]
    with pytest.raises(DataError, match=r"nosuchstore://m.csv: .*nosuchstore"):
        len(Manifest("nosuchstore://m.csv", ONE))
