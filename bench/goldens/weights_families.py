"""Further families of timm, transformers and open_clip: cards, weights, and what they compute.

    .venv-peers/bin/python bench/goldens/weights_families.py [case ...]

Narrow models with random weights, of which nothing is at its identity, go to
tests/golden/weights/families/<case>.safetensors, each with

    weights/<name>        the model's tensors under the names that its files have
    images, out/<site>    (2, h, w, 3) of the size that it was made for, and what came of them
    other/images, other/out/<site>    the same of another size, for which the library resampled

and their cards to cards.json, by case: the library, the file, its content as the library has it.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from timm.models._hub import save_config_for_hf  # noqa: E402
from timm.models.maxxvit import MaxxVit  # noqa: E402
from timm.models.mlp_mixer import MlpMixer  # noqa: E402
from timm.models.swin_transformer import SwinTransformer  # noqa: E402
from timm.models.swin_transformer import checkpoint_filter_fn as swin_filter  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "families"
CLASSES = 5
Found = dict[str, torch.Tensor]
CARDS: dict[str, dict] = {}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if not x.is_floating_point():
                continue
            if name.endswith("running_var"):
                x.uniform_(0.5, 1.5)
            elif "logit_scale" in name:
                x.uniform_(1.0, 3.0)
            elif x.ndim == 1 and name.endswith("weight"):
                x.uniform_(0.5, 1.5)
            elif x.ndim == 1 or "pos" in name or "token" in name or "bias" in name:
                x.normal_(0, 0.4)
            elif "gamma" in name or "lambda" in name:
                x.uniform_(0.5, 1.5)
            else:
                x.normal_(0, (1 / x[0].numel()) ** 0.5)
            x.copy_(x.half().float())
    return model.eval()


def timm_outputs(model: torch.nn.Module, images: torch.Tensor) -> Found:
    """What its blocks give, in the order of its list or of its stages, with pooled and logits."""
    found: Found = {}
    hooks = []
    lists = [model.blocks] if hasattr(model, "blocks") else [s.blocks for s in stages_of(model)]
    lists += [model.cls_attn_blocks] if hasattr(model, "cls_attn_blocks") else []
    blocks = [block for each in lists for block in each]
    for i, block in enumerate(blocks):
        hooks.append(
            block.register_forward_hook(
                lambda module, given, out, i=i: found.update({f"block{i:02d}": out})
            )
        )
    last = model.forward_features(images)
    for hook in hooks:
        hook.remove()
    if isinstance(model, MaxxVit):
        found = {site: x.permute(0, 2, 3, 1) for site, x in found.items()}
    found["embedding"] = model.forward_head(last, pre_logits=True)
    found["logits"] = model.forward_head(last)
    return found


def stages_of(model: torch.nn.Module) -> list[torch.nn.Module]:
    return list(model.stages if hasattr(model, "stages") else model.layers)


def timm_case(
    case: str,
    name: str,
    size: int,
    other: tuple[int, int] | None,
    build: Callable[..., torch.nn.Module] | None = None,
    **arguments: object,
) -> None:
    """``build`` makes the class itself, where the function of this name fixes the arguments."""

    def made(shape: object) -> torch.nn.Module:
        create = build or partial(timm.create_model, name)
        return create(num_classes=CLASSES, img_size=shape, **arguments)

    model = randomise(made(size))
    model.pretrained_cfg = timm.get_pretrained_cfg(name).to_dict()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        save_config_for_hf(model, file, model_args={"img_size": size, **arguments})
        content = {**json.loads(file.read_text()), "architecture": name}
    CARDS[case] = {"scheme": "timm", "file": "config.json", "content": content}
    saved = outputs("", size, lambda images: timm_outputs(model, images))
    weights = model.state_dict()
    if other is not None:
        sized = made(size)
        sized.load_state_dict(weights)
        if hasattr(sized, "set_input_size") and (
            hasattr(sized, "pos_embed")
            or hasattr(sized, "partition_ratio")
            or hasattr(sized, "rel_pos_bias")
        ):
            sized.set_input_size(other)
        else:
            sized = made(other)
            # As timm loads: of a Swin, tables of other windows are resampled.
            kept = (
                swin_filter(dict(weights), sized) if isinstance(sized, SwinTransformer) else weights
            )
            sized.load_state_dict(kept)
        saved |= outputs("other/", other, lambda images: timm_outputs(sized.eval(), images))
    write(case, weights, saved)


def transformers_case(
    case: str,
    model: torch.nn.Module,
    other: tuple[int, int] | None,
    run: Callable[[torch.nn.Module, torch.Tensor], Found],
) -> None:
    randomise(model)
    with tempfile.TemporaryDirectory() as folder:
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(folder)
        weights = load_file(Path(folder) / "model.safetensors")
        content = json.loads((Path(folder) / "config.json").read_text())
    CARDS[case] = {"scheme": "transformers", "file": "config.json", "content": content}
    if hasattr(model.config, "depths"):
        blocks = [b for stage in model.base_model.encoder.layers for b in stage.blocks]
    else:
        depth = model.config.num_hidden_layers
        (blocks,) = [
            m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth
        ]

    def all_of(images: torch.Tensor) -> Found:
        found: Found = {}
        hooks = [
            block.register_forward_hook(
                lambda module, given, out, i=i: found.update(
                    {f"block{i:02d}": out[0] if isinstance(out, tuple) else out}
                )
            )
            for i, block in enumerate(blocks)
        ]
        found |= run(model, images)
        for hook in hooks:
            hook.remove()
        if hasattr(model.config, "depths"):  # of a square image, which blocks get as a list
            found = {
                site: x.unflatten(1, (math.isqrt(x.shape[1]), -1)) if "block" in site else x
                for site, x in found.items()
            }
        return found

    saved = outputs("", model.config.image_size, all_of)
    if other is not None:
        saved |= outputs("other/", other, all_of)
    write(case, weights, saved)


def outputs(
    prefix: str, size: int | tuple[int, int], run: Callable[[torch.Tensor], Found]
) -> Found:
    shape = (size, size) if isinstance(size, int) else size
    images = torch.randn(2, 3, *shape).half().float()
    with torch.no_grad():
        found = {f"{prefix}out/{site}": x for site, x in run(images).items()}
    if prefix:
        found = {k: v for k, v in found.items() if "block" not in k}
    return {f"{prefix}images": images.permute(0, 2, 3, 1).half(), **found}


def write(case: str, weights: Mapping[str, torch.Tensor], saved: Found) -> None:
    tensors = {f"weights/{k}": v.half() if v.is_floating_point() else v for k, v in weights.items()}
    tensors |= saved
    path = OUT / f"{case}.safetensors"
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)
    path.chmod(0o644)
    spread = {k.rpartition("/")[2]: f"{v.std():.2g}" for k, v in saved.items() if "out/" in k}
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", spread)


HF = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
NARROW = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
TALL = (24, 12)


def pooled(model: torch.nn.Module, images: torch.Tensor) -> Found:
    return {"embedding": model(images).pooler_output}


def logits(model: torch.nn.Module, images: torch.Tensor) -> Found:
    return {"logits": model(images).logits}


def interpolated(model: torch.nn.Module, images: torch.Tensor) -> Found:
    return {"logits": model(images, interpolate_pos_encoding=True).logits}


def relative() -> Mapping[str, Callable[[str], None]]:
    t = transformers
    dinov3 = {**HF, "intermediate_size": 32, "num_register_tokens": 3}
    gated = {"use_gated_mlp": True, "hidden_act": "silu", "key_bias": True}
    beit = {**HF, "intermediate_size": 32, "num_labels": CLASSES}
    shared = {"use_shared_relative_position_bias": True, "use_mean_pooling": False}
    eva = {**NARROW, "mlp_ratio": 8 / 3}
    registers = {**HF, "mlp_ratio": 2, "num_register_tokens": 3, "num_labels": CLASSES}
    return {
        "timm_beit": lambda case: timm_case(case, "beit_base_patch16_224", 16, TALL, **NARROW),
        "timm_eva02": lambda case: timm_case(case, "eva02_tiny_patch14_224", 16, TALL, **eva),
        "timm_eva02_clip": lambda case: timm_case(
            case, "eva02_base_patch16_clip_224", 16, TALL, **eva
        ),
        "timm_dinov3": lambda case: timm_case(
            case, "vit_small_patch16_dinov3_qkvb", 16, TALL, **NARROW
        ),
        "timm_rope": lambda case: timm_case(
            case, "vit_small_patch16_rope_ape_224", 16, TALL, **NARROW
        ),
        "timm_so150m": lambda case: timm_case(
            case, "vit_so150m2_patch16_reg1_gap_256", 16, TALL, **NARROW
        ),
        "timm_so150m_class": lambda case: timm_case(
            case, "vit_base_patch16_224", 16, TALL, **NARROW, reg_tokens=3
        ),
        "timm_deit3": lambda case: timm_case(case, "deit3_small_patch16_224", 16, TALL, **NARROW),
        "transformers_dinov3": lambda case: transformers_case(
            case, t.DINOv3ViTModel(t.DINOv3ViTConfig(**dinov3)), TALL, pooled
        ),
        "transformers_dinov3_gated": lambda case: transformers_case(
            case, t.DINOv3ViTModel(t.DINOv3ViTConfig(**dinov3, **gated)), TALL, pooled
        ),
        "transformers_beit": lambda case: transformers_case(
            case,
            t.BeitForImageClassification(t.BeitConfig(**beit, use_relative_position_bias=True)),
            TALL,
            logits,
        ),
        "transformers_beit_shared": lambda case: transformers_case(
            case, t.BeitModel(t.BeitConfig(**beit, **shared)), TALL, pooled
        ),
        "transformers_dinov2_head": lambda case: transformers_case(
            case,
            t.Dinov2WithRegistersForImageClassification(t.Dinov2WithRegistersConfig(**registers)),
            TALL,
            logits,
        ),
    }


def others() -> Mapping[str, Callable[[str], None]]:
    swin = {"embed_dim": 16, "depths": [2, 2, 1], "num_heads": [1, 2, 4]}
    small = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4}
    return {
        # Windows larger than a map: at the other size, and at the one that it was made for.
        "timm_swin": lambda case: timm_case(
            case, "swin_tiny_patch4_window7_224", 32, (24, 12), **small
        ),
        "timm_swin_small": lambda case: timm_case(
            case, "swin_tiny_patch4_window7_224", 24, (32, 48), **small
        ),
        "timm_swin_v2": lambda case: timm_case(
            case, "swinv2_tiny_window8_256", 64, (72, 88), **swin, window_size=4
        ),
        "timm_swin_v2_trained": lambda case: timm_case(
            case,
            "swinv2_base_window12to16_192to256",
            64,
            (40, 64),
            **swin,
            window_size=8,
            pretrained_window_sizes=[6, 6, 3],
        ),
        "timm_xcit": lambda case: timm_case(
            case, "xcit_nano_12_p16_224", 32, (48, 32), embed_dim=16, depth=2, num_heads=2
        ),
        "timm_xcit_p8": lambda case: timm_case(
            case, "xcit_tiny_12_p8_224", 16, (24, 16), embed_dim=16, depth=2, num_heads=2
        ),
        "timm_maxvit": lambda case: timm_case(
            case,
            "maxvit_tiny_tf_224",
            64,
            (64, 96),
            embed_dim=[16, 16, 24, 32],
            depths=[1, 1, 1, 1],
            stem_width=16,
            head_hidden_size=24,
            transformer_dim_head=8,
        ),
        "open_clip_coca": partial(coca, joint=12),
        "open_clip_coca_wide": partial(coca, joint=16),
        "timm_mixer": lambda case: timm_case(
            case, "mixer_s16_224", 16, None, MlpMixer, patch_size=4, embed_dim=16, num_blocks=2
        ),
    }


def coca(case: str, joint: int) -> None:
    """open_clip's CoCa; what writes captions is in the file and not read."""
    import open_clip

    common = {"layers": 2, "width": 16, "output_tokens": True}
    text = {**common, "heads": 2, "context_length": 8, "vocab_size": 40}
    config = {
        "embed_dim": joint,
        "vision_cfg": {
            **common,
            "image_size": 16,
            "head_width": 8,
            "patch_size": 4,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 5,
        },
        "text_cfg": {**text, "embed_cls": True},
        "multimodal_cfg": {**text, "attn_pooler_heads": 2},
        "custom_text": True,
    }
    CARDS[case] = {
        "scheme": "open_clip",
        "file": "open_clip_config.json",
        "content": {"model_cfg": config, "preprocess_cfg": {}},
    }
    parts = {k: v for k, v in config.items() if k != "custom_text"}
    model = randomise(open_clip.CoCa(**parts))
    ids = torch.tensor([[38, 5, 6, 39, 0, 0, 0, 0], [38, 1, 2, 3, 4, 5, 6, 39]])

    def run(images: torch.Tensor, model: torch.nn.Module = model) -> Found:
        return {
            "image/embedding": model.encode_image(images),
            "text/embedding": model.encode_text(ids),
        }

    saved = outputs("", 16, run) | {"ids": ids.int()}
    vision = {**config["vision_cfg"], "image_size": (24, 12)}
    sized = open_clip.CoCa(**{**parts, "vision_cfg": vision}).eval()
    state = dict(model.state_dict())
    open_clip.model.resize_pos_embed(state, sized)
    sized.load_state_dict(state)
    saved |= outputs("other/", (24, 12), partial(run, model=sized)) | {"other/ids": ids.int()}
    write(case, model.state_dict(), saved)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    cases = {**relative(), **others()}
    asked = sys.argv[1:] or list(cases)
    file = OUT / "cards.json"
    if sys.argv[1:] and file.exists():
        CARDS.update(json.loads(file.read_text()))
    for case in asked:
        torch.manual_seed(sum(map(ord, case)))
        cases[case](case)
        for key in ("transformers_version", "label_names", "label_descriptions"):
            CARDS[case]["content"].pop(key, None)
    file.write_text(json.dumps(dict(sorted(CARDS.items())), indent=1) + "\n")
    file.chmod(0o644)


if __name__ == "__main__":
    main()
