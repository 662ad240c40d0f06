"""Every family of towers as an ONNX file: what onnxruntime makes of real images beside ours.

    .venv-extras/bin/python -m bench.onnx_families     # make test-extras makes that environment

Small towers with random weights go through ``vision.weights.onnx_program``, as a run does that is
exported with ``--onnx``, for any number of rows: one and five are compared. Image towers read parts
of a photograph, text towers token ids. Written to
bench/results/onnx_families.csv and into docs/export.md; a difference above 1e-4 is a failure, a
tower without a translation is a row with the reason. tests/weights/test_onnx.py has the same cases.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from bench.common import record
from papers.glmix.method import GLNet
from papers.plain_mamba.method import PlainMamba
from papers.simplenet.method import SimpleNet
from papers.ulsam.method import MobileNetV1
from vision.models.adapted import AdaptedTower
from vision.models.bag_of_words import BagOfWords
from vision.models.bit import BiT
from vision.models.convnext import ConvNeXt
from vision.models.densenet import DenseNet
from vision.models.dual import Dual
from vision.models.efficientnet import EfficientNet
from vision.models.efficientnet_lite import EfficientNetLite
from vision.models.inception import InceptionV4
from vision.models.inception_resnet import InceptionResNetV2
from vision.models.maxvit import MaxVit
from vision.models.mixer import Mixer
from vision.models.mobilenet import MobileNetV2, MobileNetV3
from vision.models.mobilenet_v4 import MobileNetV4
from vision.models.nasnet import NasNet
from vision.models.plain_conv import PlainConv
from vision.models.regnet import RegNet
from vision.models.relative_vit import RelativeViT
from vision.models.resnet import ResNet
from vision.models.resnet_v2 import ResNetV2
from vision.models.rope import Rope
from vision.models.swin import Swin
from vision.models.swin_v2 import SwinV2
from vision.models.text import TextCNN, TextTransformer
from vision.models.vgg import VGG
from vision.models.vit import ViT
from vision.models.xcit import Xcit
from vision.train.objective import Variables
from vision.train.tower import forward, initialise
from vision.weights.mapping import WeightsError
from vision.weights.onnx_program import verified
from vision.weights.preprocessing import Preprocessing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "export.md"
MOST, ROWS, CLASSES, WORDS, TOKENS = 1e-4, 5, 5, 50, 7
NARROW: Any = {"num_classes": CLASSES, "width_multiplier": 0.125}
SMALL: Any = {"width": 16, "depth": 2, "heads": 2, "patch": 8, "num_classes": CLASSES}
VIT = ViT(**SMALL)
MAMBA = PlainMamba(width=16, depth=2, stem_convs=1, patch=8, num_classes=CLASSES)
TEXT = TextTransformer(WORDS, width=16, depth=2, heads=2, context=TOKENS)
BEGIN, END = "<!-- onnx: written by bench.onnx_families -->", "<!-- onnx: end -->"
CARD = Preprocessing(size=(32, 32))
# Name to tower and side of the images.
IMAGE_TOWERS: Mapping[str, tuple[Any, int]] = {
    "ViT": (VIT, 32),
    "ViT, attention pool, registers": (VIT.clone(pool="map", registers=2), 32),
    "DINOv3": (RelativeViT(**SMALL, rope=Rope(reference=(4, 4)), registers=2), 32),
    "EVA-02": (
        RelativeViT(
            **SMALL,
            rope=Rope(reference=(4, 4)),
            posemb="tokens",
            qkv_bias="qv",
            activation="swiglu",
            mlp_norm=True,
        ),
        32,
    ),
    "BEiT": (RelativeViT(**SMALL, bias="block", layer_scale=0.5), 32),
    "Swin": (Swin(width=8, depths=(2, 2), heads=(1, 2), window=4, num_classes=CLASSES), 32),
    "Swin V2": (SwinV2(width=8, depths=(2, 1), heads=(1, 2), window=2, num_classes=CLASSES), 32),
    "MaxViT": (
        MaxVit(widths=(8, 16), depths=(1, 1), head_width=8, window=(2, 2), num_classes=CLASSES),
        32,
    ),
    "XCiT": (Xcit(width=16, depth=2, heads=2, class_depth=1, patch=8, num_classes=CLASSES), 32),
    "MLP-Mixer": (
        Mixer(width=16, depth=2, patch=8, mix_dim=8, mlp_dim=32, num_classes=CLASSES),
        32,
    ),
    "ResNet": (ResNet(depth=18, **NARROW), 32),
    "SE-ResNet-D, anti-aliased": (
        ResNet(
            depth=14,
            stem="deep",
            downsample="average",
            squeeze=True,
            anti_alias="blur",
            **NARROW,
        ),
        32,
    ),
    "ResNet v2": (ResNetV2(depth=14, **NARROW), 32),
    "BiT": (BiT(depth=14, norm_groups=8, **NARROW), 32),
    "RegNetY": (
        RegNet((1, 1, 2, 1), (8, 16, 32, 64), 16, stem_width=8, num_classes=CLASSES),
        32,
    ),
    "ConvNeXt": (ConvNeXt(depths=(1, 1), dims=(8, 16), num_classes=CLASSES), 32),
    "ConvNeXt V2": (
        ConvNeXt(depths=(1, 1), dims=(8, 16), grn=True, layer_scale=None, num_classes=CLASSES),
        32,
    ),
    "DenseNet": (DenseNet(layers=(1, 2), growth=4, num_classes=CLASSES), 32),
    "VGG": (VGG(depth=11, hidden=16, window=1, **NARROW), 32),
    "EfficientNet": (EfficientNet(**NARROW, depth_multiplier=0.3), 32),
    "EfficientNet-Lite": (
        EfficientNetLite(**NARROW, padding="same", depth_multiplier=0.3, head_width=24),
        32,
    ),
    "MobileNet V2": (MobileNetV2(**NARROW, depth_multiplier=0.3, head_width=24), 32),
    "MobileNet V3": (MobileNetV3("small", **NARROW, depth_multiplier=0.5, head_width=24), 32),
    "MobileNet V4": (MobileNetV4("conv_small", **NARROW, head_width=24), 32),
    "MobileNet V4, hybrid": (MobileNetV4("hybrid_medium", **NARROW, head_width=24), 64),
    "Inception V4": (InceptionV4((1, 1, 1), width_multiplier=1 / 16, num_classes=CLASSES), 96),
    "Inception-ResNet V2": (
        InceptionResNetV2((1, 1, 2), width_multiplier=1 / 16, num_classes=CLASSES),
        96,
    ),
    "NASNet": (NasNet(depth=1, stages=2, filters=4, num_classes=CLASSES), 32),
    "Plain Mamba": (MAMBA, 32),
    "Plain Mamba, step by step": (MAMBA.clone(sequential=True), 32),
    "GLNet": (
        GLNet(
            widths=(32, 32, 32, 32),
            depths=(1, 1, 1, 1),
            attended=("none", "none", "all", "all"),
            slots=4,
            num_classes=CLASSES,
        ),
        64,
    ),
    "MobileNet V1, ULSAM": (
        MobileNetV1(layers=((32, 1), (32, 1)), attention=(1,), num_classes=CLASSES),
        32,
    ),
    "SimpleNet": (SimpleNet(layers=((8, 3), (8, 3)), pools=(1,), num_classes=CLASSES), 32),
    "plain convolutions": (PlainConv(width=8, depth=2, num_classes=CLASSES), 32),
    "adapted tower": (AdaptedTower(VIT), 32),
    "dual encoder, image tower": (Dual(VIT.clone(num_classes=None), TEXT, width=12), 32),
}
TEXT_TOWERS: Mapping[str, Any] = {
    "text transformer (CLIP)": TEXT,
    "text transformer (SigLIP)": TEXT.clone(causal=False, pool="map", activation="gelu_tanh"),
    "BERT": TEXT.clone(causal=False, pool="first", post_norm=True),
    "text CNN": TextCNN(WORDS, 16, word_width=8, kernels=(2, 3), filters=6),
    "bag of words": BagOfWords(WORDS, 16, hidden=12),
    "dual encoder, text tower": IMAGE_TOWERS["dual encoder, image tower"][0],
}


def photographs(count: int, size: int) -> np.ndarray:
    """uint8 (count, size, size, 3): parts of the photograph that scikit-learn ships."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")
    corners = np.random.default_rng(0).integers(0, 300, (count, 2))
    return np.stack([image[y : y + size, x : x + size] for y, x in corners])


def texts() -> np.ndarray:
    """int32 (ROWS, TOKENS): one that fills its row, and one that ends in padding."""
    ids = np.random.default_rng(0).integers(1, WORDS, (ROWS, TOKENS)).astype(np.int32)
    ids[1, 4:] = 0
    return ids


def drawn(tower: Any, given: Any) -> Variables:
    """Random variables of a tower that reads ``given``; no array is zero."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda x: initialise(tower, jax.random.key(0), x), given)

    def fill(path: Any, x: Any) -> np.ndarray:
        noise = rng.standard_normal(x.shape) / max(np.prod(x.shape[:-1]), 4) ** 0.5
        positive = path[-1].key in ("var", "variance", "scale")
        return np.asarray(1 + np.abs(noise) if positive else noise, x.dtype)

    params, state = jax.tree_util.tree_map_with_path(fill, shapes)
    return Variables({"model": params}, {"model": state}, {})


def differences(name: str) -> dict[str, float]:
    """Per output of a tower, see ``vision.weights.onnx_program.verified``."""
    text = name in TEXT_TOWERS
    tower, side = (TEXT_TOWERS[name], 0) if text else IMAGE_TOWERS[name]
    given = texts() if text else photographs(ROWS, side)
    key = "text" if text else "image"
    dual = isinstance(tower, Dual)
    both = {"text": texts(), "image": np.zeros((ROWS, 32, 32, 3), np.float32)}
    variables = drawn(tower, both if dual else texts() if text else given.astype(np.float32))
    model = variables.params["model"], variables.model_state["model"]
    mean, std = (np.asarray(x, np.float32) for x in (CARD.mean, CARD.std))

    def program(x: jax.Array) -> dict[str, jax.Array]:
        read: Any = x if text else (x.astype(jnp.float32) / 255 - mean) / std
        embedding, out, _ = forward(tower, *model, {key: read} if dual else read, train=False)
        return {"embedding": embedding, **{k: out[k] for k in ("logits",) if k in out}}

    return verified(program, {"text" if text else "images": given}, any_number=True)[1]


def row(name: str) -> dict[str, str]:
    """A row of the table."""
    try:
        return {"tower": name, "differs": f"{max(differences(name).values()):.1e}", "said": ""}
    except WeightsError as error:
        return {"tower": name, "differs": "", "said": str(error)}


def page(text: str, rows: list[dict[str, str]]) -> str:
    """The page with a table of these rows between its marks."""
    lines = ["| tower | largest difference |", "| --- | --- |"]
    lines += [f"| {each['tower']} | {each['differs'] or each['said']} |" for each in rows]
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return "\n".join([before + BEGIN, "", *lines, "", END + after])


if __name__ == "__main__":
    rows = []
    for each in (*IMAGE_TOWERS, *TEXT_TOWERS):
        rows.append(row(each))
        print(rows[-1], flush=True)
    record("onnx_families", rows)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    raise SystemExit(int(any(float(each["differs"] or 0) > MOST for each in rows)))
