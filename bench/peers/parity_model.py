"""A model of timm, open_clip or transformers at its real size, for ``bench/parity.py``.

    python bench/peers/parity_model.py MODEL FOLDER

Its weights are random, none at zero or one, where a tensor that is not used would not show. Into
FOLDER go ``model.safetensors`` and ``config.json``, as the library writes them, and
``expected.safetensors``: ``images`` (2, h, w, 3), ``ids`` (2, T) and, by our names, ``out/<name>``;
below ``other/`` the same of images of another size, where there is one. The line it prints is the
library and its version.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch.nn.functional import normalize

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from safetensors.torch import load_file, save_file  # noqa: E402

Tensors = dict[str, torch.Tensor]
# Tables of vectors that are added or attended to, not multiplied with features.
_VECTORS = re.compile(r"pos(?!t)|cls_token|latent|probe|token_emb|word_emb|token_type")
ROWS = 2


def randomise(model: torch.nn.Module, gain: float) -> torch.nn.Module:
    """Kernels have variance ``gain`` over their fan-in."""
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if not x.is_floating_point():
                continue
            if x.numel() == 1:
                x.fill_(-2.25 if "bias" in name else 1.7)
            elif re.search(r"running_var$|gamma|lambda", name) or (
                x.ndim == 1 and name.endswith("weight")
            ):
                x.uniform_(0.5, 1.5)
            elif x.ndim == 1:
                x.normal_(0, 0.2)
            elif _VECTORS.search(name) or name.endswith("bias_table"):
                x.normal_(0, 0.5)
            else:
                x.normal_(0, (gain / x[0].numel()) ** 0.5)
    return model.eval()


def keep_blocks(sides: Mapping[str, torch.nn.Module]) -> Tensors:
    """Fills itself with what blocks give; a side is what holds its only long list of modules."""
    found: Tensors = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, arguments: object, out: object) -> None:
            found[name] = out[0] if isinstance(out, tuple) else out

        return hook

    for side, module in sides.items():
        kinds = (torch.nn.ModuleList, torch.nn.Sequential)
        lists = [m for m in module.modules() if isinstance(m, kinds) and len(m) >= 12]
        for i, block in enumerate(lists[0]):
            block.register_forward_hook(keep(f"{side}block{i:02d}"))
    return found


def timm_model(
    name: str,
    size: int,
    gain: float,
    sites: tuple[str, ...] | None = (),
    other: tuple[int, int] | None = None,
    **options: object,
) -> tuple[torch.nn.Module, Tensors, Tensors]:
    """Its intermediates are those of ``forward_intermediates``; ``sites`` are ours, or all.

    With None they are of every block of every stage. ``other`` is a second size of images.
    """
    import timm

    model = randomise(timm.create_model(name, pretrained=False, **options), gain)
    given, found = timm_outputs(model, size, sites)
    if other is not None:
        made = {"img_size": other} if hasattr(model, "patch_embed") else {}
        resized = timm.create_model(name, pretrained=False, **made, **options).eval()
        weights = model.state_dict()
        if any(weights[k].shape != x.shape for k, x in resized.state_dict().items()):
            resized = timm.create_model(name, pretrained=False, **options).eval()
            resized.load_state_dict(weights)
            resized.set_input_size(other)
        else:
            resized.load_state_dict(weights)
        images = torch.randn(ROWS, 3, *other)
        last = resized.forward_features(images)
        given["other/images"] = images
        given["other/out/embedding"] = resized.forward_head(last, pre_logits=True)
        if model.num_classes:
            given["other/out/logits"] = resized.forward_head(last)
    return model, given, found


def timm_outputs(
    model: torch.nn.Module, size: int, sites: tuple[str, ...] | None
) -> tuple[Tensors, Tensors]:
    images = torch.randn(ROWS, 3, size, size)
    if sites is None:
        stages = getattr(model, "layers", None) or getattr(model, "stages", None) or [model]
        found = keep_each(block for stage in stages for block in stage.blocks)
        last = model.forward_features(images)
        if hasattr(model, "partition_ratio"):  # MaxViT
            found = {site: x.permute(0, 2, 3, 1) for site, x in found.items()}
        found["embedding"] = model.forward_head(last, pre_logits=True)
        found["logits"] = model.forward_head(last)
        return {"images": images}, found
    form = {} if sites else {"output_fmt": "NLC", "return_prefix_tokens": True}
    last, stages = model.forward_intermediates(images, **form)
    found = {}
    for i, stage in enumerate(stages):
        if not sites:
            stage = torch.cat([stage[1], stage[0]], 1) if isinstance(stage, tuple) else stage
            found[f"block{i:02d}"] = stage
        elif sites[i]:
            found[sites[i]] = stage.permute(0, 2, 3, 1)
    found["embedding"] = model.forward_head(last, pre_logits=True)
    if model.num_classes:
        found["logits"] = model.forward_head(last)
    return {"images": images}, found


def keep_each(blocks: Iterable[torch.nn.Module]) -> Tensors:
    """Fills itself with what each of these gives."""
    found: Tensors = {}
    for i, block in enumerate(blocks):
        block.register_forward_hook(
            lambda module, given, out, i=i: found.update({f"block{i:02d}": out})
        )
    return found


def open_clip_model(name: str) -> tuple[torch.nn.Module, Tensors, Tensors]:
    import open_clip

    model = randomise(open_clip.create_model(name), 1.0)
    size = model.visual.image_size
    images = torch.randn(ROWS, 3, *(size if isinstance(size, tuple) else (size, size)))
    ids = texts(model.context_length, model.vocab_size)
    text = getattr(model, "text", None) or model.transformer
    found = keep_blocks({"image/": model.visual, "text/": text})
    given = {"images": images, "ids": ids}
    found["image/embedding"] = model.encode_image(images, normalize=True)
    found["text/embedding"] = model.encode_text(ids, normalize=True)
    found["logits"] = model.get_logits(images, ids)[0]
    return model, given, found


def texts(context: int, vocabulary: int) -> torch.Tensor:
    """One fills its row; the other ends early in the highest id and is padded with 0."""
    ids = torch.randint(2, vocabulary - 1, (ROWS, context))
    ids[0, -1] = ids[1, context // 2] = vocabulary - 1
    ids[1, context // 2 + 1 :] = 0
    return ids


def transformers_model(
    kind: str, head: str = "Model", other: tuple[int, int] | None = None, **fields: object
) -> tuple[torch.nn.Module, Tensors, Tensors]:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**fields)
    model = randomise(getattr(transformers, f"{kind}{head}")(config), 1.0)
    if kind == "Bert":
        found = keep_blocks({"": model})
        ids = texts(config.max_position_embeddings // 4, config.vocab_size)
        out = model(ids, attention_mask=(ids != 0).long())
        return model, {"ids": ids}, {**found, "embedding": out.pooler_output}
    vision = getattr(config, "vision_config", config)
    images = torch.randn(ROWS, 3, vision.image_size, vision.image_size)
    if not hasattr(config, "text_config"):
        name = "logits" if hasattr(model, "classifier") else "embedding"
        attribute = {"logits": "logits", "embedding": "pooler_output"}[name]
        kept = keep_blocks({"": model})
        result = getattr(model(images), attribute)
        found = {**kept, name: result}
        given = {"images": images}
        if other is not None:
            given["other/images"] = torch.randn(ROWS, 3, *other)
            given[f"other/out/{name}"] = getattr(model(given["other/images"]), attribute)
        return model, given, found
    ids = texts(config.text_config.max_position_embeddings, config.text_config.vocab_size)
    found = keep_blocks({"image/": model.vision_model, "text/": model.text_model})
    out = model(input_ids=ids, pixel_values=images)
    found["image/embedding"] = normalize(out.image_embeds, dim=-1)
    found["text/embedding"] = normalize(out.text_embeds, dim=-1)
    found["logits"] = out.logits_per_image
    return model, {"images": images, "ids": ids}, found


SMALL = {"hidden_size": 384, "num_attention_heads": 6}


def transformers_convolutional(
    kind: str, gain: float, sites: tuple[str, ...], other: tuple[int, int], **fields: object
) -> tuple[torch.nn.Module, Tensors, Tensors]:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**fields, num_labels=1000)
    model = randomise(getattr(transformers, f"{kind}ForImageClassification")(config), gain)
    images, others = torch.randn(ROWS, 3, 224, 224), torch.randn(ROWS, 3, *other)
    out = model(images, output_hidden_states=True)
    found = {
        site: x.permute(0, 2, 3, 1)
        for site, x in zip(sites, out.hidden_states, strict=True)
        if site
    }
    found["logits"] = out.logits
    given = {"images": images, "other/images": others, "other/out/logits": model(others).logits}
    return model, given, found


def stages(*last: int) -> tuple[str, ...]:
    return tuple("" if i < 0 else f"block{i:02d}" for i in last)


RESNET_50 = stages(-1, 2, 6, 12, 15)
MODELS: Mapping[str, Callable[[], tuple[torch.nn.Module, Tensors, Tensors]]] = {
    "vit_b16": lambda: timm_model("vit_base_patch16_224", 224, 1.0, other=(192, 320)),
    "dinov2_s14_timm": lambda: timm_model("vit_small_patch14_dinov2", 518, 1.0, other=(224, 308)),
    "dinov2_s14_transformers": lambda: transformers_model(
        "Dinov2", other=(224, 308), image_size=518, patch_size=14, **SMALL
    ),
    "resnet50": lambda: timm_model("resnet50", 224, 2.0, RESNET_50, (165, 206)),
    "convnext_t": lambda: timm_model("convnext_tiny", 224, 1.0, stages(2, 5, 14, 17), (192, 320)),
    "swin_t": lambda: timm_model(
        "swin_tiny_patch4_window7_224", 224, 1.0, stages(1, 3, 9, 11), (256, 320)
    ),
    "efficientnet_b0": lambda: timm_model(
        "efficientnet_b0", 224, 2.0, stages(0, 2, 4, 10, 15), (165, 206)
    ),
    "clip_b32": lambda: open_clip_model("ViT-B-32-quickgelu"),
    "clip_b32_transformers": lambda: transformers_model("CLIP"),
    "siglip_b16": lambda: open_clip_model("ViT-B-16-SigLIP"),
    "siglip_b16_transformers": lambda: transformers_model("Siglip"),
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
    weights = {key: x.detach().contiguous() for key, x in weights.items()}
    save_file(weights, folder / "model.safetensors")
    expected = {f"out/{key}": x for key, x in found.items()}
    expected |= {key: x for key, x in given.items() if key.startswith("other/")}
    for key in ("images", "other/images"):
        if key in given:
            expected[key] = given[key].permute(0, 2, 3, 1)
    if "ids" in given:
        expected["ids"] = given["ids"].int()
    expected = {key: x.detach().clone().contiguous() for key, x in expected.items()}
    save_file(expected, folder / "expected.safetensors")
    print(library, sys.modules[library].__version__)


if __name__ == "__main__":
    main()
