"""The page of heat maps: of a ViT and a CNN, curves, neighbours, and what it says of bad input."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.predict.conftest import CLASSES, SIZE, jpeg, noise
from vision.config.cli import run_main
from vision.data.source import DataError
from vision.evaluators.attribution import IntegratedGradients
from vision.models.plain_conv import PlainConv
from vision.models.vit import ViT
from vision.predict.load import load
from vision.predict.predictor import PredictError, Predictor
from vision.report.explain import main
from vision.report.explain_concepts import fitted_concepts
from vision.report.explain_maps import GRAD_CAM, METHODS, RANDOM, area, class_maps
from vision.report.explain_page import explain_images
from vision.report.neighbours import NO_RUN, Neighbours, training_images
from vision.train.objective import Batch, Variables
from vision.train.tower import Tap


def test_integrated_gradients_of_functions_that_are_known():
    """Of w x it is |w (x - mean)|, of x^2 it is |x^2 - mean^2|: the middles of parts are exact."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 3)), jnp.float32)
    mean = images.mean((1, 2), keepdims=True)
    weight = jnp.arange(36.0).reshape(3, 4, 3) - 11
    heat = IntegratedGradients(4)(lambda x: (x * weight).sum((1, 2, 3)), images)
    np.testing.assert_allclose(heat, jnp.abs((images - mean) * weight).sum(-1), rtol=1e-5)
    heat = IntegratedGradients(4)(lambda x: (x**2).sum((1, 2, 3)), images)
    np.testing.assert_allclose(heat, jnp.abs(images**2 - mean**2).sum(-1), rtol=1e-4, atol=1e-6)


TOWERS: dict[str, Any] = {
    "vit": ViT(width=8, depth=2, heads=2, patch=4, class_position=True, head_zero_init=False,
               num_classes=len(CLASSES)),
    "cnn": PlainConv(width=4, depth=2, num_classes=len(CLASSES)),
}  # fmt: skip


def with_tower(run: Predictor, tower: Any) -> Predictor:
    """The run with another network, of random weights, and the same classes."""
    params = tower.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]

    def forward(variables: Variables, batch: Batch, tap: Tap | None = None) -> dict[str, jax.Array]:
        _, out = tower.apply({"params": variables.params["net"]}, batch["image"], tap=tap)
        return {"logits": out["logits"], "log_probabilities": jax.nn.log_softmax(out["logits"])}

    variables = Variables(params={"net": params}, model_state={}, extra_state={})
    return dataclasses.replace(run, forward=forward, variables=variables)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_maps_of_a_vit_and_a_cnn(kind: str, run: Predictor):
    predictor = with_tower(run, TOWERS[kind])
    image, _ = predictor.gather(jpeg(noise(5)))
    name, probability = next(iter(predictor.predict(image)[0].top(1).items()))
    found = class_maps(predictor, image, name, steps=4)
    assert (found.failed, list(found.heat)) == ({}, list(METHODS))
    assert found.probability == pytest.approx(probability, rel=1e-5)
    for heat in found.heat.values():
        assert heat.shape == (SIZE, SIZE)
        assert (heat.min() >= 0, heat.max()) == (True, pytest.approx(1))
    np.testing.assert_array_equal(found.heat[GRAD_CAM], predictor.explain(image, name).heat)
    assert list(found.curves) == [*METHODS, RANDOM]
    whole, grey = {removed[0] for removed, _ in found.curves.values()}, set()
    for removed, added in found.curves.values():
        np.testing.assert_allclose([removed[0], added[-1]], probability, rtol=1e-4)
        np.testing.assert_allclose(removed[-1], added[0], rtol=1e-5)
        grey.add(float(added[0]))
        assert 0 <= area(removed) <= 1
    assert np.ptp([*whole]) < 1e-5
    assert np.ptp([*grey]) < 1e-5
    other = class_maps(predictor, image, next(x for x in CLASSES if x != name), steps=0)
    assert not other.curves
    assert not np.allclose(other.heat["gradient"], found.heat["gradient"])


def test_the_nearest_training_image_is_itself(run: Predictor, data: Path):
    training = training_images(run, limit=12)
    assert isinstance(training, Neighbours)
    assert training.about.startswith("12 training images of 27, evenly spread")
    key = training.source.key(training.indices[4])
    index = training.indices[4]
    vectors = run.embed(training.source[index]["image"])
    [beside] = training.of(vectors, 3)
    assert beside[0]["key"] == key
    assert beside[0]["label"] == CLASSES[training.source[index]["label"]]
    assert beside[0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert [x["cosine"] for x in beside] == sorted((x["cosine"] for x in beside), reverse=True)
    assert training_images(dataclasses.replace(run, run=None), 5) == NO_RUN


@pytest.mark.slow
def test_the_page(workdir: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    out = tmp_path / "seen.html"
    flags = [f"--workdir={workdir}", f"--images={photos}", f"--out={out}", "--steps=2", "--top=1"]
    assert run_main(main, [*flags, "--training=6", "--limit=4"]) == 0
    page = out.read_text()
    assert "4 of 5 images, evenly spread" in page
    assert "broken.jpg: " in page
    assert "Nearest training images" in page
    assert "6 training images of 27" in page
    for method in METHODS:
        assert f"Mean {method} map for " in page
    assert len(re.findall('alt="Grad-CAM map of ', page)) == page.count("as the model reads it")
    assert str(out) in capfd.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--images=... is required"),
        (["--images=gone"], "one of --workdir=... and --model=..."),
        (["--images=gone", "--model=timm:x"], "--out=FILE.html is required"),
        (["--images=gone", "--workdir=.", "--limit=0"], "at least 1"),
        (["--images=gone", "--workdir=.", "--concepts=c.json"], "go together"),
    ],
)
def test_wrong_flags(flags: list[str], said: str, capfd: pytest.CaptureFixture[str]):
    assert run_main(main, flags) == 2
    assert said in capfd.readouterr().err


def test_images_that_cannot_be_read(run: Predictor, tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image can be read: .*empty file"):
        explain_images(run, str(tmp_path), limit=3, top=1, steps=0, training=0)


def test_concepts_ask_for_a_text_tower(run: Predictor, tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0.jpg").write_bytes(jpeg(noise(1)))
    (tmp_path / "c.json").write_text('{"x": ["round"]}')
    with pytest.raises(PredictError, match="is no dual encoder of images and texts"):
        fitted_concepts(run, str(tmp_path / "c.json"), str(tmp_path))


def test_concepts_are_fitted_to_a_folder(tmp_path: Path):
    """The bottleneck is that of the embeddings of text and images, in the order of the folder."""
    predictor = load("zoo:emoji_clip", threads=0)
    rng = np.random.default_rng(0)
    for name, channel in (("a", 0), ("b", 2)):
        (tmp_path / "x" / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 60, (48, 48, 3), np.uint8)
            pixels[..., channel] += 180
            Image.fromarray(pixels).save(tmp_path / "x" / name / f"{i}.png")
    lists = tmp_path / "c.json"
    lists.write_text('{"a": ["red heart", "apple"], "b": ["blue book"]}')
    found = fitted_concepts(predictor, str(lists), str(tmp_path / "x"))
    assert found.classes == ("a", "b")
    assert "3 concepts, fitted to 12 images" in found.about
    vectors = predictor.embed([str(tmp_path / "x" / n / "0.png") for n in "ab"])
    answers = found.model.logits(vectors @ found.vectors.T).argmax(1)
    assert answers.tolist() == [0, 1]
    lists.write_text('{"a": ["red heart"]}')
    with pytest.raises(DataError, match="has no descriptors of 'b'"):
        fitted_concepts(predictor, str(lists), str(tmp_path / "x"))
