"""Dual encoders with classes by their names."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vision
from tests.predict.conftest import call
from vision.blocks.contrast import Ranking, Sigmoid
from vision.config.errors import UserError
from vision.data.pipeline import EvalData
from vision.data.prompts import PLAIN
from vision.data.sources.arrays import Arrays
from vision.evaluate.evaluator import context
from vision.evaluators.image_text.zero_shot import ZeroShot, classify, text_bank
from vision.predict.predictor import PredictError, Predictor
from vision.predict.zero_shot import TextClassifier

NAMES = ("red circle", "blue star", "green cross")


@pytest.fixture(scope="module")
def clip(dual: Path) -> Predictor:
    return vision.load(dual)


@pytest.fixture(scope="module")
def scenes(clip: Predictor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder of twelve scenes, and their pixels."""
    folder = tmp_path_factory.mktemp("scenes")
    assert clip.run is not None
    evaluator: Any = (clip.run.experiment.evaluators or {})["seen"]
    pixels = np.stack([evaluator.data.source[i]["image"] for i in range(12)])
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder, pixels


def test_it_answers_as_the_evaluator_does(clip: Predictor, scenes: tuple[Path, np.ndarray]):
    folder, pixels = scenes
    run = clip.run
    assert run is not None
    evaluator: Any = (run.experiment.evaluators or {})["seen"]
    assert isinstance(evaluator, ZeroShot)
    named = clip.zero_shot(NAMES, evaluator.templates)
    said = named.predict(folder)
    ctx = context(run.variables, run.step, run.mesh)
    with jax.set_mesh(run.mesh):
        bank = text_bank(run.predict, ctx, evaluator.tokenizer, evaluator.templates, NAMES, 8)
    best, _ = classify(clip.embed(pixels), np.zeros(12, np.int64), bank)
    assert [row.label for row in said] == [NAMES[i] for i in best]
    np.testing.assert_allclose(said.probabilities.sum(1), 1, rtol=1e-5)
    # The run's own temperature, at its start: 1 / 0.07.
    logits = clip.embed(pixels) @ bank.T / 0.07
    np.testing.assert_allclose(
        said.probabilities, np.asarray(jax.nn.softmax(logits, -1)), rtol=2e-3, atol=1e-5
    )
    top1 = evaluator_top1(clip, pixels, said.probabilities.argmax(1))
    assert top1 == 1.0


def evaluator_top1(clip: Predictor, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Of the evaluator itself, on these images with these labels."""
    run = clip.run
    assert run is not None
    seen: Any = (run.experiment.evaluators or {})["seen"]
    source = Arrays({"image": pixels, "label": labels.astype(np.int32)}, "scenes", NAMES)
    data = EvalData(source, batch_size=16, ops=seen.data.ops, threads=0)
    evaluator = dataclasses.replace(seen, data=data, class_names=NAMES, mistakes=0)
    ctx = context(run.variables, run.step, run.mesh)
    with jax.set_mesh(run.mesh):
        return dict(evaluator.run(run.predict, ctx))["top1"]


def test_a_sigmoid_loss_gives_independent_probabilities(clip: Predictor):
    assert clip.text_side is not None
    params = {"log_scale": jnp.log(9.0), "bias": jnp.float32(-3)}
    variables = clip.variables.merge(params={"contrast": params})

    def texts(criterion: Any) -> TextClassifier:
        assert clip.text_side is not None
        objective = dataclasses.replace(clip.text_side.objective, criterion=criterion)
        side = dataclasses.replace(clip.text_side, objective=objective)
        return side.classifier(clip.forward, variables, clip.mesh, NAMES, PLAIN)

    learned = texts(Sigmoid())
    assert (learned.independent, learned.bias) == (True, -3)
    assert learned.scale == pytest.approx(9)
    scores = learned.probabilities(learned.bank)
    expected = 1 / (1 + np.exp(-(learned.scale * learned.bank @ learned.bank.T - 3)))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    with pytest.raises(UserError, match="Ranking, learned no temperature"):
        texts(Ranking())


def test_the_softmax_does_not_overflow():
    bank = np.eye(2, dtype=np.float32)
    said = TextClassifier(bank, 1000.0, 0.0, False).probabilities(
        np.array([[1, 0], [np.nan, 0]], np.float32)
    )
    np.testing.assert_array_equal(said[0], [1, 0])
    assert np.isnan(said[1]).all()


def test_explain_finds_evidence_for_a_name(clip: Predictor, scenes: tuple[Path, np.ndarray]):
    named = clip.zero_shot(NAMES)
    found = named.explain(scenes[1][0], "blue star")
    assert found.heat.shape == (32, 32)
    said = named.predict(scenes[1][0])[0]
    assert found.probability == pytest.approx(said.probabilities["blue star"], rel=1e-4)


def test_the_command(dual: Path, scenes: tuple[Path, np.ndarray], tmp_path: Path):
    (tmp_path / "names.txt").write_text("# classes\nred circle\nblue star\n\n")
    (tmp_path / "templates.txt").write_text("a {}\nwe see a {}\n")
    flags = (f"--workdir={dual}", scenes[0], "--top=all")
    files = [f"--{name}_file={tmp_path}/{name}.txt" for name in ("classes", "templates")]
    files = [each.replace("classes.txt", "names.txt") for each in files]
    assert call(*flags, *files, f"--out={tmp_path}/a.csv") == 0
    assert call(*flags, "--classes=red circle, blue star", f"--out={tmp_path}/b.csv") == 0
    heads = []
    for name in ("a", "b"):
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            heads.append(next(csv.reader(file)))
    expected = ["file", "probability/red circle", "probability/blue star", "error"]
    assert heads == [expected, expected]
    assert (tmp_path / "a.csv").read_text() != (tmp_path / "b.csv").read_text()
    assert call(*flags, f"--embeddings={tmp_path}/e.npz") == 0  # needs no classes


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), ["dual encoder", "--classes='a cat,a dog'", "--classes_file"]),
        (("--classes=a cat,a dog,a cat",), ["classes 0 and 2 are both called 'a cat'"]),
        (("--classes=a cat,,a dog",), ["name 1 is ''"]),
        (("--classes=a", "--classes_file=b"), ["do not go together"]),
        (("--classes_file=/no/where",), ["/no/where: cannot be read"]),
        (("--classes=a,b", "--templates_file=T"), ["no placeholder"]),
    ],
)
def test_mistakes_are_one_line(
    dual: Path,
    scenes: tuple[Path, np.ndarray],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    words: list[str],
):
    (tmp_path / "T").write_text("a photo")
    flags = tuple(flag.replace("=T", f"={tmp_path}/T") for flag in flags)
    assert call(f"--workdir={dual}", scenes[0], f"--out={tmp_path}/p.csv", *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error
    assert not (tmp_path / "p.csv").exists()


def test_without_names_it_embeds_only(clip: Predictor, scenes: tuple[Path, np.ndarray]):
    assert clip.classes == ()
    with pytest.raises(PredictError, match=r"run\.zero_shot\(\["):
        clip.predict(scenes[0])
    np.testing.assert_allclose(np.linalg.norm(clip.embed(scenes[0]), axis=1), 1, rtol=1e-4)
