"""Corners of cards in which a tower was silently another than the library's."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from vision.config.specs import build
from vision.models.swin import Swin
from vision.models.vit import ViT
from vision.train.tower import initialise
from vision.weights import agreement
from vision.weights.families.dual import joint_names
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError, save
from vision.weights.names import names_of
from vision.weights.pretrained import Pretrained, PretrainedOps
from vision.weights.tower_cards import read_tower

VIT = {"architecture": "vit_small_patch16_224"}
CLIP = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "windows that stay": (
        "timm",
        {"architecture": "swin_tiny_patch4_window7_224", "model_args": {"dynamic_img_size": True}},
        "dynamic_img_size is not read here",
    ),
    "patches of two pixels": (
        "timm",
        {"architecture": "convnext_tiny", "model_args": {"patch_size": 2}},
        "patch_size is not read here",
    ),
    "patches that are not square": (
        "timm",
        {**VIT, "model_args": {"patch_size": [4, 8]}},
        r"patch_size is not read here: \[4, 8\]",
    ),
    "a classifier on CLIP": (
        "transformers",
        {
            "model_type": "clip",
            "architectures": ["CLIPForImageClassification"],
            "vision_config": CLIP,
            "text_config": CLIP,
        },
        "architectures pools and classifies",
    ),
    "positions in a rectangle": (
        "timm",
        {**VIT, "model_args": {"img_size": [64, 16]}},
        r"model_args.img_size is not square, .*: \[64, 16\]",
    ),
    "positions in a rectangle, of fixed size": (
        "timm",
        {**VIT, "pretrained_cfg": {"input_size": [3, 64, 16], "fixed_input_size": True}},
        "img_size is not square",
    ),
    "positions in a rectangle of transformers": (
        "transformers",
        {**CLIP, "model_type": "vit", "image_size": [64, 16]},
        r"image_size is not square, and a file does not say how",
    ),
    "biases in a rectangle": (
        "transformers",
        {**CLIP, "model_type": "beit", "image_size": [64, 16], "use_relative_position_bias": True},
        r"image_size is not square, and a file does not say how",
    ),
    "a key of the whole": ("timm", {**VIT, "secret": 1}, "secret is not known here"),
    "no heads": (
        "timm",
        {**VIT, "model_args": {"num_heads": 0}},
        r"config.json: ViT.heads is 0, expected a whole number >= 1",
    ),
    "pooling": ("timm", {**VIT, "model_args": {"global_pool": "max"}}, "global_pool is not read"),
    "no positions": ("timm", {**VIT, "model_args": {"pos_embed": "none"}}, "pos_embed is an arg"),
    "norms": ("timm", {**VIT, "model_args": {"norm_layer": "rmsnorm"}}, "norm_layer is an arg"),
    "strides": (
        "timm",
        {"architecture": "resnet18", "model_args": {"output_stride": 8}},
        "output_stride is an argument",
    ),
    "padding": (
        "timm",
        {"architecture": "efficientnet_b0", "model_args": {"pad_type": "same"}},
        "pad_type is an argument",
    ),
    "projection": (
        "transformers",
        {
            **CLIP,
            "model_type": "clip_vision_model",
            "architectures": ["CLIPVisionModelWithProjection"],
        },
        "architectures projects to the joint space",
    ),
    "rectangles": (
        "transformers",
        {"model_type": "swinv2", "image_size": [32, 48]},
        "image_size is not square",
    ),
    "norms of Swin V2": (
        "transformers",
        {"model_type": "swinv2", "layer_norm_eps": 1e-3},
        "layer_norm_eps is not 1e-5",
    ),
    "positions of Swin V2": (
        "transformers",
        {"model_type": "swinv2", "use_absolute_embeddings": True},
        "use_absolute_embeddings are positions",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path):
    scheme, content, message = REFUSED[case]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=message):
        read_tower(f"{scheme}:{tmp_path}")


def test_a_card_of_gigabytes_is_not_read(tmp_path: Path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(WeightsError, match="has 3221225472 bytes, which no card has"):
        read_tower(f"timm:{tmp_path}")


def test_deep_stems_of_timm(tmp_path: Path):
    """timm's stem is 64 wide, then 128, unless ``stem_width`` or the model's name says 32."""
    for name, arguments, widths in (
        ("resnet26", {"stem_type": "deep"}, (64, 64, 128)),
        ("resnet26", {"stem_type": "deep", "stem_width": 32}, None),
        ("resnet26", {"stem_type": "deep_tiered"}, (48, 64, 128)),
        ("resnet26t", {}, (24, 32)),
        ("resnet26t", {"stem_type": "deep"}, None),
        ("resnet50s", {}, (64, 64, 128)),
    ):
        content = {"architecture": name, "model_args": arguments}
        (tmp_path / "config.json").write_text(json.dumps(content))
        found = read_tower(f"timm:{tmp_path}")
        assert found is not None
        tower = build(found.config)
        assert (tower.stem, tower.stem_widths) == ("deep", widths), (name, arguments)


def test_windows_of_a_swin_for_small_images(tmp_path: Path):
    """timm makes no window larger than a stage's tokens, and a table of biases is of a window."""
    name = "swin_tiny_patch4_window7_224"
    fixed = {"input_size": [3, 128, 128], "fixed_input_size": True}
    for content, windows in (
        ({}, None),
        ({"model_args": {"img_size": 128}}, (7, 7, 7, 4)),
        ({"model_args": {"img_size": 132}}, (7, 7, 7, 5)),
        ({"model_args": {"img_size": 128, "window_size": 16}}, (16, 16, 8, 4)),
        ({"pretrained_cfg": fixed}, (7, 7, 7, 4)),
        ({"pretrained_cfg": fixed, "model_args": {"img_size": [224, 256]}}, None),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": name, **content}))
        found = read_tower(f"timm:{tmp_path}")
        assert found is not None
        assert build(found.config).trained_windows == windows
    sizes = {"architecture": name, "model_args": {"img_size": [96, 128]}}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    with pytest.raises(WeightsError, match=r"model_args\.img_size is not read here"):
        read_tower(f"timm:{tmp_path}")


def test_windows_by_hand(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Of another side they are warned of, and tables of another are refused."""
    content = {"architecture": "swin_tiny_patch4_window7_224"}
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = read_tower(f"timm:{tmp_path}")
    assert found is not None
    agreement.check(found, Swin("T"))
    assert not caplog.text
    agreement.check(found, Swin("T", window=12, trained_windows=(7, 7, 7, 7)))
    assert "with windows=(7, 7, 7, 7), but the config's has windows=(12, 12, 12, 12)" in caplog.text
    with pytest.raises(
        WeightsError, match=r"trained_windows=\(7, 7, 7, 7\), but.*=\(12, 12, 12, 1"
    ):
        agreement.check(found, Swin("T", window=12))


def test_the_classifier_of_a_timm_tower_as_projection(tmp_path: Path):
    """EVA-02-CLIP: the image's projection has a bias, the text's has none."""
    text = {"width": 16, "heads": 2, "layers": 2, "vocab_size": 40}
    vision = {"timm_model_name": "eva02_base_patch16_clip_224", "timm_proj": None}

    def read(**changes: Any) -> Any:
        content = {"embed_dim": 12, "vision_cfg": {**vision, **changes}, "text_cfg": text}
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": content}))
        found = read_tower(f"open_clip:{tmp_path}")
        assert found is not None
        return build(found.config)

    dual = read(timm_pool="token")
    assert (dual.width, dual.image_projection, dual.bias, dual.image.pool) == (
        12,
        True,
        "image",
        "cls",
    )
    signs = {name: np.zeros(()) for name in ("visual.trunk.head.weight", "text.text_projection")}
    written = {e.ours: e.theirs for e in joint_names("open_clip", dual, signs).entries}
    assert written == {
        "params.image_projection.kernel": ("visual.trunk.head.weight",),
        "params.image_projection.bias": ("visual.trunk.head.bias",),
        "params.text_projection.kernel": ("text.text_projection",),
    }
    assert read(timm_pool="token", timm_proj="linear").bias is False
    with pytest.raises(WeightsError, match="timm_pool is none of token, avg, map"):
        read(timm_pool="")
    with pytest.raises(WeightsError, match="timm_proj makes the classifier of resnet50 the proj"):
        read(timm_model_name="resnet50", timm_pool="avg")


def test_square_patches_and_what_is_of_training(tmp_path: Path):
    arguments = {"patch_size": [8, 8], "patch_drop_rate": 0.5}
    (tmp_path / "config.json").write_text(json.dumps({**VIT, "model_args": arguments}))
    found = read_tower(f"timm:{tmp_path}")
    assert found is not None
    assert build(found.config).patch == 8


def test_names_with_something_before_them(tmp_path: Path):
    """Of a file that is not of the model alone, the way out is said."""
    save_file({f"model.{name}": np.zeros(2) for name in ("a", "b")}, tmp_path / "x.safetensors")
    with pytest.raises(
        WeightsError, match=r"all of its names begin with 'model\.', .*removeprefix"
    ):
        InitFrom(f"timm:{tmp_path}").load(ViT("Ti/16"), {"params": {}, "model_state": {}})


@pytest.mark.parametrize("name", ["gone", "gone.pth"])
@pytest.mark.parametrize("part", [Pretrained, PretrainedOps])
def test_weights_that_were_moved(part: Any, name: str, tmp_path: Path):
    with pytest.raises(WeightsError, match=f"no weights at {tmp_path}/{name}: they are moved or"):
        part(f"timm:{tmp_path}/{name}").expanded()


HEAD: Any = {"width": 8, "depth": 1, "heads": 1, "patch": 4, "mlp_dim": 8, "num_classes": 3}


@pytest.mark.parametrize("scheme", ["timm", "transformers"])
def test_classes_in_another_order(scheme: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Of a card with names, every class of a run has the logits of its name."""
    tower = ViT(**HEAD, class_position=True)
    shapes = jax.eval_shape(
        functools.partial(initialise, tower), jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32)
    )
    rng = np.random.default_rng(0)
    target: Any = {"params": shapes[0], "model_state": {}}
    tree = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), target)
    save_file(save(names_of(scheme, tower, {}), tree), tmp_path / "model.safetensors")
    names: Any = {"label_names": ["b", "c", "a"]}
    if scheme == "transformers":
        names = {"id2label": {"0": "b", "1": "c", "2": "a"}}
    (tmp_path / "config.json").write_text(json.dumps(names))
    weights = InitFrom(f"{scheme}:{tmp_path}", compare=False)
    for classes, order in (
        (("a", "b", "c"), [2, 0, 1]),
        (("x", "y", "z"), [0, 1, 2]),
        ((), [0, 1, 2]),
    ):
        found = weights.load(tower, tree, classes)["params"]["head"]
        for name, array in tree["params"]["head"].items():
            np.testing.assert_array_equal(found[name], array[..., order])
    assert "head's classes are b and so on in its card, but x and so on in this" in caplog.text
