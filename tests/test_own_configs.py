"""Configs for one's own tables and pairs: what they read, and the short options that all have."""

from __future__ import annotations

import csv
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import evaluate
import train
from vision.config.cli import run_main
from vision.config.specs import build, load
from vision.predict.load import load as load_predictor
from vision.run.experiment import check

ROOT = Path(__file__).resolve().parents[1]
# Those that one starts from with data of one's own.
OWN = ("folder_vit", "finetune_folder", "own_table", "own_pairs")
COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose brightness the tables tell in several ways."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(COUNT):
        level = int(rng.integers(20, 230))
        noise = rng.normal(level, 10, (24, 30, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(root / f"{i:02}.png")
        kind = "light" if level > 125 else "dark"
        tags = "|".join([kind, *(["strong"] if abs(level - 125) > 60 else [])])
        row = {"image": f"{i:02}.png", "label": kind, "tags": tags, "level": level}
        rows.append({**row, "caption": f"a {kind} picture number {i}"})
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (root / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        row["image"] = (root / str(row["image"])).read_bytes()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "table.parquet")
    return root


CASES: dict[str, tuple[str, list[str]]] = {
    "single": ("own_table.py:{}/table.csv", ["val/top1"]),
    "several": ("own_table.py:{}/table.jsonl,labels=several,column=tags", ["val/map"]),
    "number": ("own_table.py:{}/table.parquet,labels=number,column=level", ["val/mae", "val/r2"]),
    "pairs csv": ("own_pairs.py:{}/table.csv", []),
    "pairs parquet": ("own_pairs.py:{}/table.parquet", []),
}


def reference(case: str, folder: Path, options: str = "size=16,batch=8") -> str:
    return f"{ROOT}/configs/{CASES[case][0].format(folder)},{options}"


@pytest.mark.parametrize("case", CASES)
def test_what_they_read(case: str, folder: Path):
    config: Any = load(reference(case, folder), {"data.threads": "0"})
    check(config)
    data = build(config.data)
    assert 0.85 * COUNT <= len(data.source) < COUNT
    with data.loader(seed=0, first_batch=0) as loader:
        batch = next(loader)
    assert (batch["image"].shape, batch["_mask"].all()) == ((8, 16, 16, 3), True)
    bright = np.asarray(batch["image"]).mean((1, 2, 3))
    if case == "single":
        assert data.source.info.class_names == ("dark", "light")
        np.testing.assert_array_equal(batch["label"], bright > 0)
    elif case == "several":
        assert data.source.info.class_names == ("dark", "light", "strong")
        np.testing.assert_array_equal(batch["label"][:, 1], bright > 0)
        assert np.asarray(batch["label"]).sum(1).max() == 2
    elif case == "number":
        np.testing.assert_allclose(batch["target"], (bright + 1) * 127.5, atol=6)
    else:
        assert batch["text"].shape == (8, 32)


@pytest.mark.parametrize("name", OWN)
def test_short_options_are_alike(name: str):
    options = inspect.signature(importlib.import_module(f"configs.{name}").get_config).parameters
    assert {"size", "batch"} <= set(options)
    assert {"model", "tower"} & set(options)


def test_a_size_that_no_patch_divides(folder: Path):
    with pytest.raises(Exception, match="a multiple of 8"):
        load(reference("single", folder, "size=50"))
    small: Any = load(reference("single", folder, "size=50,model=resnet18,batch=4"))
    assert (small.model.depth, small.data.batch_size) == (18, 4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_trained_and_evaluated(case: str, folder: Path, tmp_path: Path):
    depths = ("model.image.depth", "model.text.depth") if "pairs" in case else ("model.depth",)
    flags = [f"--config={reference(case, folder)}", f"--workdir={tmp_path}"]
    flags += [f"--config.{depth}=1" for depth in depths]
    flags += ["--config.optimizer.schedule.warmup=0 steps"]
    flags += ["--config.total=4 steps", "--config.evaluate_every=2 steps"]
    assert run_main(train.main, flags) == 0
    assert run_main(evaluate.main, [f"--workdir={tmp_path}"]) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())["evaluators"]["val"]["metrics"]
    assert {f"val/{name}" for name in found} >= set(CASES[case][1])
    run = load_predictor(tmp_path, step="best" if CASES[case][1] else None)
    assert run.embed(folder / "00.png").shape[0] == 1
    if case in ("single", "several"):
        assert len(run.predict(folder / "00.png")[0].probabilities) == len(run.classes)
