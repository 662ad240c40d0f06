"""Vision transformers of timm, open_clip and transformers: weights and what they compute.

    .venv-peers/bin/python bench/goldens/weights_vit.py

Narrow models with random weights go to tests/golden/weights/vit/*.safetensors, each file with

    weights/<name>     the model's tensors under the names that its files have
    images             (2, 16, 16, 3), or what the case says
    block<i>           (2, N, D) what block i gave, prefix tokens first
    embedding, logits  the input of the classifier head, and what it gave

and what timm makes of positions and patches of another size to resampled.safetensors. The
weights of big_vision are an npz, which timm's reader of such files puts into its own model.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from timm.layers import SwiGLUPacked, resample_abs_pos_embed, resample_patch_embed  # noqa: E402
from timm.models.vision_transformer import VisionTransformer, _load_weights  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "vit"
WIDTH, DEPTH, HEADS, PATCH, SIDE, CLASSES = 16, 2, 2, 4, 16, 5
TIMM = {
    "img_size": SIDE,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
    "mlp_ratio": 2,
}
HF = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def randomise(model):
    """Every parameter random, none so large or small that what it does cannot be seen."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = torch.randn_like(p)
            if name.endswith("weight") and p.ndim == 1:
                p.copy_(1 + 0.2 * values)
            elif name.endswith("weight") and p.ndim > 1 and "position" not in name:
                p.copy_(values / p[0].numel() ** 0.5)
            else:
                p.copy_(0.4 * values)
    return model.eval()


def write(name, model, blocks, run, weights=None):
    """Runs a model and writes its weights, its own unless others are given, inputs and outputs."""
    images = torch.randn(2, 3, SIDE, SIDE)
    found = {}
    hooks = [
        block.register_forward_hook(
            lambda m, args, out, i=i: found.update(
                {f"block{i:02d}": out[0] if isinstance(out, tuple) else out}
            )
        )
        for i, block in enumerate(blocks)
    ]
    with torch.no_grad():
        found |= run(images)
    for hook in hooks:
        hook.remove()
    save(name, weights or model.state_dict(), images, found)


def save(name, weights, images, found):
    tensors = {f"weights/{k}": v.clone().contiguous() for k, v in weights.items()}
    tensors["images"] = images.permute(0, 2, 3, 1).contiguous()
    tensors |= {k: v.clone().contiguous() for k, v in found.items()}
    write_file(tensors, f"{name}.safetensors")
    print(name, sum(v.numel() for v in weights.values()), "numbers", sorted(found))


def write_file(tensors, name):
    save_file(tensors, FOLDER / name)
    (FOLDER / name).chmod(0o644)


def timm(name, **fields):
    model = randomise(VisionTransformer(**{**TIMM, "num_classes": 0, **fields}))
    write(name, model, [], partial(timm_outputs, model))


def timm_outputs(model, images):
    last, blocks = model.forward_intermediates(images, output_fmt="NLC", return_prefix_tokens=True)
    found = {}
    for i, block in enumerate(blocks):
        spatial, prefix = block if isinstance(block, tuple) else (block, block[:, :0])
        found[f"block{i:02d}"] = torch.cat([prefix, spatial], 1)
    found["embedding"] = model.forward_head(last, pre_logits=True)
    if model.num_classes:
        found["logits"] = model.forward_head(last)
    return found


def openai_clip():
    vision = open_clip.CLIPVisionCfg(
        layers=DEPTH, width=WIDTH, head_width=8, mlp_ratio=2, patch_size=PATCH, image_size=SIDE
    )
    text = open_clip.CLIPTextCfg(layers=1, width=16, heads=2, context_length=8, vocab_size=64)
    model = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    visual = randomise(model.visual)
    blocks = visual.transformer.resblocks

    def run(images):
        projected = visual(images)
        projection, visual.proj = visual.proj, None
        embedding = visual(images)
        visual.proj = projection
        return {"embedding": embedding, "projected": projected}

    write("open_clip", visual, blocks, run)


def hugging_face(name, model, output):
    """A model as transformers saves it, which is not how it names its tensors in memory."""
    randomise(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = load_file(Path(folder) / "model.safetensors")
    names = {"logits": "logits", "embedding": "pooler_output"}

    def run(images):
        return {output: getattr(model(images), names[output])}

    write(f"transformers_{name}", model, layers_of(model), run, weights)


def hugging_faces():
    t = transformers
    sizes = {**HF, "intermediate_size": 2 * WIDTH}
    hugging_face(
        "clip",
        t.CLIPVisionModel(t.CLIPVisionConfig(hidden_act="quick_gelu", **sizes)),
        "embedding",
    )
    hugging_face(
        "siglip",
        t.SiglipVisionModel(t.SiglipVisionConfig(**sizes)),
        "embedding",
    )
    hugging_face(
        "vit",
        t.ViTForImageClassification(t.ViTConfig(num_labels=CLASSES, **sizes)),
        "logits",
    )
    hugging_face(
        "dinov2",
        t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=3, **HF)
        ),
        "embedding",
    )
    hugging_face(
        "dinov2_swiglu",
        t.Dinov2Model(t.Dinov2Config(use_swiglu_ffn=True, **HF)),
        "embedding",
    )


def layers_of(model):
    """The blocks of a transformer of transformers: its only list of modules of this length."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    (found,) = [m for m in lists if len(m) == DEPTH]
    return found


def big_vision(name, first, **fields):
    """A file in big_vision's naming, in timm's model; of the first papers, or of today."""
    rng = np.random.default_rng(1)
    per_head = WIDTH // HEADS
    draw = lambda *shape: (0.3 * rng.standard_normal(shape)).astype(np.float32)  # noqa: E731
    a, n, m = ("_1", 2, 3) if first else ("_0", 1, 0)

    def attention(prefix):
        found = {}
        for which in ("query", "key", "value"):
            found[f"{prefix}{which}/kernel"] = draw(WIDTH, HEADS, per_head)
            found[f"{prefix}{which}/bias"] = draw(HEADS, per_head)
        found[f"{prefix}out/kernel"] = draw(HEADS, per_head, WIDTH)
        return found | {f"{prefix}out/bias": draw(WIDTH)}

    def norm(prefix):
        return {f"{prefix}scale": 1 + draw(WIDTH), f"{prefix}bias": draw(WIDTH)}

    def mlp(prefix):
        return {
            f"{prefix}Dense_0/kernel": draw(WIDTH, 2 * WIDTH),
            f"{prefix}Dense_0/bias": draw(2 * WIDTH),
            f"{prefix}Dense_1/kernel": draw(2 * WIDTH, WIDTH),
            f"{prefix}Dense_1/bias": draw(WIDTH),
        }

    grid = (SIDE // PATCH) ** 2
    weights = {
        "embedding/kernel": draw(PATCH, PATCH, 3, WIDTH),
        "embedding/bias": draw(WIDTH),
        **norm("Transformer/encoder_norm/"),
    }
    if first:
        weights["cls"] = draw(1, 1, WIDTH)
        weights["Transformer/posembed_input/pos_embedding"] = draw(1, grid + 1, WIDTH)
        weights |= {"head/kernel": draw(WIDTH, CLASSES), "head/bias": draw(CLASSES)}
    else:
        weights["pos_embedding"] = draw(1, grid, WIDTH)
        weights["MAPHead_0/probe"] = draw(1, 1, WIDTH)
        weights |= attention("MAPHead_0/MultiHeadDotProductAttention_0/")
        weights |= norm("MAPHead_0/LayerNorm_0/") | mlp("MAPHead_0/MlpBlock_0/")
    for i in range(DEPTH):
        block = f"Transformer/encoderblock_{i}/"
        weights |= norm(f"{block}LayerNorm_0/") | norm(f"{block}LayerNorm_{n}/")
        weights |= attention(f"{block}MultiHeadDotProductAttention{a}/")
        weights |= mlp(f"{block}MlpBlock_{m}/")
    file = FOLDER / f"{name}.npz"
    prefix = "" if first else "params/img/"
    np.savez(file, **{prefix + key: value for key, value in weights.items()})
    model = VisionTransformer(**{**TIMM, "num_classes": CLASSES if first else 0, **fields})
    _load_weights(model, str(file))
    model.eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        save(name, {}, images, timm_outputs(model, images))


def resampled():
    pos = torch.randn(1, 16, 8)
    patches = torch.randn(8, 3, 4, 4)
    tensors = {
        "pos": pos,
        "pos_6x3": resample_abs_pos_embed(pos, (6, 3), (4, 4), num_prefix_tokens=0),
        "patches": patches,
        "patches_7x6": resample_patch_embed(patches, [7, 6]),
        "patches_3x2": resample_patch_embed(patches, [3, 2]),
    }
    tensors = {k: v.clone().contiguous() for k, v in tensors.items()}
    write_file(tensors, "resampled.safetensors")


def main():
    torch.manual_seed(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    layer_norm = partial(torch.nn.LayerNorm, eps=1e-5)
    timm("timm_augreg", num_classes=CLASSES)
    timm("timm_gap", num_classes=CLASSES, global_pool="avg", reg_tokens=1, no_embed_class=True)
    timm("timm_dinov2_reg4", reg_tokens=4, no_embed_class=True, init_values=1e-5)
    timm(
        "timm_dinov2_swiglu",
        init_values=1e-5,
        mlp_ratio=3,
        mlp_layer=SwiGLUPacked,
        act_layer=torch.nn.SiLU,
    )
    timm("timm_siglip", class_token=False, global_pool="map", num_classes=CLASSES)
    timm(
        "timm_clip",
        pre_norm=True,
        norm_layer=layer_norm,
        act_layer="quick_gelu",
        num_classes=CLASSES,
    )
    openai_clip()
    hugging_faces()
    tanh = partial(torch.nn.GELU, approximate="tanh")
    big_vision("big_vision_first", True, act_layer=tanh)
    big_vision("big_vision", False, class_token=False, global_pool="map", act_layer=tanh)
    resampled()


if __name__ == "__main__":
    main()
