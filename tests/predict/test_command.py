"""``python -m vision.predict``: its files, its exit status, and mistakes as one line."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from tests.predict.conftest import CLASSES, ROOT, call, jpeg, noise
from vision.predict.predictor import Predictor
from vision.predict.results import Predictions
from vision.predict.write import Write, embeddings_writer, writer


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_kind_of_file_says_the_same(
    run: Predictor,
    workdir: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    before = sorted(workdir.rglob("*"))
    given = (f"--workdir={workdir}", photos / "a b.jpg", photos, photos / "a b.jpg")
    for kind in ("csv", "jsonl", "parquet"):
        assert call(*given, f"--out={tmp_path}/p.{kind}", "--top=2") == 0
    said = capsys.readouterr()
    assert "preprocessing: ops of evaluator 'val': Decode, Resize(18), CenterCrop(16)" in said.out
    assert "3 files left out (1 hidden, 1 in @eaDir, 1 not images by their extension)" in said.out
    assert f"{photos}/broken.jpg: damaged" in said.err
    assert "7 images, 2 with an error in" in said.out
    assert "(0/s)" not in said.out
    names = ("a b.jpg", "a b.jpg", "broken.jpg", "grey.png")
    names += ("Ünter ordner/größe.png", "Ünter ordner/日本.PNG", "a b.jpg")
    expected = [str(photos / name) for name in names]
    rows = lines(tmp_path / "p.csv")
    assert [row["file"] for row in rows] == expected
    assert list(rows[0]) == [
        "file",
        *("class_1", "probability_1", "class_2", "probability_2", "error"),
    ]
    table = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    objects = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    direct = run.predict(expected, on_error="keep")
    for row, typed, one, own in zip(rows, table, objects, direct, strict=True):
        assert one["file"] == typed["file"] == row["file"] == own.file
        assert one["error"] == typed["error"] == (row["error"] or None)
        assert (own.error is None) == (one["error"] is None)
        top = own.top(2)
        assert list(one["probabilities"]) == list(top)
        assert [typed["class_1"], typed["class_2"]] == [*top, None, None][:2]
        assert [row["class_1"], row["class_2"]] == [*top, "", ""][:2]
        for k, value in enumerate(one["probabilities"].values(), 1):
            assert (
                typed[f"probability_{k}"]
                == np.float32(row[f"probability_{k}"])
                == np.float32(value)
            )
            assert value == pytest.approx(list(top.values())[k - 1], rel=1e-4)
    assert sorted(workdir.rglob("*")) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "my photos",
        *("p.csv", "p.jsonl", "p.parquet"),
    ]


def test_all_classes_and_embeddings(run: Predictor, workdir: Path, data: Path, tmp_path: Path):
    files = (f"--out={tmp_path}/p.csv", f"--embeddings={tmp_path}/e.npz")
    assert call(f"--workdir={workdir}", data / "crane", *files, "--top=all") == 0
    rows = lines(tmp_path / "p.csv")
    assert list(rows[0]) == ["file", *(f"probability/{name}" for name in CLASSES), "error"]
    said = run.predict(data / "crane")
    written = [[float(row[f"probability/{name}"]) for name in CLASSES] for row in rows]
    np.testing.assert_allclose(written, said.probabilities, rtol=1e-5)
    with np.load(tmp_path / "e.npz") as arrays:
        assert arrays["files"].tolist() == list(said.files) == [row["file"] for row in rows]
        assert arrays["errors"].tolist() == [""] * 10
        assert arrays["embeddings"].dtype == np.float32
        embedded = run.embed(data / "crane")
        np.testing.assert_allclose(arrays["embeddings"], embedded, rtol=1e-4, atol=1e-5)


def test_errors_count_in_the_exit_status_where_asked(workdir: Path, photos: Path, tmp_path: Path):
    flags = (f"--workdir={workdir}", f"--embeddings={tmp_path}/e.npz")
    assert call(*flags, photos, "--fail_on_error") == 1
    assert call(*flags, photos / "a b.jpg", "--fail_on_error") == 0
    assert call(*flags, photos) == 0
    with np.load(tmp_path / "e.npz") as arrays:
        assert [bool(text) for text in arrays["errors"]] == [False, True, False, True, False]
        assert np.isnan(arrays["embeddings"]).all(1).tolist() == [False, True, False, True, False]


def test_pipes_are_not_opened_and_links_are_refused(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = tmp_path / "in"
    root.mkdir()
    os.mkfifo(root / "pipe.jpg")
    (tmp_path / "outside.jpg").write_bytes(jpeg(noise(0)))
    (root / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "gone.jpg").symlink_to(tmp_path / "gone")
    flags = (f"--workdir={workdir}", f"--out={tmp_path}/p.csv")
    assert call(*flags, root, root / "pipe.jpg", tmp_path / "outside.jpg") == 0
    assert "1 file left out (1 not regular files)" in capsys.readouterr().out
    found = {Path(row["file"]).name: row["error"] for row in lines(tmp_path / "p.csv")}
    assert "is a link to" in found["out.jpg"]
    assert "outside" in found["gone.jpg"]
    assert "not a regular file" in found["pipe.jpg"]
    assert not found["outside.jpg"]


def test_names_that_are_no_text_are_written(workdir: Path, tmp_path: Path):
    root = tmp_path / "in"
    root.mkdir()
    strange = os.fsencode(root) + b"/\xff,\n.jpg"
    Path(os.fsdecode(strange)).write_bytes(jpeg(noise(0)))
    flags = (f"--workdir={workdir}", f"--embeddings={tmp_path}/e.npz")
    for kind in ("csv", "jsonl", "parquet"):
        assert call(*flags, root, f"--out={tmp_path}/p.{kind}", "--top=1") == 0
    expected = f"{root}/\\udcff,\n.jpg"
    assert lines(tmp_path / "p.csv")[0]["file"] == expected
    assert parquet.read_table(tmp_path / "p.parquet")["file"].to_pylist() == [expected]
    assert json.loads((tmp_path / "p.jsonl").read_text("utf-8"))["file"] == os.fsdecode(strange)
    with np.load(tmp_path / "e.npz") as arrays:
        assert arrays["files"].tolist() == [expected]


def interrupted(opened: AbstractContextManager[Write], row: Predictions) -> None:
    def put() -> None:
        with opened as write:
            write(row)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        put()


def test_a_file_of_results_is_whole_or_not_there(tmp_path: Path):
    row = Predictions(
        ("a",), ("x", "y"), np.full((1, 2), 0.5, np.float32), np.zeros((1, 2), np.float32), (None,)
    )
    for kind in ("csv", "jsonl", "parquet"):
        (tmp_path / f"p.{kind}").write_text("before")
        interrupted(writer(tmp_path / f"p.{kind}", ("x", "y"), 1), row)
        assert (tmp_path / f"p.{kind}").read_text() == "before"
    interrupted(embeddings_writer(tmp_path / "e.npz", 2), row)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.csv", "p.jsonl", "p.parquet"]


def test_names_of_classes_are_kept_as_they_are(tmp_path: Path):
    """Commas, quotes, line breaks and leading signs of a spreadsheet's formula."""
    names = ("a, b", 'the "best"', "two\nlines", "=1+1", " space ", "日本")
    probabilities = np.linspace(0.3, 0.05, len(names), dtype=np.float32)[None]
    row = Predictions(("x,y.png",), names, probabilities, np.zeros((1, 0), np.float32), (None,))
    for kind in ("csv", "jsonl", "parquet"):
        with writer(tmp_path / f"p.{kind}", names, len(names)) as put:
            put(row)
    found = [
        lines(tmp_path / "p.csv")[0],
        parquet.read_table(tmp_path / "p.parquet").to_pylist()[0],
    ]
    for each in found:
        assert each["file"] == "x,y.png"
        assert tuple(each[f"class_{i + 1}"] for i in range(len(names))) == names
    assert list(json.loads((tmp_path / "p.jsonl").read_text())["probabilities"]) == list(names)


def test_a_large_parquet_file_is_written_in_groups(tmp_path: Path):
    count = 5000
    rows = Predictions(
        tuple(map(str, range(count))),
        ("x", "y"),
        np.tile(np.array([0.25, 0.75], np.float32), (count, 1)),
        np.zeros((count, 0), np.float32),
        (None,) * count,
    )
    with writer(tmp_path / "p.parquet", ("x", "y"), 2) as put:
        for _ in range(3):
            put(rows)
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 3 * count
    assert set(table["class_1"].to_pylist()) == {"y"}
    assert parquet.ParquetFile(tmp_path / "p.parquet").num_row_groups == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.jpg"], ["one of --workdir=... and --model=... is required"]),
        (["W", "--workdir=other", "x.jpg"], ["--workdir is given twice", "other"]),
        (["W", "x.jpg"], ["--out=FILE.csv is required", "--embeddings=FILE.npz"]),
        (["W", "--out=p.csv"], ["there are no images"]),
        (["W", "x.jpg", "--out=p.csv"], ["x.jpg", "no such file or folder"]),
        (["W", "I", "--out=p.xlsx"], ["p.xlsx", ".csv, .jsonl, .parquet"]),
        (["W", "I", "--out=p"], ["--out=p", ".csv, .jsonl, .parquet"]),
        (
            ["W", "I", "--out=/no/where/p.csv"],
            ["/no/where/p.csv cannot be written", "no folder /no/where"],
        ),
        (["W", "I", "--embeddings=e.pt"], ["e.pt", ".npz"]),
        (["W", "I", "--out=p.csv", "--top=0"], ["--top=0", "all"]),
        (["W", "I", "--out=p.csv", "--top=many"], ["--top=many is no whole number"]),
        (["W", "I", "--out=p.csv", "--tpo=3"], ["--tpo", "--top"]),
        (["W", "I", "--out=p.csv", "--batch_size=0"], ["batch_size=0"]),
        (["W", "I", "--out=p.csv", "--step=7"], ["no valid checkpoint of step 7", "it has 0"]),
        (["W", "I", "--out=p.csv", "--preprocessing=vla"], ["'val'"]),
        (["W", "I", "--out=p.csv", "--preprocessing=workdir:x"], ["no card", "timm:"]),
        (["W", "I", "--out=p.csv", "--classes=cat,dog"], ["no dual encoder", ".classes"]),
        (["W", "I", "--out=p.csv", "--templates_file=t"], ["--templates_file needs --classes"]),
        (["W", "EMPTY", "--out=p.csv"], ["there are no images", "1 hidden", ".jpg"]),
        (["--workdir=/no/where", "I", "--out=p.csv"], ["/no/where: no such folder"]),
        (["--workdir=EMPTY", "I", "--out=p.csv"], ["is not the workdir of a run"]),
        (["--workdir=BEGUN", "I", "--out=p.csv"], ["BEGUN has no checkpoint", "train.py"]),
        (["--workdir=STAGES", "I", "--out=p.csv"], ["several runs", "STAGES/first"]),
        (["--workdir=STRANGE", "I", "--out=p.csv"], ["sklearn", "--allow_modules"]),
    ],
)
def test_mistakes_are_one_line(
    workdir: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: list[str],
):
    for name in ("EMPTY", "BEGUN", "STAGES/first", "STRANGE"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "EMPTY" / ".hidden.jpg").touch()
    config = (workdir / "config.json").read_text()
    (tmp_path / "BEGUN" / "config.json").write_text(config)
    (tmp_path / "BEGUN" / "run.json").write_bytes((workdir / "run.json").read_bytes())
    strange = config.replace("vision.objectives.classify.Classify", "sklearn.svm.SVC")
    (tmp_path / "STRANGE" / "config.json").write_text(strange)
    stages = {
        "_constructor": "vision.scenario.stages.Scenario",
        "stages": [
            {
                "_constructor": "vision.scenario.stages.Stage",
                "name": "first",
                "do": json.loads(config),
            }
        ],
    }
    (tmp_path / "STAGES" / "config.json").write_text(json.dumps(stages))
    monkeypatch.chdir(tmp_path)
    places = {"W": f"--workdir={workdir}", "I": str(data / "ant")}
    assert call(*(places.get(each, each) for each in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert not list(tmp_path.glob("p.*"))


def test_help_is_fast_since_it_imports_nothing_heavy():
    code = (
        "import sys; from vision.predict.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'jax', 'numpy', 'flax', 'PIL'} & set(sys.modules), sorted(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "--workdir" in ran.stdout
