"""ONNX: every family of towers in onnxruntime, and what is said where it cannot be."""

from __future__ import annotations

import csv
import functools
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from bench.common import RESULTS
from bench.onnx_families import (
    IMAGE_TOWERS,
    MOST,
    PAGE,
    TEXT_TOWERS,
    differences,
    page,
    photographs,
    texts,
)
from tests.weights.test_export import write_run
from vision.config.cli import UsageError
from vision.models.dual import Dual
from vision.train.objective import Variables
from vision.train.tower import forward, initialise
from vision.weights.export import export, main
from vision.weights.mapping import WeightsError
from vision.weights.onnx_graph import ROWS
from vision.weights.onnx_program import make_onnx, real_images, verified, without_counterpart
from vision.weights.preprocessing import Preprocessing

CARD = Preprocessing(size=(32, 32))
# Of the scan over positions in parallel; step by step it leaves.
REFUSED = {"Plain Mamba": "lax.pad with interior padding"}


@pytest.mark.parametrize("name", [*IMAGE_TOWERS, *TEXT_TOWERS])
def test_every_family_answers_the_same_in_onnxruntime(name: str):
    pytest.importorskip("jax2onnx")
    if name in REFUSED:
        with pytest.raises(WeightsError, match=REFUSED[name]):
            differences(name)
        return
    found = differences(name)
    assert "embedding" in found
    assert max(found.values()) <= MOST


def test_the_page_has_the_last_run():
    with (RESULTS / "onnx_families.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["tower"] for row in rows] == [*IMAGE_TOWERS, *TEXT_TOWERS]
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, rows) == text
    assert {row["tower"] for row in rows if row["said"]} == {*REFUSED}
    assert all(float(row["differs"] or 0) <= MOST for row in rows)


@pytest.mark.slow
def test_every_family_takes_any_number_of_images():
    """As StableHLO programs do; shapes alone."""
    (count,) = jax.export.symbolic_shape("b")
    for name, (tower, side) in IMAGE_TOWERS.items():
        both = {"text": texts(), "image": jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)}
        given = both if isinstance(tower, Dual) else both["image"]
        variables = jax.eval_shape(functools.partial(initialise, tower, jax.random.key(0)), given)
        images = jax.ShapeDtypeStruct((count, side, side, 3), jnp.float32)

        def embedding(variables: Any, x: Any, tower: Any = tower) -> jax.Array:
            read = {"image": x} if isinstance(tower, Dual) else x
            return forward(tower, *variables, read, train=False)[0]

        assert jax.eval_shape(embedding, variables, images).shape[0] == count, name


def test_a_run_leaves_as_a_file_that_onnxruntime_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    workdir = write_run(tmp_path / "run")
    export(workdir, tmp_path / "out", onnx=3)
    assert "3 image(s) at a time; onnxruntime differs" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("images", [3, 8, 8, 1], "tensor(uint8)")
    outputs = {each.name: each.shape for each in session.get_outputs()}
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert outputs["log_probabilities"] == [3, len(labels)]


def test_a_run_takes_any_number_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    workdir = write_run(tmp_path / "run")
    main([f"--workdir={workdir}", f"--output={tmp_path / 'out'}", "--onnx"])
    assert "any number of image(s) at a time; onnxruntime differs" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (given,) = session.get_inputs()
    assert given.shape == [ROWS, 8, 8, 1]
    images = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 1)).astype(np.uint8)
    (whole,) = session.run(["log_probabilities"], {"images": images})
    (part,) = session.run(["log_probabilities"], {"images": images[4:5]})
    np.testing.assert_allclose(whole[4:5], part, atol=1e-5)


def test_what_depends_on_the_number_of_images_otherwise_is_refused():
    pytest.importorskip("jax2onnx")

    def program(x: jax.Array) -> dict[str, jax.Array]:
        # Numbers that a program for as many images has written in it.
        ranks = np.sqrt(np.arange(x.shape[0], dtype=np.float32))[:, None]
        return {"out": x.astype(jnp.float32).mean((1, 2)) * ranks}

    with pytest.raises(WeightsError, match=r"takes no open number of images .*--onnx=8"):
        verified(program, {"images": photographs(5, 8)}, any_number=True)
    assert verified(program, {"images": photographs(5, 8)})[1]["out"] < 1e-5


def test_a_number_that_is_none(tmp_path: Path):
    with pytest.raises(UsageError, match="leave the number out for any number of images"):
        main([f"--workdir={tmp_path}", f"--output={tmp_path}", "--onnx=0"])


def test_an_operation_without_a_counterpart_is_named():
    pytest.importorskip("jax2onnx")

    def predict(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        rows = batch["image"].mean((2, 3))
        return {"logits": jax.pure_callback(np.sort, rows, rows)}

    with pytest.raises(WeightsError, match="has no counterpart in ONNX; --stablehlo") as raised:
        make_onnx(predict, Variables({}, {}, {}), CARD, photographs(1, 32))
    assert "'pure_callback'" in str(raised.value)


def test_what_is_said_of_a_translation_that_fails():
    said = without_counterpart(NotImplementedError("No plugins registered for primitive 'eigh'\nx"))
    assert said.startswith("'eigh', an operation of this model, has no counterpart in ONNX")
    said = without_counterpart(ValueError("a shape\nand more"))
    assert said.startswith("this model cannot be translated to ONNX (ValueError: a shape);")


def test_missing_packages_are_named_before_the_run_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        WeightsError, match=r"needs jax2onnx and onnxruntime: pip install 'jax2onnx"
    ):
        main([f"--workdir={tmp_path / 'none'}", f"--output={tmp_path}", "--onnx"])


def test_images_are_those_of_an_evaluator():
    class Source(list[Any]):
        def key(self, place: int) -> str:
            return f"record {place}"

    records = Source({"image": np.full((8, 8, 1), i, np.uint8)} for i in range(9))
    grey = Preprocessing(size=(8, 8), mean=(0.5,), std=(0.5,))
    data = SimpleNamespace(source=records, ops=(1,))
    run: Any = SimpleNamespace(
        experiment=SimpleNamespace(evaluators={"a": SimpleNamespace(data=data)})
    )
    found = real_images(run, grey, 3)
    assert found.shape == (3, 8, 8, 1)
    assert found[:, 0, 0, 0].tolist() == [0, 4, 8]
    records[0]["image"] = np.zeros((8, 8, 1), np.float32)
    with pytest.raises(WeightsError, match="record 0 of evaluator a becomes float32"):
        real_images(run, grey, 3)
    run.experiment.evaluators = {}
    with pytest.raises(WeightsError, match="no evaluator of the run reads images"):
        real_images(run, grey, 1)
