"""A model of timm, open_clip or transformers at its real size, for ``bench/parity.py``.

    python bench/peers/parity_model.py MODEL FOLDER

Its weights are random, none at zero or one, where a tensor that is not used would not show. Into
FOLDER go ``model.safetensors`` and ``config.json``, as the library writes them, and
``expected.safetensors``: ``images`` (2, h, w, 3), ``ids`` (2, T) and, by our names, ``out/<name>``;
below ``other/`` the same of images of another size, where there is one. The line it prints is the
library and its version.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from parity_outputs import (
    SMALL,
    Model,
    open_clip_model,
    stage_ends,
    stages,
    timm_model,
    transformers_convolutional,
    transformers_model,
    transformers_naflex,
    transformers_swin,
)
from safetensors.torch import load_file, save_file

RESNET_50 = stages(-1, 2, 6, 12, 15)


def efficient(
    name: str, gain: float = 2.0, other: tuple[int, int] = (165, 206)
) -> Callable[[], Model]:
    """Of timm's EfficientNet's class."""
    return lambda: timm_model(name, 224, gain, stage_ends, other)


MODELS: Mapping[str, Callable[[], Model]] = {
    "vit_b16": lambda: timm_model("vit_base_patch16_224", 224, 1.0, other=(192, 320)),
    "dinov2_s14_timm": lambda: timm_model("vit_small_patch14_dinov2", 518, 1.0, other=(224, 308)),
    "dinov2_s14_transformers": lambda: transformers_model(
        "Dinov2", other=(224, 308), image_size=518, patch_size=14, **SMALL
    ),
    "resnet50": lambda: timm_model("resnet50", 224, 2.0, RESNET_50, (165, 206)),
    "convnext_t": lambda: timm_model("convnext_tiny", 224, 1.0, stages(2, 5, 14, 17), (192, 320)),
    "swin_t": lambda: timm_model(
        "swin_tiny_patch4_window7_224", 224, 1.0, stages(1, 3, 9, 11), (160, 256)
    ),
    "efficientnet_b0": lambda: timm_model(
        "efficientnet_b0", 224, 2.0, stages(0, 2, 4, 10, 15), (165, 206)
    ),
    "clip_b32": lambda: open_clip_model("ViT-B-32-quickgelu", (192, 320)),
    "clip_b32_transformers": lambda: transformers_model("CLIP", other=(192, 320)),
    "siglip_b16": lambda: open_clip_model("ViT-B-16-SigLIP", (192, 320)),
    "siglip_b16_transformers": lambda: transformers_model("Siglip", other=(192, 320)),
    "bert_base": lambda: transformers_model("Bert"),
    "deit3_s16": lambda: timm_model("deit3_small_patch16_224", 224, 1.0, other=(192, 320)),
    "so150m": lambda: timm_model("vit_so150m2_patch16_reg1_gap_256", 256, 1.0, other=(192, 320)),
    "dinov2_s14_head": lambda: transformers_model(
        "Dinov2WithRegisters",
        "ForImageClassification",
        (224, 308),
        image_size=518,
        patch_size=14,
        num_labels=1000,
        **SMALL,
    ),
    "dinov3_s16_timm": lambda: timm_model(
        "vit_small_patch16_dinov3_qkvb", 256, 1.0, other=(192, 320)
    ),
    "dinov3_s16_transformers": lambda: transformers_model(
        "DINOv3ViT", other=(192, 320), num_register_tokens=4, **SMALL
    ),
    "beit_b16_timm": lambda: timm_model("beit_base_patch16_224", 224, 1.0, other=(192, 320)),
    "beit_b16_transformers": lambda: transformers_model(
        "Beit",
        "ForImageClassification",
        (192, 320),
        use_relative_position_bias=True,
        num_labels=1000,
    ),
    "eva02_ti14": lambda: timm_model("eva02_tiny_patch14_224", 224, 1.0, other=(196, 308)),
    "swinv2_t": lambda: timm_model("swinv2_tiny_window8_256", 256, 1.0, None, (288, 352)),
    "mixer_b16": lambda: timm_model("mixer_b16_224", 224, 1.0, None),
    "xcit_nano": lambda: timm_model("xcit_nano_12_p16_224", 224, 1.0, None, (192, 320)),
    "maxvit_t": lambda: timm_model("maxvit_tiny_tf_224", 224, 1.0, None, (224, 448)),
    "tf_efficientnet_lite0": lambda: timm_model(
        "tf_efficientnet_lite0", 224, 1.0, stages(0, 2, 4, 10, 15), (165, 206)
    ),
    # With kernels as large as the others' torch in float32 and in float64 differ by 1e-3: gates
    # are computed from sums of thousands.
    "seresnet50": lambda: timm_model("seresnet50", 224, 0.5, RESNET_50, (165, 206)),
    "resnetaa50": lambda: timm_model("resnetaa50", 224, 2.0, RESNET_50, (160, 192)),
    "resnetblur50": lambda: timm_model("resnetblur50", 224, 2.0, RESNET_50, (165, 206)),
    "resnetv2_50": lambda: timm_model("resnetv2_50", 224, 1.0, RESNET_50, (165, 206)),
    "regnety_016": lambda: timm_model(
        "regnety_016", 224, 0.5, stages(-1, 1, 7, 24, 26), (165, 206)
    ),
    "resnet50d": lambda: timm_model("resnet50d", 224, 2.0, RESNET_50, (165, 206)),
    "convnextv2_t": lambda: timm_model(
        "convnextv2_tiny", 224, 1.0, stages(2, 5, 14, 17), (192, 320)
    ),
    "mobilenetv4_conv_small": lambda: timm_model(
        "mobilenetv4_conv_small", 224, 1.0, stages(-1, 1, 3, 9, 16), (165, 206)
    ),
    "resnet50_transformers": lambda: transformers_convolutional(
        "ResNet", 2.0, RESNET_50, (165, 206)
    ),
    # With kernels of twice the variance torch in float32 and in float64 differ, as above.
    **{f"efficientnet_b{i}": efficient(f"efficientnet_b{i}", 1.0) for i in (1, 2, 3, 4)},
    "tf_efficientnet_b0": efficient("tf_efficientnet_b0"),
    **{
        f"tf_efficientnet_lite{i}": efficient(f"tf_efficientnet_lite{i}", 1.0) for i in (1, 2, 3, 4)
    },
    # Likewise: attention is all but one-hot.
    "mobilenetv4_hybrid_medium": efficient("mobilenetv4_hybrid_medium", 0.5),
    "dinov2_s14_reg4": lambda: timm_model(
        "vit_small_patch14_reg4_dinov2", 518, 1.0, other=(224, 308)
    ),
    "vit_s16_rope": lambda: timm_model("vit_small_patch16_rope_224", 224, 1.0, other=(192, 320)),
    "eva02_b16_clip": lambda: timm_model("eva02_base_patch16_clip_224", 224, 1.0, other=(192, 320)),
    "vit_b16_transformers": lambda: transformers_model(
        "ViT", "ForImageClassification", (192, 320), num_labels=1000
    ),
    "convnextv2_t_transformers": lambda: transformers_convolutional(
        "ConvNextV2", 1.0, stages(-1, 2, 5, 14, 17), (192, 320)
    ),
    "swinv2_t_transformers": lambda: transformers_swin((288, 352)),
    "siglip2_naflex": transformers_naflex,
    "coca_b32": lambda: open_clip_model("coca_ViT-B-32", (192, 320)),
    "eva02_b16_open_clip": lambda: open_clip_model("EVA02-B-16", (192, 320)),
}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    with torch.no_grad():
        model, given, found = MODELS[name]()
    library = type(model).__module__.split(".")[0]
    if library == "transformers":
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            model.config.architectures = [type(model).__name__]
            model.save_pretrained(temporary)
            weights = load_file(Path(temporary) / "model.safetensors")
            (Path(temporary) / "config.json").rename(folder / "config.json")
    else:
        weights = model.state_dict()
    if library == "timm":
        from timm.models._hub import save_config_for_hf

        save_config_for_hf(model, folder / "config.json")
    if library == "open_clip":
        import open_clip

        content = {"model_cfg": open_clip.get_model_config(model.name), "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
    weights = {key: x.detach().contiguous() for key, x in weights.items()}
    save_file(weights, folder / "model.safetensors")
    expected = {f"out/{key}": x for key, x in found.items()}
    expected |= {key: x for key, x in given.items() if key.startswith("other/")}
    for key in ("images", "other/images"):
        if key in given:
            expected[key] = given[key].permute(0, 2, 3, 1)
    if "patches" in given:
        expected["images"] = given["patches"]
    for key in ("ids", "other/ids"):
        if key in given:
            expected[key] = given[key].int()
    expected = {key: x.detach().clone().contiguous() for key, x in expected.items()}
    save_file(expected, folder / "expected.safetensors")
    print(library, sys.modules[library].__version__)


if __name__ == "__main__":
    main()
