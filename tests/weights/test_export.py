from __future__ import annotations

import ast
import functools
import io
import json
import math
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vision.blocks.adapters import Lora
from vision.blocks.scale import Scale
from vision.checkpoint.reading import flatten
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.config import specs as configs
from vision.config.specs import build, spec, to_json
from vision.models.adapted import AdaptedTower
from vision.models.convnext import ConvNeXt
from vision.models.dual import Dual
from vision.models.resnet import ResNet
from vision.models.swin import Swin
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.run.experiment import check
from vision.run.prepare import prepare
from vision.run.restore import load_run
from vision.train.objective import Variables
from vision.train.state import digest
from vision.train.tower import forward, initialise
from vision.weights import cards, serve_artefact
from vision.weights.artefact import LABELS, PROGRAM, make_artefact
from vision.weights.configs import config_of
from vision.weights.export import as_used, export, library_tensors, main
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.preprocessing import Preprocessing
from vision.weights.reader import open_weights

ROOT = Path(__file__).resolve().parents[2]
CARD = Preprocessing(size=(16, 16))


def write_run(folder, **overrides):
    """Writes what a run of two steps leaves; its variables are random."""
    sizes = {"model.width": "16", "model.depth": "2", "model.patch": "4", "model.heads": "2"}
    sizes["model.posemb"] = "sincos2d"
    config = configs.load(str(ROOT / "configs" / "digits_vit.py"), sizes)
    if overrides:
        config.model = spec(AdaptedTower, tower=config.model, **overrides)
    check(config)
    prepared = prepare(config)
    rng = np.random.default_rng(0)
    state = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape) / 3, x.dtype),
        jax.eval_shape(prepared.step.init, prepared.batch),
    )
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(to_json(config))
    prepared.data_spec.save(folder / "run.json")
    store = CheckpointStore(folder, Checkpoints())
    store.save(2, state, {"step": 2}, wait=True)
    store.close()
    metrics = {"metrics": {"top1": 0.125, "nll": None}, "figures": {}}
    report = {"step": 2, "evaluators": {"test": metrics}}
    (folder / "evaluation.json").write_text(json.dumps(report))
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def run(workdir):
    return load_run(workdir)


@pytest.fixture(scope="module")
def digits():
    return np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def logits(run, digits):
    return np.asarray(
        run.predict(run.variables, {"image": jnp.asarray(digits / 127.5 - 1)})["logits"]
    )


def averaged(run):
    return {"params": run.variables.params["model"], "model_state": {}}


def test_ours(workdir, run, tmp_path):
    export(workdir, tmp_path, licence="apache-2.0")
    found = InitFrom(f"safetensors:{tmp_path}", head="read").load(
        run.experiment.model, jax.tree.map(np.zeros_like, averaged(run))
    )
    jax.tree.map(np.testing.assert_array_equal, found["params"], averaged(run)["params"])
    text = (tmp_path / "README.md").read_text()
    weights = open_weights(tmp_path)
    tensors = {name: tensor[...] for name, tensor in weights.items()}
    assert weights.metadata["digest"] == digest(tensors)
    for part in (
        "license: apache-2.0",
        "training step: 2",
        "`Digits(",
        "split='train'",
        "| test | top1 | 0.125 |",
        "| test | nll |  |",
        digest(tensors),
        "vision 0.1.0",
    ):
        assert part in text
    assert json.loads((tmp_path / "config.json").read_text())["model"]["width"] == 16
    assert cards.read(f"safetensors:{tmp_path}") == (
        Preprocessing(size=(8, 8), mode="squash", mean=(0.5,), std=(0.5,)),
        tmp_path / "preprocessing.json",
    )


@pytest.mark.slow
def test_adapters_leave_merged(tmp_path, digits):
    """A plain tower, in its config and in its weights, that computes what the tuned one does."""
    adapters = (spec(Lora, pattern="qkv", rank=2), spec(Lora, rank=2, magnitude=True))
    workdir = write_run(tmp_path / "run", adapters=adapters)
    tuned = load_run(workdir)
    images = jnp.asarray(digits / 127.5 - 1)
    wanted = jax.jit(tuned.predict)(tuned.variables, {"image": images})["logits"]
    for folder in ("a", "b"):
        export(workdir, tmp_path / folder, to="ours" if folder == "a" else "timm")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    plain = build(configs.from_plain(config["model"])).clone(num_classes=10)
    assert isinstance(plain, ViT)
    found = []
    for source, tower in (
        (f"safetensors:{tmp_path}/a", plain),
        (f"timm:{tmp_path}/b", plain.clone(posemb="learned")),
        (f"workdir:{workdir}", plain),
    ):
        shapes = jax.eval_shape(functools.partial(initialise, tower), jax.random.key(0), images)
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        target = {"params": blank[0], "model_state": dict(blank[1])}
        found.append(InitFrom(source, head="read").load(tower, target)["params"])
    ours, timms, runs = found
    logits = jax.jit(lambda p: forward(plain, p, {}, images, train=False)[1]["logits"])(ours)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    inner = tuned.variables.params["model"]["tower"]
    kernel = inner["blocks"]["attn"]["qkv"]["kernel"]
    assert np.abs(kernel - ours["blocks"]["attn"]["qkv"]["kernel"]).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, runs, ours)
    timms.pop("pos_embed")
    jax.tree.map(np.testing.assert_array_equal, timms, ours)


def test_timm(workdir, run, tmp_path):
    """Fixed positions leave as learned ones, and everything else comes back bit for bit."""
    export(workdir, tmp_path, to="timm")
    model = run.experiment.model.clone(posemb="learned")
    blank = {**averaged(run)["params"], "pos_embed": np.zeros((2, 2, 16), np.float32)}
    target = {"params": jax.tree.map(np.zeros_like, blank), "model_state": {}}
    found = InitFrom(f"timm:{tmp_path}", head="read").load(model, target)["params"]
    assert np.abs(found.pop("pos_embed")).max() == 1
    jax.tree.map(np.testing.assert_array_equal, found, averaged(run)["params"])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "vit_base_patch16_224"
    assert config["model_args"]["in_chans"] == 1
    assert config["label_names"] == [str(i) for i in range(10)]
    assert config["pretrained_cfg"]["classifier"] == "head"
    assert config["pretrained_cfg"]["first_conv"] == "patch_embed.proj"
    found = cards.read(f"timm:{tmp_path}")
    assert found is not None
    assert found[0].size == (8, 8)


def test_dtype(workdir, tmp_path):
    assert main([f"--workdir={workdir}", f"--output={tmp_path}", "--dtype=bfloat16"]) == 0
    exact = load_run(workdir).variables.params["model"]["head"]["kernel"]
    found = open_weights(tmp_path)["params.model.head.kernel"][...]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, np.asarray(exact).astype(jnp.bfloat16))


def test_program(workdir, logits, digits, tmp_path, capsys):
    """Of any number of images, what predict gives."""
    export(workdir, tmp_path, stablehlo=True)
    program = jax.export.deserialize(bytearray((tmp_path / PROGRAM).read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(program.call(digits)["logits"], logits, rtol=1e-5, atol=1e-5)
    picture = tmp_path / "digit.png"
    picture.write_bytes(_png(digits[0]))
    capsys.readouterr()
    assert serve_artefact.main([str(tmp_path), str(picture)]) == 0
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum()
    best = int(shares.argmax())
    name = json.loads((tmp_path / LABELS).read_text())[best]
    assert capsys.readouterr().out.startswith(f"{picture}  {name} {shares[best]:.1%}")
    assert serve_artefact.main([str(tmp_path), str(tmp_path / PROGRAM)]) == 1
    assert "not an image" in capsys.readouterr().err
    assert serve_artefact.main([str(tmp_path.parent), str(picture)]) == 1
    assert "holds no exported program" in capsys.readouterr().err


def test_a_program_that_counts_its_images_is_named():
    def predict(variables, batch):
        return {"logits": batch["image"].reshape(len(batch["image"]), -1)}

    with pytest.raises(WeightsError, match=r"test_export.py:\d+ needs the number of images as an"):
        make_artefact(predict, Variables({}, {}, {}), CARD)


def test_serving_needs_no_model_code():
    """What the module imports, and what that imports, and so on."""
    seen, todo = set(), ["vision.weights.serve_artefact"]
    while todo:
        module = todo.pop()
        path = ROOT / module.replace(".", "/")
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module in seen or not path.is_file():
            continue
        seen.add(module)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vision"):
                todo += [node.module or "", *(f"{node.module}.{x.name}" for x in node.names)]
    assert "vision.data.ops.geometry" in seen
    assert not [module for module in seen if module.startswith("vision.models")]


def _png(array):
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0]).save(file, "PNG")
    return file.getvalue()


CLIP = ViT(
    width=16,
    depth=1,
    heads=2,
    patch=4,
    class_position=True,
    pre_norm=True,
    norm_epsilon=1e-5,
)
TEXT = TextTransformer(20, width=8, depth=1, heads=2, context=6, norm_epsilon=1e-5)


@pytest.mark.parametrize(
    ("to", "model", "message"),
    [
        ("timm", Dual(CLIP, TEXT, width=8), "timm has no image-text models"),
        ("open_clip", CLIP, "open_clip keeps image-text models"),
        ("open_clip", Dual(CLIP, TEXT, width=8, bias=True), "its model has bias=False"),
        ("open_clip", Dual(ResNet(18), TEXT, width=8), "of a ViT and a TextTransformer only"),
        ("transformers", Swin("T"), "no name map for a Swin"),
        ("transformers", CLIP, "its model has pre_norm=False, this ViT pre_norm=True"),
        ("timm", ResNet(50, width_multiplier=2.0), "timm has no ResNet with width_multiplier"),
        ("timm", CLIP.clone(norm_epsilon=1e-3), "timm has no name for a ViT with norm_epsilon"),
    ],
)
def test_what_a_library_does_not_have(to, model, message):
    with pytest.raises(WeightsError, match=message):
        config_of(to, model, CARD, learned=("log_scale",))


def test_image_text_models():
    """Names of every array of a model and of its loss, and the sizes that a config tells."""
    dual = Dual(CLIP, TEXT, width=8)
    inputs = {"image": jnp.zeros((1, 16, 16, 3)), "text": jnp.zeros((1, 6), jnp.int32)}
    shapes = jax.eval_shape(lambda: dual.init(jax.random.key(0), inputs)["params"])
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    learned = {"contrast": {"log_scale": np.float32(2)}}
    trees = {"params": params, "model_state": {}, "objective": learned}
    tensors = library_tensors(dual, trees, "open_clip", (16, 16))
    assert sum(x.size for x in tensors.values()) == sum(x.size for x in flatten(trees).values())
    assert float(tensors["logit_scale"]) == 2
    assert tensors["visual.conv1.weight"].shape == (16, 3, 4, 4)
    assert "vision_model.post_layernorm.bias" in library_tensors(
        dual, trees, "transformers", (16, 16)
    )
    config = config_of("open_clip", dual, CARD, learned=("log_scale",))
    model = config["open_clip_config.json"]["model_cfg"]
    assert (model["embed_dim"], model["text_cfg"]["context_length"]) == (8, 6)
    with pytest.raises(WeightsError, match="this loss learns none"):
        config_of("open_clip", dual, CARD)


def test_where_a_text_is_read_elsewhere_is_said(caplog):
    """The libraries read CLIP's texts at the largest id, which need not end a row of ours."""
    learned = ("log_scale",)
    for pool, vocab_size, warned in (("last", 40, 1), ("argmax", 40, 0), ("last", 49408, 0)):
        caplog.clear()
        dual = Dual(CLIP, TEXT.clone(pool=pool, vocab_size=vocab_size), width=8)
        for to in ("open_clip", "transformers"):
            config_of(to, dual, CARD, learned=learned)
        lines = [x.getMessage() for x in caplog.records if "the largest id of all" in x.message]
        assert len(lines) == 2 * warned
        assert not warned or lines[0].endswith("39")
    with pytest.raises(WeightsError, match="its model has pool='last'"):
        config_of("open_clip", Dual(CLIP, TEXT.clone(pool="mean"), width=8), CARD, learned=learned)


def test_names_of_timm():
    config = config_of("timm", ConvNeXt("tiny", num_classes=3, grn=True), CARD)["config.json"]
    assert config["architecture"] == "convnextv2_tiny"
    assert config["pretrained_cfg"]["classifier"] == "head.fc"
    assert not config["model_args"]["conv_mlp"]
    small = config_of("timm", ConvNeXt("atto", num_classes=3), CARD)["config.json"]
    assert small["model_args"]["conv_mlp"]
    deep = ResNet(50, num_classes=3, stem="deep", downsample="average", groups=32, group_width=4)
    config = config_of("timm", deep, CARD)["config.json"]
    assert config["model_args"] == {
        "stem_type": "deep",
        "stem_width": 32,
        "avg_down": True,
        "cardinality": 32,
        "base_width": 4,
    }


def test_bad_commands(workdir, tmp_path):
    with pytest.raises(WeightsError, match="--to=onnx, but it is one of ours, timm"):
        main([f"--workdir={workdir}", f"--output={tmp_path}", "--to=onnx"])
    with pytest.raises(WeightsError, match="--dtype=int8"):
        main([f"--workdir={workdir}", f"--output={tmp_path}", "--dtype=int8"])
    assert not list(tmp_path.iterdir())


def test_the_scale_is_exported_as_the_run_used_it():
    """The parameter may lie beyond its bound: CLIP's is ln 100."""
    learned = {"log_scale": np.float32(4.7088), "bias": np.float32(1)}
    clamped = as_used(Scale(), learned)
    assert float(clamped["log_scale"]) == np.float32(math.log(100))
    assert float(np.exp(clamped["log_scale"])) == pytest.approx(float(Scale().value(learned)))
    assert clamped["bias"] == 1
    assert float(as_used(Scale(), {"log_scale": np.float32(2)})["log_scale"]) == 2
    free = as_used(Scale(10.0, None), learned)
    assert float(free["log_scale"]) == np.float32(4.7088)
