"""A model of timm, open_clip or transformers at its real size, for ``bench/parity.py``.

    python bench/peers/parity_model.py MODEL FOLDER

Its weights are random, none at zero or one, where a tensor that is not used would not show. Into
FOLDER go ``weights.safetensors``, as the library writes its files, and ``expected.safetensors``:
``images`` (2, h, w, 3), ``ids`` (2, T) and, by our names, ``out/<name>``. The line it prints is the
library and its version.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Mapping
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
            elif name.endswith("running_var") or (x.ndim == 1 and name.endswith("weight")):
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
    name: str, size: int, gain: float, sites: tuple[str, ...] = (), **options: object
) -> tuple[torch.nn.Module, Tensors, Tensors]:
    """Its intermediates are those of ``forward_intermediates``; ``sites`` are ours, or all."""
    import timm

    model = randomise(timm.create_model(name, pretrained=False, **options), gain)
    images = torch.randn(ROWS, 3, size, size)
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
    return model, {"images": images}, found


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


def transformers_model(kind: str, **fields: object) -> tuple[torch.nn.Module, Tensors, Tensors]:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**fields)
    model = randomise(getattr(transformers, f"{kind}Model")(config), 1.0)
    if kind == "Bert":
        found = keep_blocks({"": model})
        ids = texts(config.max_position_embeddings // 4, config.vocab_size)
        out = model(ids, attention_mask=(ids != 0).long())
        return model, {"ids": ids}, {**found, "embedding": out.pooler_output}
    vision = getattr(config, "vision_config", config)
    images = torch.randn(ROWS, 3, vision.image_size, vision.image_size)
    if kind == "Dinov2":
        found = keep_blocks({"": model})
        embedding = model(images).pooler_output
        return model, {"images": images}, {**found, "embedding": embedding}
    ids = texts(config.text_config.max_position_embeddings, config.text_config.vocab_size)
    found = keep_blocks({"image/": model.vision_model, "text/": model.text_model})
    out = model(input_ids=ids, pixel_values=images)
    found["image/embedding"] = normalize(out.image_embeds, dim=-1)
    found["text/embedding"] = normalize(out.text_embeds, dim=-1)
    found["logits"] = out.logits_per_image
    return model, {"images": images, "ids": ids}, found


def stages(*last: int) -> tuple[str, ...]:
    return tuple("" if i < 0 else f"block{i:02d}" for i in last)


MODELS: Mapping[str, Callable[[], tuple[torch.nn.Module, Tensors, Tensors]]] = {
    "vit_b16": lambda: timm_model("vit_base_patch16_224", 224, 1.0),
    "dinov2_s14_timm": lambda: timm_model("vit_small_patch14_dinov2", 518, 1.0),
    "dinov2_s14_transformers": lambda: transformers_model(
        "Dinov2", hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14
    ),
    "resnet50": lambda: timm_model("resnet50", 224, 2.0, stages(-1, 2, 6, 12, 15)),
    "convnext_t": lambda: timm_model("convnext_tiny", 224, 1.0, stages(2, 5, 14, 17)),
    "swin_t": lambda: timm_model("swin_tiny_patch4_window7_224", 224, 1.0, stages(1, 3, 9, 11)),
    "efficientnet_b0": lambda: timm_model("efficientnet_b0", 224, 2.0, stages(0, 2, 4, 10, 15)),
    "clip_b32": lambda: open_clip_model("ViT-B-32-quickgelu"),
    "clip_b32_transformers": lambda: transformers_model("CLIP"),
    "siglip_b16": lambda: open_clip_model("ViT-B-16-SigLIP"),
    "siglip_b16_transformers": lambda: transformers_model("Siglip"),
    "bert_base": lambda: transformers_model("Bert"),
}


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    torch.manual_seed(0)
    with torch.no_grad():
        model, given, found = MODELS[name]()
    library = type(model).__module__.split(".")[0]
    if library == "transformers":
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            model.save_pretrained(temporary)
            weights = load_file(Path(temporary) / "model.safetensors")
    else:
        weights = model.state_dict()
    weights = {key: x.detach().contiguous() for key, x in weights.items()}
    save_file(weights, folder / "weights.safetensors")
    expected = {f"out/{key}": x for key, x in found.items()}
    if "images" in given:
        expected["images"] = given["images"].permute(0, 2, 3, 1)
    if "ids" in given:
        expected["ids"] = given["ids"].int()
    expected = {key: x.detach().clone().contiguous() for key, x in expected.items()}
    save_file(expected, folder / "expected.safetensors")
    print(library, sys.modules[library].__version__)


if __name__ == "__main__":
    main()
