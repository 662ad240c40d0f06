"""Texts that begin with a bracket are texts, unless all of one is a JSON list of texts."""

from __future__ import annotations

import csv
import io
import json
import tarfile

import pytest
from table_files import png

from vision.data.columns import MultiLabel
from vision.data.descriptions import Captions
from vision.data.source import DataError
from vision.data.sources.manifest import Manifest
from vision.data.sources.webdataset import WebDataset


def table(tmp_path, texts, **captions) -> Manifest:
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "captions"])
        for i, text in enumerate(texts):
            (tmp_path / f"{i}.png").write_bytes(png(value=i))
            writer.writerow([f"{i}.png", text])
    return Manifest(str(tmp_path / "t.csv"), {"captions": Captions(**captions)})


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("[OC] my cat", ("[OC] my cat",)),
        ("[2021]", ("[2021]",)),
        ("[1, 2] go", ("[1, 2] go",)),
        ("[1, 2]", ("[1, 2]",)),
        ('["a", 2]', ('["a", 2]',)),
        ('[["a"], ["b"]]', ('[["a"], ["b"]]',)),
        ("[", ("[",)),
        ("['tis the season]", ("['tis the season]",)),
        ("[it's] [John's]", ("[it's] [John's]",)),
        ('["a cat", "two cats"]', ("a cat", "two cats")),
        (' ["a cat"] ', ("a cat",)),
        ("{a} b", ("{a} b",)),
    ],
)
def test_only_a_json_list_of_texts_is_a_list(tmp_path, text, captions):
    assert table(tmp_path, [text])[0]["captions"] == captions


def test_a_separator_parts_texts_in_brackets(tmp_path):
    source = table(tmp_path, ["[OC] a cat|[2021] a dog", '["x|y", "z"]'], separator="|")
    assert source[0]["captions"] == ("[OC] a cat", "[2021] a dog")
    assert source[1]["captions"] == ("x|y", "z")


@pytest.mark.parametrize("text", ["['a', 'b']", "['it is', \"John's\"]", "['a', nan]", "['a' 'b']"])
def test_a_list_that_python_printed_is_refused_with_line_and_remedy(tmp_path, text):
    source = table(tmp_path, ["a cat", text])
    assert source[0]["captions"] == ("a cat",)
    with pytest.raises(DataError, match=r"t.csv:3: captions .*write it as JSON.*json.dumps"):
        source[1]


def test_labels_that_python_printed_are_refused_too(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "t.csv").write_text("image,tags\n0.png,\"['red', 'blue']\"\n")
    source = Manifest(str(tmp_path / "t.csv"), {"tags": MultiLabel()})
    with pytest.raises(DataError, match="write it as JSON"):
        _ = source.info


def test_captions_of_json_lines_and_shards(tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    line = {"image": "0.png", "captions": "[OC] my cat"}
    (tmp_path / "t.jsonl").write_text(json.dumps(line) + "\n")
    source = Manifest(str(tmp_path / "t.jsonl"), {"captions": Captions()})
    assert source[0]["captions"] == ("[OC] my cat",)
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("0.png", png()), ("0.txt", b"[2021]\n")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    shard = WebDataset(str(tmp_path / "t.tar"), {"caption": Captions(column="txt")})
    assert shard[0]["caption"] == ("[2021]",)
