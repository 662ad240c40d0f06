"""Config files beside the goldens' weights, and what their models compute at another size.

    .venv-peers/bin/python bench/goldens/weights_cards.py      # after weights_vit.py and _text.py

To tests/golden/weights: cards.json with, by case, the library, the name of the file and its content
as the library writes it, for the narrow models of vit/ and text/, and of real ones; and in
sizes.safetensors images of 24 x 12 pixels, where the weights were made for 16 x 16, and what comes
of them in each library when it resamples positions by its own rule.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from weights_vit import DEPTH, FOLDER, HF, PATCH, SIDE, WIDTH, timm_outputs

import open_clip  # isort: skip
import timm  # isort: skip
import transformers  # isort: skip
from safetensors.torch import load_file, save_file
from timm.models import vision_transformer
from timm.models._hub import save_config_for_hf

OUT = FOLDER.parent
TALL = (24, 12)
CARDS: dict[str, dict] = {}
ARRAYS: dict[str, torch.Tensor] = {}


def weights_of(folder: str, case: str) -> dict[str, torch.Tensor]:
    tensors = load_file(OUT / folder / f"{case}.safetensors")
    return {k[8:]: v for k, v in tensors.items() if k.startswith("weights/")}


def images() -> torch.Tensor:
    return torch.randn(2, 3, *TALL)


def keep(case: str, seen: torch.Tensor, **found: torch.Tensor) -> None:
    ARRAYS[f"{case}/images"] = seen.permute(0, 2, 3, 1)
    for name, value in found.items():
        ARRAYS[f"{case}/{name}"] = value.detach()


# Case to the name of a real architecture and the arguments that make it narrow.
SIZES = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
TIMM_CASES = {
    "timm_augreg": ("vit_small_patch16_224", 5, {"mlp_ratio": 2}),
    "timm_dinov2_reg4": ("vit_small_patch14_reg4_dinov2", 0, {"mlp_ratio": 2}),
    "timm_dinov2_swiglu": ("vit_giant_patch14_dinov2", 0, {"mlp_ratio": 3}),
    "timm_siglip": ("vit_base_patch16_siglip_224", 5, {"mlp_ratio": 2}),
    "timm_clip": ("vit_base_patch16_clip_quickgelu_224", 5, {"mlp_ratio": 2}),
}


def config_of(model: torch.nn.Module, arguments: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        save_config_for_hf(model, file, model_args=arguments)
        return json.loads(file.read_text())


def timm_cases() -> None:
    for case, (name, classes, more) in TIMM_CASES.items():
        arguments = SIZES | more
        tall = timm.create_model(name, num_classes=classes, **{**arguments, "img_size": TALL})
        square = timm.create_model(name, num_classes=classes, **arguments)
        content = config_of(square, arguments)
        CARDS[case] = {"scheme": "timm", "file": "config.json", "content": content}
        filtered = vision_transformer.checkpoint_filter_fn(weights_of("vit", case), tall)
        tall.load_state_dict(filtered)
        seen = images()
        with torch.no_grad():
            found = timm_outputs(tall.eval(), seen)
        keep(case, seen, **{k: v for k, v in found.items() if not k.startswith("block")})


def open_clip_case() -> None:
    config = {
        "embed_dim": 8,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": DEPTH,
            "width": WIDTH,
            "head_width": 8,
            "mlp_ratio": 2.0,
            "patch_size": PATCH,
        },
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
    }
    CARDS["open_clip"] = {
        "scheme": "open_clip",
        "file": "open_clip_config.json",
        "content": {"model_cfg": config, "preprocess_cfg": {"size": SIDE}},
    }
    vision = open_clip.CLIPVisionCfg(**{**config["vision_cfg"], "image_size": TALL})
    text = open_clip.CLIPTextCfg(**config["text_cfg"])
    model = open_clip.CLIP(8, vision, text, quick_gelu=True).eval()
    state = {f"visual.{k}": v for k, v in weights_of("vit", "open_clip").items()}
    open_clip.model.resize_pos_embed(state, model)
    model.load_state_dict(state, strict=False)
    model.visual.proj = None
    seen = images()
    keep("open_clip", seen, embedding=model.visual(seen))


def hugging_face(case: str, folder: str, model: torch.nn.Module, run) -> None:
    """The class of a model, with the weights of a case under the names that files have."""
    with tempfile.TemporaryDirectory() as saved:
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(saved)
        save_file(weights_of(folder, case), Path(saved) / "model.safetensors", {"format": "pt"})
        content = json.loads((Path(saved) / "config.json").read_text())
        model = type(model).from_pretrained(saved).eval()
    CARDS[case] = {"scheme": "transformers", "file": "config.json", "content": content}
    if run is not None:
        seen = images()
        with torch.no_grad():
            keep(case, seen, **run(model, seen))


def hugging_faces() -> None:
    t = transformers
    sizes = {**HF, "intermediate_size": 2 * WIDTH}
    pooled = lambda model, x: {  # noqa: E731
        "embedding": model(x, interpolate_pos_encoding=True).pooler_output
    }
    own = lambda model, x: {"embedding": model(x).pooler_output}  # noqa: E731
    logits = lambda model, x: {"logits": model(x, interpolate_pos_encoding=True).logits}  # noqa: E731
    clip = t.CLIPVisionModel(t.CLIPVisionConfig(hidden_act="quick_gelu", **sizes))
    hugging_face("transformers_clip", "vit", clip, pooled)
    hugging_face(
        "transformers_siglip", "vit", t.SiglipVisionModel(t.SiglipVisionConfig(**sizes)), pooled
    )
    vit = t.ViTForImageClassification(t.ViTConfig(num_labels=5, **sizes))
    hugging_face("transformers_vit", "vit", vit, logits)
    registers = t.Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=3, **HF)
    hugging_face("transformers_dinov2", "vit", t.Dinov2WithRegistersModel(registers), own)
    gated = t.Dinov2Model(t.Dinov2Config(use_swiglu_ffn=True, **HF))
    hugging_face("transformers_dinov2_swiglu", "vit", gated, own)


def naflex() -> None:
    """SigLIP2, which reads patches; its positions are resampled bilinearly, antialiased."""
    vision = {k: v for k, v in HF.items() if k != "image_size"}
    vision |= {"intermediate_size": 2 * WIDTH, "num_patches": (SIDE // PATCH) ** 2}
    state = weights_of("text", "transformers_siglip2")
    model = transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**vision)).eval()
    wanted = model.state_dict()
    found = {k: v for k, v in state.items() if k in wanted}
    found |= {
        k.removeprefix("vision_model."): v
        for k, v in state.items()
        if k.removeprefix("vision_model.") in wanted
    }
    model.load_state_dict(found)
    seen = images()
    rows, columns = (side // PATCH for side in TALL)
    patches = seen.permute(0, 2, 3, 1).reshape(2, rows, PATCH, columns, PATCH, 3).transpose(2, 3)
    with torch.no_grad():
        out = model(
            pixel_values=patches.reshape(2, rows * columns, -1),
            pixel_attention_mask=torch.ones(2, rows * columns, dtype=torch.long),
            spatial_shapes=torch.tensor([[rows, columns]] * 2),
        )
    keep("transformers_siglip2", seen, embedding=out.pooler_output)


REAL = (
    *("resnet50", "resnet50d", "resnetaa50", "resnetblur50", "resnext50_32x4d", "resnetv2_50"),
    *("vit_base_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_base_patch32_clip_224"),
    *("vit_so150m_patch16_reg4_gap_256", "convnext_tiny", "convnextv2_nano", "densenet121"),
    *("swin_tiny_patch4_window7_224", "tf_efficientnet_b0", "mobilenetv3_large_100", "vgg16_bn"),
    *("resnetv2_50x1_bit", "deit3_small_patch16_224", "beit_base_patch16_224"),
)


def real_cards() -> None:
    for name in REAL:
        with torch.device("meta"):
            model = timm.create_model(name)
        content = config_of(model, None)
        CARDS[f"real/{name}"] = {"scheme": "timm", "file": "config.json", "content": content}
    for name in (
        "ViT-B-32-quickgelu",
        "ViT-B-16-SigLIP",
        "ViT-B-16-SigLIP2",
        "RN50",
        "coca_ViT-B-32",
    ):
        content = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
        CARDS[f"real/{name}"] = {
            "scheme": "open_clip",
            "file": "open_clip_config.json",
            "content": content,
        }
    t = transformers
    for name in ("CLIP", "Siglip", "Bert", "DeiT", "ConvNext", "ViTMAE"):
        config = getattr(t, f"{name}Config")()
        content = json.loads(config.to_json_string(use_diff=False))
        CARDS[f"real/{name}"] = {
            "scheme": "transformers",
            "file": "config.json",
            "content": content,
        }


def main() -> None:
    torch.manual_seed(0)
    timm_cases()
    open_clip_case()
    hugging_faces()
    naflex()
    real_cards()
    for card in CARDS.values():
        for key in ("transformers_version", "label_names", "label_descriptions"):
            card["content"].pop(key, None)
    (OUT / "cards.json").write_text(json.dumps(CARDS, indent=1) + "\n")
    contiguous = {k: v.clone().contiguous() for k, v in ARRAYS.items()}
    save_file(contiguous, OUT / "sizes.safetensors")
    for file in (OUT / "cards.json", OUT / "sizes.safetensors"):
        file.chmod(0o644)
    print(sorted(CARDS), sorted(ARRAYS))


if __name__ == "__main__":
    main()
