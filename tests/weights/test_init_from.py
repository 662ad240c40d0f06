from __future__ import annotations

import dataclasses
import functools
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vision.blocks.adapters import Lora
from vision.checkpoint.reading import flatten
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.config import specs as configs
from vision.config.errors import UserError
from vision.config.specs import spec
from vision.models.adapted import AdaptedTower
from vision.models.convnext import ConvNeXt
from vision.models.dual import Dual
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.parallel.mesh import ShardingRule
from vision.run.compile import lay_out
from vision.run.experiment import check
from vision.run.initial import init_state
from vision.run.prepare import prepare
from vision.train.tower import initialise
from vision.weights import hub
from vision.weights.fit import fit_positions
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.reader import open_weights, write_safetensors

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "tests" / "golden" / "weights" / "vit"
Tiny = functools.partial(ViT, width=16, depth=2, heads=2, patch=4, mlp_dim=32)
AUGREG = Tiny(num_classes=5, class_position=True)
CLIP = Tiny(class_position=True, pre_norm=True, norm_epsilon=1e-5, activation="quick_gelu")


def weights_of(case):
    file = open_weights(GOLDENS / f"{case}.safetensors")
    return {k.removeprefix("weights/"): t[...] for k, t in file.items() if k[:8] == "weights/"}


def fresh(tower: Any, shape: Any = (1, 16, 16, 3)):
    """Variables of a tower, every number 7 so that what was not read can be told."""
    images = jax.ShapeDtypeStruct(shape, np.float32)
    inputs = images
    if isinstance(tower, Dual):
        inputs = {"image": images, "text": jax.ShapeDtypeStruct((1, 4), np.int32)}
    shapes = jax.eval_shape(functools.partial(initialise, tower), jax.random.key(0), inputs)
    params, state = jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), shapes)
    return {"params": params, "model_state": dict(state)}


def untouched(variables):
    return [name for name, x in flatten(variables).items() if (np.asarray(x) == 7).all()]


@pytest.fixture
def timm_file(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", weights_of("timm_augreg"))
    return tmp_path / "model.safetensors"


def test_all_of_it(timm_file):
    found = InitFrom(f"timm:{timm_file}", head="read").load(AUGREG, fresh(AUGREG))
    assert untouched(found) == []
    assert jax.tree.structure(found) == jax.tree.structure(fresh(AUGREG))
    head = weights_of("timm_augreg")["head.weight"].T
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], head)
    folder = InitFrom(f"timm:{timm_file.parent}").load(AUGREG, fresh(AUGREG))
    jax.tree.map(np.testing.assert_array_equal, folder, found)


def test_head(timm_file, caplog):
    other = Tiny(num_classes=9, class_position=True)
    source = f"timm:{timm_file}"
    found = InitFrom(source).load(other, fresh(other))
    assert untouched(found) == ["params.head.bias", "params.head.kernel"]
    assert "params.head.bias, params.head.kernel" in caplog.text
    assert "9)" in caplog.text
    new = InitFrom(source, head="new").load(AUGREG, fresh(AUGREG))
    assert untouched(new) == ["params.head.bias", "params.head.kernel"]
    with pytest.raises(WeightsError, match=r"params\.head\.\w+ has shape \(.*9"):
        InitFrom(source, head="read").load(other, fresh(other))
    none = Tiny(class_position=True)
    assert untouched(InitFrom(source).load(none, fresh(none))) == []


def test_kept(timm_file):
    found = InitFrom(f"timm:{timm_file}", kept=("pos_embed", r"norm\.")).load(AUGREG, fresh(AUGREG))
    kept = ["cls_pos_embed", "norm.bias", "norm.scale", "pos_embed"]
    assert untouched(found) == [f"params.{name}" for name in kept]
    with pytest.raises(WeightsError, match="kept='nothing' is in the name of no parameter"):
        InitFrom(f"timm:{timm_file}", kept=("nothing",)).load(AUGREG, fresh(AUGREG))


def test_a_tower_in_a_dual_encoder(tmp_path, caplog):
    """The image side of a complete CLIP; what belongs to the text is passed over."""
    weights = {f"visual.{k}": v for k, v in weights_of("open_clip").items()}
    others = {
        "positional_embedding": np.zeros((4, 8), np.float32),
        "token_embedding.weight": np.zeros((5, 8), np.float32),
        "transformer.resblocks.0.ln_1.weight": np.zeros(8, np.float32),
        "logit_scale": np.zeros((), np.float32),
    }
    file = tmp_path / "open_clip_model.safetensors"
    write_safetensors(file, weights | others)
    dual = Dual(CLIP, TextTransformer(vocab_size=5, width=8, depth=1, heads=2, context=4), width=8)
    found = InitFrom(f"open_clip:{tmp_path}", into="image").load(dual, fresh(dual))
    assert not any(name.startswith("params.image.") for name in untouched(found))
    assert any(name.startswith("params.text.") for name in untouched(found))
    assert "params.image_projection.kernel" in untouched(found)
    with pytest.raises(WeightsError, match="into='picture', but the model has image, "):
        InitFrom(f"open_clip:{file}", into="picture").load(dual, fresh(dual))
    write_safetensors(file, weights | others | {"visual.surprise": np.zeros(3, np.float32)})
    with pytest.raises(WeightsError, match=r"tensor visual\.surprise of shape \(3,\)"):
        InitFrom(f"open_clip:{file}", into="image").load(dual, fresh(dual))


def test_prefixes(tmp_path):
    weights = weights_of("transformers_vit")
    assert {name.partition(".")[0] for name in weights} == {"vit", "classifier"}
    write_safetensors(tmp_path / "model.safetensors", weights)
    tower = Tiny(num_classes=5, class_position=True, norm_epsilon=1e-12)
    found = InitFrom(f"transformers:{tmp_path}", head="read").load(tower, fresh(tower))
    assert untouched(found) == []
    siglip = Tiny(pool="map", activation="gelu_tanh")
    file = GOLDENS / "big_vision.npz"
    assert untouched(InitFrom(f"big_vision:{file}").load(siglip, fresh(siglip))) == []


def test_another_run(tmp_path):
    params = jax.tree.map(lambda x: jnp.asarray(x) + 1, fresh(AUGREG)["params"])
    state = {"params": {"model": params}, "model_state": {"model": {}}, "opt_state": params}
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(3, state, {"step": 3}, wait=True)
    store.close()
    for source in (f"workdir:{tmp_path}", f"workdir:{tmp_path}@3"):
        found = InitFrom(source).load(AUGREG, fresh(AUGREG))
        jax.tree.map(np.testing.assert_array_equal, found["params"], params)
    with pytest.raises(UserError, match="no valid checkpoint of step 4"):
        InitFrom(f"workdir:{tmp_path}@4").load(AUGREG, fresh(AUGREG))


def test_of_a_run_that_keeps_an_average_this_is_read(tmp_path):
    """As evaluation does; a tuned image-text model gets what its loss learned there, too."""
    text = TextTransformer(vocab_size=5, width=8, depth=1, heads=2, context=4)
    dual = Dual(Tiny(), text, width=8)
    raw = jax.tree.map(jnp.asarray, fresh(dual)["params"])
    average = jax.tree.map(lambda x: x + 1, raw)
    learned = {"log_scale": jnp.float32(2), "bias": jnp.float32(-3)}
    state = {
        "params": {"model": raw, "contrast": jax.tree.map(jnp.zeros_like, learned)},
        "model_state": {"model": {}},
        "extra_state": {
            "ema": {
                "params": {"model": average, "contrast": learned},
                "model_state": {"model": {}},
            }
        },
    }
    store = CheckpointStore(tmp_path, Checkpoints())
    store.save(3, state, {"step": 3}, wait=True)
    store.close()
    blank = {"contrast": jax.tree.map(np.zeros_like, learned), "grouping": {"w": np.zeros(2)}}
    for model, into in ((dual, ""), (AdaptedTower(dual, (Lora(pattern="qkv"),)), "tower")):
        variables = fresh(dual)
        if into:
            params = {"tower": variables["params"], "adapters": {"a": np.zeros(1)}}
            variables = {"params": params, "model_state": {}}
        found = InitFrom(f"workdir:{tmp_path}", into=into).load(
            model, {**variables, "objective": blank}
        )
        params = found["params"]
        assert jax.tree.structure(params) == jax.tree.structure(variables["params"])
        jax.tree.map(np.testing.assert_array_equal, params[into] if into else params, average)
        assert found["objective"]["contrast"] == learned
        assert found["objective"]["grouping"] is blank["grouping"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:/nowhere/model.safetensors", "no weights at /nowhere/model.safetensors"),
        ("timm:/nowhere/x:y", "neither a file or folder here nor organisation/name on the hub"),
        ("transformers:model", "neither a file or folder here nor organisation/name"),
        ("workdir:/nowhere", "holds no valid checkpoint"),
        ("workdir:/nowhere@last", "'last' is neither a number nor best"),
    ],
)
def test_sources_that_are_not_there(source, message):
    with pytest.raises(UserError, match=message):
        InitFrom(source).load(AUGREG, fresh(AUGREG))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "torch:x.pt"}, "starts with one of timm:, torchvision:, open_clip:"),
        ({"source": "timm"}, "starts with one of"),
        ({"source": "timm:"}, "starts with one of"),
        ({"source": "timm:x", "head": "old"}, "head is 'old', expected one of"),
        ({"source": "timm:x", "kept": ("(",)}, r"kept\[0\] is '\(', expected a regular expression"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        InitFrom(**fields)


def test_libraries_without_a_map(timm_file):
    tower = ConvNeXt(variant="tiny")
    with pytest.raises(WeightsError, match=r"big_vision has no name map for a ConvNeXt; .* ViT"):
        InitFrom(f"big_vision:{timm_file}").load(tower, fresh(AUGREG))


@pytest.mark.slow
def test_the_first_state_of_a_run(tmp_path, monkeypatch, caplog):
    """Parameters and their average are those of the file, laid out as the run asks."""
    monkeypatch.chdir(ROOT)
    overrides = {"model.width": "16", "model.depth": "1", "model.patch": "4", "mesh.fsdp": "2"}
    config = configs.load("configs/digits_vit.py", overrides)
    trained = ViT(width=16, depth=1, heads=4, patch=4, pool="mean", num_classes=3)
    params, _ = initialise(trained, jax.random.key(5), jnp.zeros((1, 16, 16, 1)))
    file = tmp_path / "mine.safetensors"
    names = flatten({"params": params})
    write_safetensors(file, {name: np.asarray(x) for name, x in names.items()})
    (tmp_path / "preprocessing.json").write_text('{"mean": [0.25], "std": [0.5]}')
    config.init_from = spec(InitFrom, source=f"safetensors:{file}")
    config.sharding = (spec(ShardingRule, pattern=".*", layout="fsdp", min_size=64),)
    check(config)
    prepared = prepare(config)
    experiment, step = prepared.experiment, prepared.step
    mesh = experiment.mesh.build(jax.devices()[:2])
    abstract = lay_out(step, prepared.batch, mesh, experiment.sharding)
    state = init_state(dataclasses.replace(prepared, mesh=mesh), abstract)
    model = state.params["model"]
    kernel = model["blocks"]["attn"]["qkv"]["kernel"]
    np.testing.assert_array_equal(kernel, params["blocks"]["attn"]["qkv"]["kernel"])
    assert kernel.addressable_shards[0].data.size == kernel.size // 2
    grid = fit_positions(np.asarray(params["pos_embed"]), (2, 2, 16))
    np.testing.assert_allclose(model["pos_embed"], grid, atol=1e-6)
    assert model["head"]["kernel"].shape == (16, 10)
    assert "params.head.kernel" in caplog.text
    assert "config.evaluators.test.data.ops normalises with mean (0.5,)" in caplog.text
    averaged = flatten(state.extra_state["ema"])
    for name, value in flatten({"params": state.params}).items():
        (copy,) = [x for other, x in averaged.items() if other.endswith(name)]
        np.testing.assert_array_equal(copy, value)
    same = jax.tree.map(lambda x, y: x.sharding == y.sharding, state, abstract)
    assert all(jax.tree.leaves(same))


def test_a_head_is_read_by_the_names_of_its_classes(tmp_path, caplog):
    """A permutation or a subset is mapped; with a name that the head lacks it starts anew."""
    trained = ViT(width=8, depth=1, heads=1, patch=4, pool="mean", num_classes=3)
    params, _ = initialise(trained, jax.random.key(5), jnp.zeros((1, 8, 8, 1)))
    names = {name: np.asarray(x) for name, x in flatten({"params": params}).items()}
    write_safetensors(tmp_path / "model.safetensors", names)
    (tmp_path / "labels.json").write_text('["cat", "dog", "eel"]')
    source = f"safetensors:{tmp_path}"

    def head(classes: tuple[str, ...], **options: Any) -> tuple[np.ndarray, np.ndarray]:
        model = trained.clone(num_classes=len(classes))
        fresh_params, state = initialise(model, jax.random.key(6), jnp.zeros((1, 8, 8, 1)))
        variables = {"params": fresh_params, "model_state": state}
        found = InitFrom(source, **options).load(model, variables, classes)["params"]["head"]
        return np.asarray(found["kernel"]), np.asarray(fresh_params["head"]["kernel"])

    kernel = names["params.head.kernel"]
    np.testing.assert_array_equal(head(("cat", "dog", "eel"))[0], kernel)
    np.testing.assert_array_equal(head(("eel", "cat", "dog"))[0], kernel[:, [2, 0, 1]])
    np.testing.assert_array_equal(head(("eel", "cat"), head="read")[0], kernel[:, [2, 0]])
    assert "matched to this run's by name" in caplog.text
    np.testing.assert_array_equal(*head(("eel", "cat", "fox")))
    assert "class 'fox' is not among" in caplog.text
    with pytest.raises(WeightsError, match="'fox' is not among"):
        head(("eel", "cat", "fox"), head="read")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub with one repository; offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--timm--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    write_safetensors(repository / "blobs" / "b10b", weights_of("timm_augreg"))
    (snapshot / "model.safetensors").symlink_to("../../blobs/b10b")
    return commit


def test_hub_offline(cache):
    for name in ("timm/tiny", "tiny", f"timm/tiny@{cache}", "timm/tiny:model.safetensors"):
        assert untouched(InitFrom(f"timm:{name}").load(AUGREG, fresh(AUGREG))) == []
    with pytest.raises(WeightsError, match=r"a/b at main has no .* in the cache \(HF_HUB_OFFLINE"):
        hub.fetch("a/b")
    with pytest.raises(WeightsError, match=r"timm/tiny at v2 has no .*HF_HUB_OFFLINE"):
        hub.fetch("timm/tiny@v2")
    with pytest.raises(WeightsError, match=r"has no file other\.npz in the cache"):
        hub.fetch("timm/tiny:other.npz")


class Unknown(http.server.BaseHTTPRequestHandler):
    """A hub that has nothing."""

    def do_HEAD(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


def test_hub_that_answers_and_that_does_not(tmp_path, monkeypatch):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unknown)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(WeightsError, match="nobody/nothing is not on the hub, or is private"):
            hub.fetch("nobody/nothing")
    finally:
        server.shutdown()
        server.server_close()
    # The client tries again and again.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(WeightsError, match="the hub cannot be reached for nobody/nothing"):
        hub.fetch("nobody/nothing")


def test_shards_that_leave_the_cache(cache, tmp_path):
    snapshot = next((tmp_path / "hub").glob("*/snapshots/*"))
    index = {"weight_map": {"a": "../../../secret.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="which is not in this folder"):
        hub.fetch("timm/tiny")
