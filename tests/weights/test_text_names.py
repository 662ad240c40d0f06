"""Image-text models and BERT, read and run here: see bench/goldens/weights_text.py."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from vision.blocks.contrast import Sigmoid, Softmax
from vision.checkpoint.reading import flatten
from vision.config import specs as configs
from vision.config.specs import spec
from vision.models.dual import Dual
from vision.models.resnet import ResNet
from vision.models.text import TextTransformer
from vision.models.vgg import VGG
from vision.models.vit import ViT
from vision.run.compile import lay_out
from vision.run.experiment import check
from vision.run.initial import init_state
from vision.run.prepare import prepare
from vision.train.tower import forward, initialise
from vision.weights.families.dual import usual
from vision.weights.families.resnet import timm_resnet
from vision.weights.families.vgg import torchvision_vgg
from vision.weights.fit import fit_positions
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError, load, save
from vision.weights.names import names_of
from vision.weights.reader import open_weights, write_safetensors

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "golden" / "weights" / "text"
Image = functools.partial(ViT, width=16, depth=2, heads=2, patch=4, mlp_dim=32)
Text = functools.partial(
    TextTransformer, vocab_size=40, width=16, depth=2, heads=2, mlp_dim=32, context=8
)
CLIP_IMAGE = functools.partial(Image, class_position=True, pre_norm=True, norm_epsilon=1e-5)
BERT = functools.partial(Text, causal=False, post_norm=True, segments=2, norm_epsilon=1e-12)
CLIP = Dual(
    CLIP_IMAGE(activation="quick_gelu"),
    Text(pool="argmax", norm_epsilon=1e-5, activation="quick_gelu"),
    width=12,
)
SIGLIP = Dual(
    Image(pool="map", activation="gelu_tanh"),
    Text(causal=False, pad_id=None, activation="gelu_tanh"),
    width=16,
    image_projection=False,
    bias=True,
)
WHOLE_BERT = BERT(pool="first", pooler=True, masked_head=True)
TEMPERATURE, BIAS = {"log_scale": 0.0}, {"log_scale": 0.0, "bias": 0.0}

CASES: dict[str, tuple[str, Dual, dict[str, float]]] = {
    "open_clip_clip": ("open_clip", CLIP, TEMPERATURE),
    "open_clip_siglip": ("open_clip", SIGLIP, BIAS),
    "open_clip_bert": ("open_clip", Dual(CLIP_IMAGE(), BERT(pool="mean"), width=12), TEMPERATURE),
    "big_vision_siglip": ("big_vision", SIGLIP, BIAS),
    "transformers_clip": ("transformers", CLIP, TEMPERATURE),
    "transformers_siglip": ("transformers", SIGLIP, BIAS),
    "transformers_siglip2": ("transformers", SIGLIP, BIAS),
}


@functools.cache
def golden(case: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Their weights and what they computed."""
    file = GOLDENS / f"{case}.safetensors"
    tensors = {name: np.asarray(t[...]) for name, t in open_weights(file).items()}
    weights = {k.removeprefix("weights/"): v for k, v in tensors.items() if k[:8] == "weights/"}
    if file.with_suffix(".npz").exists():
        weights = {k: v[...] for k, v in open_weights(file.with_suffix(".npz")).items()}
    return weights, {k: v for k, v in tensors.items() if k[:8] != "weights/"}


@functools.cache
def shapes(model: Any) -> Any:
    ids = jax.ShapeDtypeStruct((3, 8), np.int32)
    images = jax.ShapeDtypeStruct((3, 16, 16, 3), np.float32)
    inputs = {"image": images, "text": ids} if isinstance(model, Dual) else ids
    if isinstance(model, ViT | VGG | ResNet):
        inputs = images if isinstance(model, ViT) else np.zeros((1, 32, 32, 3), np.float32)
    return jax.eval_shape(functools.partial(initialise, model), jax.random.key(0), inputs)


def fresh(model: Any, learned: dict[str, float] | None = None) -> dict[str, Any]:
    """Variables of a model, every number 7 so that what was not read can be told."""
    params, state = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), shapes(model))
    found: dict[str, Any] = {"params": params, "model_state": dict(state)}
    if learned is not None:
        found["objective"] = {"contrast": {k: np.float32(7) for k in learned}, "other": {}}
    return found


def untouched(variables: Any) -> list[str]:
    return [name for name, x in flatten(variables).items() if (np.asarray(x) == 7).all()]


@functools.cache
def compiled(model: Any) -> Any:
    def apply(params: Any, inputs: Any, more: dict[str, Any]) -> Any:
        return forward(model, params, {}, inputs, train=False, **more)[1]

    return jax.jit(apply, compiler_options={"xla_backend_optimization_level": 0})


def run(model: Any, params: Any, inputs: Any, **more: Any) -> dict[str, Any]:
    return compiled(model)(params, inputs, more)


def assert_near(found: Any, wanted: np.ndarray, name: str) -> None:
    assert found.shape == wanted.shape, name
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < 1e-4, (name, error)


def assert_back(names: Any, tree: Any, weights: dict[str, np.ndarray]) -> None:
    """What is written is what was read, bit for bit, and only what has no place is left out."""
    back = save(names, tree)
    assert back.keys() <= weights.keys()
    for name in weights.keys() - back.keys():
        assert any(re.fullmatch(pattern, name) for pattern in names.ignored), name
    for name, array in back.items():
        assert array.dtype == weights[name].dtype
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


@pytest.mark.parametrize("case", ["open_clip_clip", "transformers_clip"])
def test_special_tokens_as_text_are_read_where_theirs_are(case):
    """At the first end of text, whatever transformers calls the end in its config."""
    library, dual, _ = CASES[case]
    names = names_of(library, dual, golden(case)[0])
    params = load(names, golden(case)[0], fresh(dual), source=case)["params"]
    ids, expected = golden("literal")[1]["ids"], golden("literal")[1]
    found = run(dual, params, {"text": ids})["text/embedding"]
    for name in expected.keys() & {f"{case}/embedding", f"{case}_older/embedding"}:
        assert_near(found, expected[name], name)
    # transformers pads with the end of text itself: the first one counts, here as there.
    padded = np.where(np.cumprod(ids[:, ::-1] == 0, 1)[:, ::-1] == 1, 39, ids)
    assert (padded != ids).any()
    assert_near(run(dual, params, {"text": padded})["text/embedding"], found, "padded with ends")
    last = Dual(dual.image, dual.text.clone(pool="last"), width=12)
    elsewhere = run(last, params, {"text": ids})["text/embedding"]
    cosines = (elsewhere * found).sum(-1)
    assert cosines[3] > 0.9999  # its only end is the last token
    assert (cosines[:3] < 0.99).all(), cosines


@pytest.mark.parametrize("case", CASES)
def test_complete_models(case):
    """Blocks of both towers, embeddings, and logits with temperature and bias."""
    library, dual, learned = CASES[case]
    weights, expected = golden(case)
    file = GOLDENS / f"{case}.npz"
    names = names_of(library, dual, weights, learned)
    target = fresh(dual, learned)
    del target["objective"]["other"]
    tree = load(names, weights, target, source=case)
    assert untouched(tree) == []
    out = run(dual, tree["params"], {"image": expected["images"], "text": expected["ids"]})
    for name in expected.keys() - {"images", "ids", "logits"}:
        assert_near(out[name], expected[name], name)
    assert sum("block" in name for name in expected) == 4
    criterion = Sigmoid() if "bias" in learned else Softmax()
    scale, bias = criterion.coefficients(tree["objective"]["contrast"])
    logits = scale * out["image/embedding"] @ out["text/embedding"].T + bias
    assert_near(logits, expected["logits"], "logits")
    assert_back(names, tree, weights)
    if case not in ("open_clip_bert", "transformers_siglip2"):
        anew = save(names_of(library, dual, usual(library, dual), learned), tree)
        assert {k: v.shape for k, v in anew.items()} == {
            k: weights[k].shape for k in save(names, tree)
        }
    if file.exists():
        found = InitFrom(f"{library}:{file}").load(dual, fresh(dual, learned))
        jax.tree.map(
            np.testing.assert_array_equal,
            found["objective"]["contrast"],
            {"log_scale": np.float32(1.7), "bias": np.float32(-2.25)},
        )


def test_bert():
    """Segments, padding, the pooler and what it tells of masked tokens; old and bare names."""
    weights, expected = golden("transformers_bert")
    names = names_of("transformers", WHOLE_BERT, weights)
    tree = load(names, weights, fresh(WHOLE_BERT), source="bert")
    given = {"segment_ids": expected.pop("segment_ids")}
    out = run(WHOLE_BERT, tree["params"], expected["ids"], **given)
    for name in expected.keys() - {"ids"}:
        assert_near(out[name], expected[name], name)
    assert {"pooled", "token_logits", "block01"} <= expected.keys()
    assert_back(names, tree, weights)

    def older(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )

    bare = BERT(pool="first", pooler=True)
    for rename in (older, lambda name: name.removeprefix("bert.")):
        renamed = {rename(name): x for name, x in weights.items()}
        found = load(names_of("transformers", bare, renamed), renamed, fresh(bare))
        same = {name: tree["params"][name] for name in found["params"]}
        jax.tree.map(np.testing.assert_array_equal, found["params"], same)


def test_segments():
    """Without ids all tokens belong to the first."""
    weights, expected = golden("transformers_bert")
    names = names_of("transformers", WHOLE_BERT, weights)
    params = load(names, weights, fresh(WHOLE_BERT))["params"]
    ids = expected["ids"]
    plain = run(WHOLE_BERT, params, ids)["pooled"]
    zeros, ones = (
        run(WHOLE_BERT, params, ids, segment_ids=np.full_like(ids, segment))["pooled"]
        for segment in (0, 1)
    )
    np.testing.assert_allclose(plain, zeros, atol=1e-6)
    assert np.abs(plain - ones).max() > 1e-3
    with pytest.raises(ValueError, match="segment_ids are for a tower with segments"):
        run(BERT(segments=0), params, ids, segment_ids=ids)
    with pytest.raises(ValueError, match="segments is -1"):
        BERT(segments=-1)


@pytest.fixture
def clip_file(tmp_path):
    write_safetensors(tmp_path / "open_clip_model.safetensors", golden("open_clip_clip")[0])
    return tmp_path / "open_clip_model.safetensors"


def test_one_tower_of_a_complete_model(clip_file):
    found = InitFrom(f"open_clip:{clip_file}", into="text").load(CLIP, fresh(CLIP, TEMPERATURE))
    left = untouched(found)
    assert not any(name.startswith("params.text.") for name in left)
    rest = ["params.image_projection.kernel", "params.text_projection.kernel"]
    assert {*rest, "objective.contrast.log_scale"} <= {*left}
    alone = InitFrom(f"open_clip:{clip_file}").load(CLIP.text, fresh(CLIP.text))
    jax.tree.map(np.testing.assert_array_equal, alone["params"], found["params"]["text"])
    image = InitFrom(f"open_clip:{clip_file}").load(CLIP.image, fresh(CLIP.image))
    assert untouched(image) == []


def test_what_the_loss_learns(clip_file, tmp_path, caplog):
    """Another loss than the file's: what only the file has is passed over, the rest starts anew."""
    found = InitFrom(f"open_clip:{clip_file}").load(CLIP, fresh(CLIP, BIAS))
    assert untouched(found) == ["objective.contrast.bias"]
    assert "since the source has none: objective.contrast.bias" in caplog.text
    assert found["objective"]["contrast"]["log_scale"] == np.float32(1.7)
    assert found["objective"]["other"] == {}
    alone = InitFrom(f"open_clip:{clip_file}").load(CLIP, fresh(CLIP))
    assert alone.keys() == {"params", "model_state"}
    assert untouched(alone) == []
    _, dual, _ = CASES["open_clip_siglip"]
    write_safetensors(tmp_path / "siglip.safetensors", golden("open_clip_siglip")[0])
    source = f"open_clip:{tmp_path / 'siglip.safetensors'}"
    assert untouched(InitFrom(source).load(dual, fresh(dual, TEMPERATURE))) == []
    kept = InitFrom(source, kept=("contrast",)).load(dual, fresh(dual, BIAS))
    assert untouched(kept) == ["objective.contrast.bias", "objective.contrast.log_scale"]


@pytest.mark.parametrize(
    ("change", "dual", "message"),
    [
        ({"text_projection": None}, CLIP, r"text_projection is missing; params\.text_projection"),
        ({"ln_final.bias": None}, CLIP, r"ln_final\.bias is missing; params\.text\.norm\.bias"),
        ({"visual.extra": 3}, CLIP, r"tensor visual\.extra of shape \(3,\) has no place"),
        ({"transformer.resblocks.2.ln_1.bias": 16}, CLIP, r"resblocks\.2\.ln_1\.bias .* no place"),
        (
            {},
            CLIP.clone(image_projection=False, width=16),
            r"visual\.proj of shape \(16, 12\) has no place",
        ),
        ({}, CLIP.clone(bias=True), r"visual\.proj\.bias is missing; "),
        ({}, CLIP.clone(text=Text(context=9)), r"positional_embedding \(8, 16\) gives .*\(9, 16\)"),
        ({}, CLIP.clone(text=BERT()), r"pre-norm blocks.*set post_norm=False"),
        ({}, CLIP.clone(image=ResNet(depth=10)), "open_clip has no name map for a ResNet; .*Text"),
    ],
)
def test_another_model(clip_file, change, dual, message):
    weights = {**golden("open_clip_clip")[0]}
    for name, size in change.items():
        if size is None:
            del weights[name]
        else:
            weights[name] = np.zeros(size, np.float32)
    write_safetensors(clip_file, weights)
    with pytest.raises(WeightsError, match=message):
        InitFrom(f"open_clip:{clip_file}").load(dual, fresh(dual))


def test_torchvision(tmp_path):
    """Its files are read by their own names; there is nothing of it on the hub."""
    file = tmp_path / "weights.safetensors"
    vgg = VGG(depth=11, width_multiplier=1 / 32, hidden=4, num_classes=3)
    resnet = ResNet(depth=10, width_multiplier=1 / 32, num_classes=3)
    rng = np.random.default_rng(0)
    for tower, names in ((vgg, torchvision_vgg(vgg)), (resnet, timm_resnet(resnet))):
        tree = jax.tree.map(lambda x: rng.random(x.shape).astype(x.dtype), fresh(tower))
        write_safetensors(file, save(names, tree))
        found = InitFrom(f"torchvision:{file}", head="read").load(tower, fresh(tower))
        jax.tree.map(np.testing.assert_array_equal, found, tree)
    with pytest.raises(WeightsError, match="there are no weights at resnet50"):
        InitFrom("torchvision:resnet50").load(vgg, fresh(vgg))
    with pytest.raises(WeightsError, match="torchvision has no name map for a ViT; it has for C"):
        InitFrom(f"torchvision:{file}").load(CLIP.image, fresh(CLIP.image))
    with pytest.raises(WeightsError, match="torchvision has no image-text models"):
        InitFrom(f"torchvision:{file}").load(CLIP, fresh(CLIP))


@pytest.mark.slow
def test_the_first_state_of_a_run(clip_file, monkeypatch):
    """The temperature arrives in the objective's network, and a later run reads it from there."""
    monkeypatch.chdir(ROOT)
    few = {"data.batch_size": "4", "data.source.num_examples": "8"}
    config: Any = configs.load("configs/clip_scenes.py", few)
    config.data.ops[-1].tokenizer.length = 8
    config.evaluators = {}
    config.model = spec(
        Dual,
        image=spec(
            ViT,
            width=16,
            depth=2,
            heads=2,
            patch=4,
            mlp_dim=32,
            class_position=True,
            pre_norm=True,
            norm_epsilon=1e-5,
            activation="quick_gelu",
        ),
        text=spec(
            TextTransformer,
            vocab_size=40,
            width=16,
            depth=2,
            heads=2,
            mlp_dim=32,
            context=8,
            norm_epsilon=1e-5,
            activation="quick_gelu",
        ),
        width=12,
    )
    config.init_from = spec(InitFrom, source=f"open_clip:{clip_file}")
    check(config)
    prepared = prepare(config)
    experiment = prepared.experiment
    mesh = experiment.mesh.build(jax.devices()[:1])
    abstract = lay_out(prepared.step, prepared.batch, mesh, experiment.sharding)
    state = init_state(dataclasses.replace(prepared, mesh=mesh), abstract)
    assert state.params["contrast"]["log_scale"] == np.float32(1.7)
    table = golden("open_clip_clip")[0]["token_embedding.weight"]
    model = state.params["model"]
    np.testing.assert_array_equal(model["text"]["token_embed"]["embedding"], table)
    mine = clip_file.with_name("mine.safetensors")
    everything = flatten({"params": state.params, "opt_state": {"count": np.zeros(())}})
    write_safetensors(mine, {name: np.asarray(x) for name, x in everything.items()})
    found = InitFrom(f"safetensors:{mine}").load(CLIP, fresh(CLIP, TEMPERATURE))
    assert untouched(found) == []
    assert found["objective"]["contrast"]["log_scale"] == np.float32(1.7)
    # Scenes are larger than the images of CLIP: the positions went to their grid, and come back.
    grids = [params["image"].pop("pos_embed") for params in (found["params"], model)]
    np.testing.assert_array_equal(grids[0], fit_positions(np.asarray(grids[1]), (4, 4, 16)))
    jax.tree.map(np.testing.assert_array_equal, found["params"], dict(model))
