"""Small inputs that public bug reports were about, end to end: other files with the same faults.

Single files and tables of this kind are in ``tests/data``: captions in brackets, labels written as
floats, names that look alike, thumbnails of file servers, parts in the place of classes, keys of
transparency, thin images, grey levels of TIFF files, and classes of which the page saw no record.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from vision.config.specs import build, load
from vision.data.source import DataError
from vision.evaluate.evaluator import evaluate
from vision.run import experiment
from vision.run.loop import train
from vision.run.restore import load_run

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("circle", "dot", "line", "star")
SEVERAL = """
import flax.linen as nn
from vision.config.specs import spec
from vision.data import ops
from vision.data.columns import {column}
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.manifest import Manifest
from vision.evaluators.accuracy.multilabel import MultiLabelClassification
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, adamw


class Net(nn.Module):
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, train=False, tap=None):
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        return x, {{"embedding": x, "logits": nn.Dense(self.num_classes)(x)}}


def table(part):
    columns = {{"label": spec({column})}}
    return spec(Manifest, path="{path}", columns=columns, part_column="part", part=part)


def get_config():
    read = [spec(ops.Decode, mode="grey"), spec(ops.ValueRange)]
    return spec(
        Experiment,
        data=spec(TrainData, source=table("a"), batch_size=16, ops=read, threads=0),
        model=spec(Net),
        objective=spec(Classify, loss_type="{loss_type}"),
        optimizer=spec(Optimizer, method=spec(adamw), learning_rate=1e-2),
        total="3 steps",
        evaluators={{
            "b": spec(
                MultiLabelClassification,
                data=spec(EvalData, source=table("b"), batch_size=16, ops=read, threads=0),
                labels="label",
            )
        }},
    )
"""


def write(
    root: Path, column: str, loss_type: str = "sigmoid"
) -> tuple[Path, np.ndarray, np.ndarray]:
    """The config file, and the labels and which of them are known, of all 48 pictures."""
    rng = np.random.default_rng(11)
    sets, known = rng.random((48, 4)) < 0.4, rng.random((48, 4)) < 0.7
    known = known if column == "PartialLabels" else np.ones_like(known)
    lines = ["image,label,part"]
    for i in range(48):
        pixels = rng.integers(0, 40, (6, 4)).astype(np.uint8) + 200 * sets[i].astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        pairs = zip(NAMES, sets[i], known[i], strict=True)
        if column == "PartialLabels":
            cell = "|".join(f"{name}={int(there)}" for name, there, told in pairs if told)
        else:
            cell = "|".join(name for name, there, _ in pairs if there) or "[]"
        lines.append(f"{i}.png,{cell},{'a' if i < 32 else 'b'}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    file = root / f"job_{column.lower()}_{loss_type}.py"
    text = SEVERAL.format(column=column, path=root / "table.csv", loss_type=loss_type)
    file.write_text(text)
    return file, sets, known


@pytest.mark.parametrize("column", ["MultiLabel", "PartialLabels"])
def test_a_table_of_several_labels_trains_and_is_measured(tmp_path, column):
    """The evaluator wanted integers and -1, and the job that the page documents failed."""
    file, sets, known = write(tmp_path, column)
    config = load(str(file))
    experiment.check(config, file.name)
    train(config, tmp_path / "w")
    run = load_run(tmp_path / "w")
    evaluator = build(config.evaluators)["b"]
    numbers, _ = evaluate(evaluator, run.predict, run.variables, 3, run.mesh)
    with evaluator.data.loader() as loader:
        batch = next(loader)
    assert batch["_mask"].all()
    logits = np.asarray(run.predict(run.variables, batch)["logits"])
    sets, known = sets[32:], known[32:]
    expected = [
        average_precision_score(sets[known[:, k], k], logits[known[:, k], k]) for k in range(4)
    ]
    assert numbers["map"] == pytest.approx(np.mean(expected))
    assert numbers["examples"] == 16
    assert numbers.get("unknown", 0) == (~known).sum()
    (logged,) = {
        row["b/map"]
        for row in map(json.loads, (tmp_path / "w" / "metrics.jsonl").read_text().splitlines())
        if "b/map" in row
    }
    assert logged == pytest.approx(numbers["map"], abs=1e-6)


def test_several_labels_are_refused_by_a_softmax_at_the_first_record(tmp_path):
    file, _, _ = write(tmp_path, "MultiLabel", "softmax")
    with pytest.raises(DataError, match=r"png: label has weights of sum .* loss_type='sigmoid'"):
        train(load(str(file)), tmp_path / "w")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("optimizer.clip_norm=-3", "clip_norm=-3: expected a number > 0"),
        ("optimizer.learning_rate=-0.5", "learning_rate=-0.5: expected a finite number >= 0"),
        ("ema.decay=2", "ema.decay=2: expected a number in"),
        ("checkpoints.best=test/top7", "yields top1"),
    ],
)
def test_values_out_of_range_are_one_error_and_status_2(tmp_path, argument, words):
    ran = subprocess.run(
        [
            *(sys.executable, str(ROOT / "train.py"), f"--config={ROOT}/configs/digits_vit.py"),
            *(f"--config.{argument}", f"--workdir={tmp_path}/w"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert ran.returncode == 2
    first, *says, error = ran.stderr.splitlines()
    assert first.startswith("training ")
    assert says in ([], ["reading data"])
    assert error.startswith("error: ")
    assert words in error
    assert not (tmp_path / "w" / "metrics.jsonl").exists()
