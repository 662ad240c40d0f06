"""Models of ours, exported, built again by timm, open_clip and transformers from the folder alone.

    python -m bench.exports [--peers .venv-peers/bin/python]

Small towers with random weights leave as ``vision.weights.export`` writes them; the other library
builds the model from the config in the folder, loads the weights and prepares a picture by its own
card. The error is the largest difference between what it and ours make of that picture, over the
largest number. Written to bench/results/exports.csv; more than 1e-4 is a failure.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from PIL import Image

from bench.common import Peer, record
from vision.models.convnext import ConvNeXt
from vision.models.dual import Dual
from vision.models.efficientnet import EfficientNet
from vision.models.efficientnet_lite import EfficientNetLite
from vision.models.mobilenet_v4 import MobileNetV4
from vision.models.regnet import RegNet
from vision.models.relative_vit import RelativeViT
from vision.models.resnet import ResNet
from vision.models.resnet_v2 import ResNetV2
from vision.models.rope import Rope
from vision.models.swin_v2 import SwinV2
from vision.models.text import TextTransformer
from vision.models.vit import ViT
from vision.train.tower import forward, initialise
from vision.weights.configs import config_of
from vision.weights.export import library_tensors
from vision.weights.preprocessing import Preprocessing
from vision.weights.reader import write_safetensors

CLASSES, CONTEXT, WORDS, MOST = 5, 7, 50, 1e-4
CARD = Preprocessing(size=(32, 32), resized=(36, 36), mean=(0.4, 0.5, 0.6))
SQUASHED = Preprocessing(size=(32, 32), mode="squash", method="bilinear", mean=(0.5,) * 3)
WHOLE = Preprocessing(size=(32, 32))
WIDE = Preprocessing(size=(64, 96))
DEEP: dict[str, Any] = {"stem": "deep", "downsample": "average"}
Vit = functools.partial(ViT, width=24, depth=2, heads=2, patch=8, mlp_dim=52)
Relative = functools.partial(RelativeViT, width=24, depth=2, heads=2, patch=8, mlp_dim=52)
Text = functools.partial(TextTransformer, WORDS, width=24, depth=2, heads=2, context=CONTEXT)
CLIP = {"class_position": True, "pre_norm": True, "norm_epsilon": 1e-5}
QUICK = Dual(
    Vit(activation="quick_gelu", **CLIP),
    Text(activation="quick_gelu", norm_epsilon=1e-5),
    width=16,
)
# (library, name, model, card, timm's architecture)
CASES: tuple[tuple[str, str, Any, Preprocessing, str | None], ...] = (
    ("timm", "ViT", Vit(num_classes=CLASSES, class_position=True), CARD, None),
    (
        "timm",
        "ViT, fixed positions, mean",
        Vit(num_classes=CLASSES, pool="mean", posemb="sincos2d"),
        SQUASHED,
        None,
    ),
    (
        "timm",
        "ViT, LayerScale, registers",
        Vit(num_classes=CLASSES, layer_scale=1e-5, registers=3),
        CARD,
        None,
    ),
    ("timm", "ViT, CLIP", Vit(num_classes=CLASSES, activation="quick_gelu", **CLIP), CARD, None),
    (
        "timm",
        "ViT, SigLIP",
        Vit(num_classes=CLASSES, pool="map", activation="gelu_tanh"),
        SQUASHED,
        None,
    ),
    (
        "timm",
        "ViT, SwiGLU",
        Vit(num_classes=CLASSES, activation="swiglu", layer_scale=1e-5, class_position=True),
        CARD,
        None,
    ),
    ("timm", "ResNet-18", ResNet(18, num_classes=CLASSES), CARD, None),
    (
        "timm",
        "ResNeXt-26d 4x8d",
        ResNet(26, num_classes=CLASSES, stem="deep", downsample="average", groups=4, group_width=8),
        CARD,
        None,
    ),
    (
        "timm",
        "ConvNeXt",
        ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=CLASSES),
        CARD,
        None,
    ),
    (
        "timm",
        "ConvNeXt V2",
        ConvNeXt("atto", num_classes=CLASSES, grn=True, layer_scale=None),
        CARD,
        None,
    ),
    (
        "timm",
        "EfficientNet-B0",
        EfficientNet("B0", num_classes=CLASSES),
        CARD,
        "efficientnet_b0",
    ),
    (
        "timm",
        "EfficientNet-Lite0, SAME",
        EfficientNetLite("lite0", num_classes=CLASSES, padding="same", norm_epsilon=1e-3),
        CARD,
        "tf_efficientnet_lite0",
    ),
    ("timm", "SE-ResNet-18", ResNet(18, num_classes=CLASSES, squeeze=True), CARD, None),
    (
        "timm",
        "ResNet-26t, blur",
        ResNet(26, num_classes=CLASSES, stem_widths=(24, 32), anti_alias="blur", **DEEP),
        WIDE,
        None,
    ),
    (
        "timm",
        "SE-ResNet-26d, means",
        ResNet(26, num_classes=CLASSES, squeeze=True, anti_alias="average", **DEEP),
        WIDE,
        None,
    ),
    ("timm", "ResNet v2-18d", ResNetV2(18, num_classes=CLASSES, **DEEP), CARD, "resnetv2_18d"),
    (
        "timm",
        "RegNetY-200MF",
        RegNet((1, 1, 4, 7), (24, 56, 152, 368), 8, num_classes=CLASSES),
        CARD,
        "regnety_002",
    ),
    ("open_clip", "CLIP", Dual(Vit(**CLIP), Text(norm_epsilon=1e-5), width=16), WHOLE, None),
    ("open_clip", "CLIP, quick GELU", QUICK, SQUASHED, None),
    ("transformers", "ViT", Vit(num_classes=CLASSES, class_position=True), CARD, None),
    ("transformers", "ResNet-10", ResNet(10, num_classes=CLASSES), CARD, None),
    (
        "transformers",
        "ConvNeXt V2",
        ConvNeXt("atto", num_classes=CLASSES, grn=True, layer_scale=None, final_epsilon=1e-12),
        CARD,
        None,
    ),
    (
        "timm",
        "MobileNetV4, small, 0.35",
        MobileNetV4("conv_small", 0.35, num_classes=CLASSES),
        WIDE,
        "mobilenetv4_conv_small_035",
    ),
    (
        "transformers",
        "DINOv2, registers, classifier",
        Vit(
            mlp_dim=48,
            num_classes=CLASSES,
            pool="cls_mean",
            layer_scale=0.1,
            class_position=True,
            registers=3,
        ),
        CARD,
        None,
    ),
    (
        "transformers",
        "DINOv2, SwiGLU",
        Vit(mlp_dim=64, layer_scale=0.1, class_position=True, activation="swiglu"),
        CARD,
        None,
    ),
    (
        "transformers",
        "DINOv3, gated",
        Relative(
            layer_scale=0.1,
            registers=3,
            activation="swiglu",
            norm_epsilon=1e-5,
            qkv_bias="qv",
            rope=Rope("centered", 100.0, halves=True),
        ),
        CARD,
        None,
    ),
    (
        "transformers",
        "BEiT",
        Relative(
            num_classes=CLASSES,
            bias="block",
            qkv_bias="qv",
            layer_scale=0.1,
            pool="mean",
            norm_pooled=True,
        ),
        CARD,
        None,
    ),
    (
        "transformers",
        "BEiT, one table, positions, headless",
        Relative(bias="shared", posemb="tokens", qkv_bias="qv", layer_scale=0.1),
        CARD,
        None,
    ),
    (
        "transformers",
        "Swin V2",
        SwinV2(
            width=16,
            depths=(2, 2),
            heads=(1, 2),
            windows=(3, 3),
            trained_windows=(4, 0),
            fixed_shifts=(1, 1),
            num_classes=CLASSES,
        ),
        CARD,
        None,
    ),
    ("transformers", "CLIP", QUICK, CARD, None),
    (
        "transformers",
        "SigLIP",
        Dual(
            Vit(pool="map", activation="gelu_tanh"),
            Text(causal=False, pad_id=None, activation="gelu_tanh"),
            width=24,
            image_projection=False,
            bias=True,
        ),
        SQUASHED,
        None,
    ),
)


def randomised(tree: Any, rng: np.random.Generator) -> Any:
    """Numbers of a size that shows what each of them does; variances are positive."""

    def draw(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        values = rng.standard_normal(leaf.shape).astype(leaf.dtype)
        if "'var'" in name or "'scale'" in name:
            return 1 + 0.2 * np.abs(values)
        if "'kernel'" in name:
            return values / max(1, np.prod(leaf.shape[:-1][-3:])) ** 0.5
        return 0.3 * values

    return jax.tree_util.tree_map_with_path(draw, tree)


def exported(
    folder: Path, library: str, model: Any, card: Preprocessing, architecture: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes a folder; returns what our model has, and its inputs."""
    rng = np.random.default_rng(0)
    blank = np.zeros((1, *card.size, 3), np.float32)
    ids = rng.integers(1, WORDS - 1, (1, CONTEXT)).astype(np.int32)
    ids[0, -1] = WORDS - 1  # the end of a text has the highest number, as in CLIP
    dual = isinstance(model, Dual)
    inputs: Any = {"image": blank, "text": ids} if dual else blank
    shapes = jax.eval_shape(functools.partial(initialise, model), jax.random.key(0), inputs)
    trees: dict[str, Any] = {
        "params": randomised(shapes[0], rng),
        "model_state": randomised(dict(shapes[1]), rng),
    }
    if dual:
        contrast = {"log_scale": np.float32(1.5)}
        if model.bias:
            contrast["bias"] = np.float32(-2)
        trees["objective"] = {"contrast": contrast}
    learned = tuple(trees.get("objective", {}).get("contrast", {}))
    files = config_of(library, model, card, (), learned, architecture)
    tensors = library_tensors(model, trees, library, card.size)
    name = "open_clip_model" if library == "open_clip" else "model"
    write_safetensors(folder / f"{name}.safetensors", tensors, {"format": "pt"})
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content))
    picture = rng.integers(0, 256, (40, 56, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    example: dict[str, Any] = {"image": picture}
    for op in card.evaluation():
        example = op(example, rng)
    image = np.asarray(example["image"])[None]
    return trees, {"image": image, "text": ids} if dual else {"image": image}


def ours(model: Any, trees: Mapping[str, Any], inputs: Mapping[str, Any]) -> np.ndarray:
    """Logits, or embeddings of image and text one after the other."""
    given: Any = inputs if isinstance(model, Dual) else inputs["image"]
    run = functools.partial(forward, model, train=False)
    out = jax.jit(run)(trees["params"], trees["model_state"], given)[1]
    if isinstance(model, Dual):
        return np.concatenate([np.ravel(out[f"{side}/embedding"]) for side in inputs])
    return np.ravel(out["logits" if "logits" in out else "embedding"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python with timm")
    peer = Peer(parser.parse_args().peers, "build_exported.py", 1)
    rows, worst = [], 0.0
    for library, name, model, card, architecture in CASES:
        with tempfile.TemporaryDirectory() as folder:
            trees, inputs = exported(Path(folder), library, model, card, architecture)
            asked: dict[str, Any] = {"library": library, "folder": folder}
            asked["text"] = inputs["text"].tolist() if "text" in inputs else None
            answer = json.loads(peer.ask(json.dumps(asked)))
            if "failed" in answer:
                raise SystemExit(f"{library}, {name}: {answer['failed']}")
            mine = ours(model, trees, inputs)
            theirs = np.asarray(answer["numbers"])
            error = float(np.abs(mine - theirs).max() / np.abs(mine).max())
        worst = max(worst, error)
        row = {"library": library, "model": name, "class": answer["class"]}
        rows.append(row | {"relative_error": f"{error:.2g}", "versions": answer["versions"]})
    peer.close()
    record("exports", rows)
    if worst > MOST:
        raise SystemExit(f"an error of {worst:.2g} is more than {MOST}")


if __name__ == "__main__":
    main()
