"""A regression: its number in every kind of file, in Python, and what serve and explain say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from tests.predict.conftest import ROOT, call, jpeg, noise
from vision.config.specs import load
from vision.predict.load import load as load_predictor
from vision.predict.predictor import PredictError
from vision.predict.results import Predictions
from vision.predict.write import writer
from vision.run.experiment import check
from vision.run.initial import init_run
from vision.serve.batcher import warm


@pytest.fixture(scope="module")
def ages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run of configs/own_table.py, whose targets are 30 to 59."""
    folder = tmp_path_factory.mktemp("ages")
    rows = ["image,age"]
    for i in range(30):
        (folder / f"{i}.jpg").write_bytes(jpeg(noise(i)))
        rows.append(f"{i}.jpg,{30 + i}.5")
    (folder / "ages.csv").write_text("\n".join(rows))
    config = load(
        f"{ROOT / 'configs/own_table.py'}:{folder / 'ages.csv'},"
        "labels=number,column=age,size=16,batch=16",
        {"model.width": "16", "model.depth": "1", "model.heads": "2", "model.patch": "8"},
    )
    check(config)
    init_run(config, folder / "w")
    return folder


@pytest.mark.slow
def test_the_number_is_in_every_kind_of_file(ages: Path, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(jpeg(noise(1))[:100])
    run = load_predictor(ages / "w")
    said = run.predict([ages / "3.jpg", tmp_path / "broken.jpg", ages / "4.jpg"], on_error="keep")
    assert run.classes == ()
    assert said.numbers is not None
    assert said.numbers.shape == (3, 1)
    assert np.isnan(said.numbers[1]).all()
    assert [len(row.numbers) for row in said] == [1, 0, 1]
    assert (said[0].probabilities, said[0].label) == ({}, None)
    # In the target's own unit: an untrained head says the mean of the first batch.
    assert 30 < said[0].numbers[0] < 60
    for kind in ("csv", "jsonl", "parquet"):
        files = (ages / "3.jpg", tmp_path / "broken.jpg", ages / "4.jpg")
        assert call(f"--workdir={ages / 'w'}", *files, f"--out={tmp_path / 'p'}.{kind}") == 0
    with (tmp_path / "p.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "prediction", "error"]
    table = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert list(lines[0]) == list(table[0]) == head
    for i in (0, 2):
        for value in (rows[i][1], table[i]["prediction"], lines[i]["prediction"]):
            assert np.float32(value) == said.numbers[i, 0]
    assert rows[1][1] == ""
    assert table[1]["prediction"] is lines[1]["prediction"] is None
    assert all(each[1]["error"] for each in (table, lines))


def test_several_numbers_have_a_column_each(tmp_path: Path):
    numbers = np.array([[0.5, 2], [np.nan, np.nan]], np.float32)
    empty = np.zeros((2, 0), np.float32)
    rows = Predictions(("a", "b"), (), empty, empty, (None, "is empty"), numbers)
    for kind in ("csv", "jsonl", "parquet"):
        with writer(tmp_path / f"p.{kind}", (), 5, 2) as put:
            put(rows)
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "file,prediction_1,prediction_2,error",
        "a,0.5,2.0,",
        "b,,,is empty",
    ]
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines] == [[0.5, 2.0], None]
    assert parquet.read_table(tmp_path / "p.parquet")["prediction_2"].to_pylist() == [2.0, None]


def test_what_needs_classes_says_so(ages: Path):
    run = load_predictor(ages / "w")
    for asked in (lambda: run.explain(ages / "3.jpg"), lambda: warm(run)):
        with pytest.raises(PredictError, match=r"is a regression and has no classes: python -m"):
            asked()
