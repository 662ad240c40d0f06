"""ONNX: every family of towers in onnxruntime, and what is said where it cannot be."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from tests.models.tower_cases import random_variables
from tests.weights.test_export import write_run
from vision.models.convnext import ConvNeXt
from vision.models.efficientnet import EfficientNet
from vision.models.resnet import ResNet
from vision.models.swin import Swin
from vision.models.vgg import VGG
from vision.models.vit import ViT
from vision.train.objective import Variables
from vision.train.tower import forward
from vision.weights.export import export, main
from vision.weights.mapping import WeightsError
from vision.weights.onnx_program import make_onnx, real_images, without_counterpart
from vision.weights.preprocessing import Preprocessing

CARD = Preprocessing(size=(32, 32))
TOWERS = {
    "ViT": ViT(width=16, depth=2, heads=2, patch=8, num_classes=5),
    "ResNet": ResNet(depth=18, width_multiplier=0.125, num_classes=5),
    "ConvNeXt": ConvNeXt(depths=(1, 1), dims=(8, 16), num_classes=5),
    "Swin": Swin(width=8, depths=(2,), heads=(2,), window=4, patch=4, num_classes=5),
    "EfficientNet": EfficientNet(variant="B0", width_multiplier=0.25, num_classes=5),
    "VGG": VGG(depth=11, width_multiplier=0.125, hidden=16, window=1, num_classes=5),
}


def photographs(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size, 3): parts of the photograph that scikit-learn ships."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")
    corners = np.random.default_rng(0).integers(0, 300, (count, 2))
    return np.stack([image[y : y + size, x : x + size] for y, x in corners])


@pytest.mark.parametrize("name", TOWERS)
def test_every_family_answers_the_same_in_onnxruntime(name: str):
    pytest.importorskip("jax2onnx")
    tower = TOWERS[name]
    params, state = random_variables(tower, (2, 32, 32, 3))
    variables = Variables({"model": params}, {"model": state}, {})

    def predict(variables: Variables, batch: Any) -> dict[str, jax.Array]:
        model = variables.params["model"], variables.model_state["model"]
        embedding, out, _ = forward(tower, *model, batch["image"], train=False)
        return {"embedding": embedding, "logits": out["logits"]}

    file, differences = make_onnx(predict, variables, CARD, photographs(2, 32))
    assert len(file) > 1000
    assert sorted(differences) == ["embedding", "logits"]
    assert max(differences.values()) < 1e-5


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
    with pytest.raises(WeightsError, match=r"needs jax2onnx and onnxruntime: pip install 'vision"):
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
