"""Weights that no run trained here: a run that left for another library comes back the same."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vision
from tests.predict.conftest import CLASSES, call, noise
from vision.config.errors import UserError
from vision.data.tokenizers import ClipTokenizer
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.predict.predictor import Predictor
from vision.predict.pretrained import weights_source
from vision.train.tower import forward
from vision.weights.configs import config_of
from vision.weights.export import export, library_tensors
from vision.weights.preprocessing import Preprocessing
from vision.weights.reader import write_safetensors


@pytest.fixture(scope="module")
def left(workdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the folder of images as a folder of transformers."""
    folder = tmp_path_factory.mktemp("left")
    export(workdir, folder, to="transformers")
    return folder


def test_what_was_exported_says_the_same(run: Predictor, left: Path):
    images = [noise(i) for i in range(3)]
    for name in (f"transformers:{left}", str(left)):
        back = vision.load(name, batch_size=8)
        assert back.classes == CLASSES
        assert back.run is None
        assert back.batch_size == 8
        assert back.preprocessing.shape == (16, 16, 3)
        said = back.predict(images)
        np.testing.assert_allclose(
            said.probabilities, run.predict(images).probabilities, rtol=1e-3, atol=1e-5
        )
    here, there = run.explain(images[0], "ant"), back.explain(images[0], "ant")
    np.testing.assert_allclose(here.heat, there.heat, atol=1e-2)
    np.testing.assert_array_equal(here.image, there.image)


def test_a_tower_without_a_head_embeds_only(run: Predictor, left: Path, tmp_path: Path):
    for path in left.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    values = json.loads((left / "config.json").read_text())
    values["architectures"] = ["ViTModel"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    bare = vision.load(tmp_path)
    assert bare.classes == ()
    image = noise(0)
    np.testing.assert_allclose(bare.embed(image), run.embed(image), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="gives no probabilities of classes, but embedding"):
        bare.predict(image)


def test_the_command(left: Path, data: Path, tmp_path: Path):
    assert call(f"--model={left}", data / "ant", f"--out={tmp_path}/p.csv") == 0
    assert (tmp_path / "p.csv").read_text().count("\n") == 11


def test_an_image_text_model_takes_classes_by_name(tmp_path: Path):
    """A folder of open_clip: towers, temperature, preprocessing and tokenizer come from it."""
    clip = {"pre_norm": True, "norm_epsilon": 1e-5, "class_position": True}
    image = ViT(width=16, depth=1, heads=2, patch=4, **clip)  # pyright: ignore[reportArgumentType]
    text = TextTransformer(
        vocab_size=49408, width=16, depth=1, heads=2, context=12, norm_epsilon=1e-5
    )
    dual = Dual(image, text, width=8)
    card = Preprocessing((16, 16))
    inputs = {"image": jnp.zeros((1, 16, 16, 3)), "text": jnp.zeros((1, 12), jnp.int32)}
    shapes = jax.eval_shape(lambda: dual.init(jax.random.key(0), inputs)["params"])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(rng.normal(0, 0.3, x.shape), x.dtype), shapes)
    learned = {"contrast": {"log_scale": np.float32(2)}}
    trees = {"params": params, "model_state": {}, "objective": learned}
    tensors = library_tensors(dual, trees, "open_clip", (16, 16))
    write_safetensors(tmp_path / "open_clip_model.safetensors", tensors, {})
    for name, content in config_of("open_clip", dual, card, learned=("log_scale",)).items():
        (tmp_path / name).write_text(json.dumps(content))
    run = vision.load(tmp_path)
    named = run.zero_shot(["a cat", "a dog"], ["a photo of {}."])
    pixels = noise(0, (16, 16))
    said = named.predict(pixels)[0].probabilities

    mean, std = (np.asarray(x, np.float32) for x in (card.mean, card.std))
    ids = ClipTokenizer(length=12).encode(["a photo of a cat.", "a photo of a dog."])
    batch = {"image": ((pixels / 255 - mean) / std)[None].astype(np.float32), "text": np.array(ids)}
    out = jax.jit(lambda x: forward(dual, params, {}, x, train=False)[1])(batch)
    scores = np.exp(2.0) * np.asarray(out["image/embedding"] @ out["text/embedding"].T)[0]
    expected = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(list(said.values()), expected, rtol=1e-3)
    assert list(said) == ["a cat", "a dog"]
    assert named.explain(pixels, "a dog").heat.shape == (16, 16)


def test_which_folder_is_of_which_library(workdir: Path, left: Path, tmp_path: Path):
    assert weights_source("timm:resnet50.a1_in1k") == "timm:resnet50.a1_in1k"
    assert weights_source(str(left)) == f"transformers:{left}"
    assert weights_source(str(workdir)) is None
    assert weights_source(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    assert weights_source(str(tmp_path)) == f"timm:{tmp_path}"
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert weights_source(str(tmp_path)) == f"open_clip:{tmp_path}"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--model=LEFT", "--workdir=x"],
            ["--workdir=x and --model=", "are two models: leave one"],
        ),
        (["--model=DATA"], ["neither timm:", "--workdir=..."]),
        (["--model=LEFT", "--step=3"], ["is no run and has no step 3"]),
        (["--model=LEFT", "--classes=a,b"], ["is no dual encoder", "has its own"]),
        (["--model=timm:EMPTY"], ["EMPTY", "no card"]),
    ],
)
def test_mistakes_are_one_line(
    left: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    words: list[str],
):
    (tmp_path / "EMPTY").mkdir()
    places = {"LEFT": str(left), "DATA": str(data), "EMPTY": str(tmp_path / "EMPTY")}
    for name, path in places.items():
        flags = [flag.replace(name, path) for flag in flags]
    assert call(*flags, data / "ant", f"--out={tmp_path}/p.csv") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert all(word.replace("EMPTY", places["EMPTY"]) in error for word in words), error
