"""Image-text models and BERT of open_clip and transformers: weights and what they compute.

    .venv-peers/bin/python bench/goldens/weights_text.py

Narrow models with random weights go to tests/golden/weights/text/*.safetensors, each file with

    weights/<name>            the model's tensors under the names that its files have
    images, ids               (3, 16, 16, 3) and int (3, 8)
    image/block<i>, text/...  (3, N, D) what block i of a tower gave
    image/embedding, text/... (3, D) unit vectors in the joint space
    logits                    (3, 3) of image i and text j, with temperature and bias

and of BERT ids, segment_ids, mask, block<i>, pooled and token_logits. The weights of big_vision
are an npz, which open_clip's reader of such files puts into its own model. In literal.safetensors
are ids (4, 8) of texts that hold the special tokens as text, and as <case>/embedding what the CLIP
models above make of them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from weights_vit import DEPTH, HEADS, HF, SIDE, TIMM, WIDTH, layers_of, randomise  # first: torch

# isort: split
import open_clip
import transformers
from open_clip.convert import load_big_vision_weights
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import load_file, save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch.nn.functional import normalize

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "text"
VOCAB, CONTEXT, JOINT, PATCH = 40, 8, 12, 4
START, END = VOCAB - 2, VOCAB - 1
MLP = 2 * WIDTH


@register_model
def vit_golden(pretrained: bool = False, **fields: object) -> VisionTransformer:
    """An image tower of SigLIP that open_clip finds in timm."""
    fields = {k: v for k, v in fields.items() if k in ("num_classes", "global_pool")}
    return VisionTransformer(**{**TIMM, "class_token": False, **fields})


def clip_ids() -> torch.Tensor:
    """Texts between start and end, padded with 0; the last fills its row."""
    ids = torch.randint(1, START, (3, CONTEXT))
    ids[:, 0] = START
    for row, end in enumerate((3, 5, CONTEXT - 1)):
        ids[row, end], ids[row, end + 1 :] = END, 0
    return ids


def siglip_ids() -> torch.Tensor:
    """Texts that are padded with 1, as far as the model cares."""
    ids = torch.randint(2, VOCAB, (3, CONTEXT))
    ids[0, 3:], ids[1, 6:] = 1, 1
    return ids


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    randomise(model)
    with torch.no_grad():
        model.logit_scale.fill_(1.7)
        if getattr(model, "logit_bias", None) is not None:
            model.logit_bias.fill_(-2.25)
    return model


def listen(blocks: dict[str, torch.nn.ModuleList]) -> dict[str, torch.Tensor]:
    """Fills itself with what the blocks give when the model runs."""
    found: dict[str, torch.Tensor] = {}

    def keep(name):
        def hook(module, arguments, out):
            found[name] = out[0] if isinstance(out, tuple) else out

        return hook

    for side, modules in blocks.items():
        for i, module in enumerate(modules):
            module.register_forward_hook(keep(f"{side}block{i:02d}"))
    return found


def write(name, weights, tensors) -> None:
    tensors = {**{f"weights/{k}": v for k, v in weights.items()}, **tensors}
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, FOLDER / name)
    (FOLDER / name).chmod(0o644)
    print(name, sum(v.numel() for v in weights.values()), "numbers")


def saved(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Tensors as transformers writes them, which is not how it names them in memory."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def open_clip_model(name, model, ids, image_blocks, text_blocks, weights=None) -> None:
    images = torch.randn(3, 3, SIDE, SIDE)
    found = listen({"image/": image_blocks, "text/": text_blocks})
    with torch.no_grad():
        logits, _ = model.get_logits(images, ids)
        found["image/embedding"] = model.encode_image(images, normalize=True)
        found["text/embedding"] = model.encode_text(ids, normalize=True)
    tensors = {"images": images.permute(0, 2, 3, 1), "ids": ids.int(), "logits": logits, **found}
    write(f"{name}.safetensors", model.state_dict() if weights is None else weights, tensors)


def narrow_clip() -> torch.nn.Module:
    vision = open_clip.CLIPVisionCfg(
        layers=DEPTH, width=WIDTH, head_width=8, mlp_ratio=2, patch_size=PATCH, image_size=SIDE
    )
    return open_clip.CLIP(JOINT, vision, text_config(), quick_gelu=True)


def open_clip_clip() -> None:
    model = randomised(narrow_clip()).eval()
    blocks = model.visual.transformer.resblocks, model.transformer.resblocks
    open_clip_model("open_clip_clip", model, clip_ids(), *blocks)


def text_config(**fields: object) -> open_clip.CLIPTextCfg:
    return open_clip.CLIPTextCfg(
        layers=DEPTH,
        width=WIDTH,
        heads=HEADS,
        mlp_ratio=2,
        context_length=CONTEXT,
        vocab_size=VOCAB,
        **fields,
    )


def siglip() -> torch.nn.Module:
    """With the approximate GELU of SigLIP2 in both towers."""
    vision = open_clip.CLIPVisionCfg(
        timm_model_name="vit_golden", timm_pool="map", timm_proj="none", image_size=SIDE
    )
    text = text_config(
        no_causal_mask=True,
        proj_bias=True,
        pool_type="last",
        norm_kwargs={"eps": 1e-6},
        act_kwargs={"approximate": "tanh"},
    )
    model = open_clip.CustomTextCLIP(WIDTH, vision, text, init_logit_bias=-10.0)
    for part in (*model.visual.trunk.blocks, model.visual.trunk.attn_pool):
        part.mlp.act = torch.nn.GELU(approximate="tanh")
    return model.eval()


def open_clip_siglip() -> None:
    model = randomised(siglip())
    blocks = model.visual.trunk.blocks, model.text.transformer.resblocks
    open_clip_model("open_clip_siglip", model, siglip_ids(), *blocks)


def open_clip_bert() -> None:
    """A text tower of transformers in open_clip, beside an image tower of its own."""
    vision = open_clip.CLIPVisionCfg(
        layers=DEPTH, width=WIDTH, head_width=8, mlp_ratio=2, patch_size=PATCH, image_size=SIDE
    )
    model = open_clip.CustomTextCLIP(JOINT, vision, text_config())
    model.text = HFTextEncoder(
        "", JOINT, bert_config(), pooler_type="mean_pooler", proj_type="linear"
    )
    model = randomised(model).eval()
    ids = torch.randint(1, VOCAB, (3, CONTEXT))
    ids[0, 4:] = 0
    blocks = model.visual.transformer.resblocks, model.text.transformer.encoder.layer
    open_clip_model("open_clip_bert", model, ids, *blocks)


def big_vision_siglip() -> None:
    """A file in big_vision's naming, in open_clip's model."""
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    def dense(name: str, *shape: int, heads: bool = False) -> dict[str, np.ndarray]:
        bias = shape[1:] if heads else shape[-1:]
        return {f"{name}/kernel": draw(*shape), f"{name}/bias": draw(*bias)}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {f"{name}/scale": 1 + draw(WIDTH), f"{name}/bias": draw(WIDTH)}

    def attention(name: str) -> dict[str, np.ndarray]:
        found = dense(f"{name}/out", HEADS, WIDTH // HEADS, WIDTH)
        for which in ("query", "key", "value"):
            found |= dense(f"{name}/{which}", WIDTH, HEADS, WIDTH // HEADS, heads=True)
        return found

    def encoder(name: str) -> dict[str, np.ndarray]:
        found = norm(f"{name}/encoder_norm")
        for i in range(DEPTH):
            block = f"{name}/encoderblock_{i}"
            found |= norm(f"{block}/LayerNorm_0") | norm(f"{block}/LayerNorm_1")
            found |= attention(f"{block}/MultiHeadDotProductAttention_0")
            found |= mlp(f"{block}/MlpBlock_0")
        return found

    def mlp(name: str) -> dict[str, np.ndarray]:
        return dense(f"{name}/Dense_0", WIDTH, MLP) | dense(f"{name}/Dense_1", MLP, WIDTH)

    pool = "params/img/MAPHead_0"
    weights = {
        "params/t": np.float32([1.7]),
        "params/b": np.float32([-2.25]),
        **dense("params/img/embedding", PATCH, PATCH, 3, WIDTH),
        "params/img/pos_embedding": draw(1, (SIDE // PATCH) ** 2, WIDTH),
        **encoder("params/img/Transformer"),
        f"{pool}/probe": draw(1, 1, WIDTH),
        **attention(f"{pool}/MultiHeadDotProductAttention_0"),
        **norm(f"{pool}/LayerNorm_0"),
        **mlp(f"{pool}/MlpBlock_0"),
        "params/txt/Embed_0/embedding": draw(VOCAB, WIDTH),
        "params/txt/pos_embedding": draw(1, CONTEXT, WIDTH),
        **encoder("params/txt/Encoder_0"),
        **dense("params/txt/head", WIDTH, WIDTH),
    }
    file = FOLDER / "big_vision_siglip.npz"
    np.savez(file, **weights)
    model = siglip()
    load_big_vision_weights(model, str(file))
    blocks = model.visual.trunk.blocks, model.text.transformer.resblocks
    open_clip_model("big_vision_siglip", model, siglip_ids(), *blocks, weights={})


def text_sizes() -> dict[str, int]:
    sizes = {k: HF[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    return {**sizes, "intermediate_size": MLP, "vocab_size": VOCAB}


def transformers_model(name, model, ids, **given) -> None:
    randomised(model).eval()
    images = torch.randn(3, 3, SIDE, SIDE)
    found = listen({"image/": layers_of(model.vision_model), "text/": layers_of(model.text_model)})
    given = {k: f(images) for k, f in given.items()} or {"pixel_values": images}
    with torch.no_grad():
        out = model(input_ids=ids, **given)
    tensors = {
        "images": images.permute(0, 2, 3, 1),
        "ids": ids.int(),
        "logits": out.logits_per_image,
        "image/embedding": normalize(out.image_embeds, dim=-1),
        "text/embedding": normalize(out.text_embeds, dim=-1),
        **found,
    }
    write(f"{name}.safetensors", saved(model), tensors)


def narrow_hf_clip(eos: int = END) -> torch.nn.Module:
    text = {"max_position_embeddings": CONTEXT, "bos_token_id": START, "eos_token_id": eos}
    config = transformers.CLIPConfig(
        text_config={**text_sizes(), **text, "pad_token_id": 0},
        vision_config={**HF, "intermediate_size": MLP},
        projection_dim=JOINT,
    )
    return transformers.CLIPModel(config)


def transformers_clip() -> None:
    transformers_model("transformers_clip", narrow_hf_clip(), clip_ids())


def literal() -> None:
    """Special tokens inside of texts, read by the CLIP models of the files that stand there."""
    ids = torch.tensor(
        [
            [START, 5, END, 7, 8, END, 0, 0],
            [START, END, 3, END, 0, 0, 0, 0],
            [START, 9, 10, 11, END, 12, 13, END],
            [START, 4, START, 6, END, 0, 0, 0],
        ]
    )
    tensors = {"ids": ids.int()}
    with tempfile.TemporaryDirectory() as folder:
        for case in ("open_clip_clip", "transformers_clip"):
            stored = load_file(FOLDER / f"{case}.safetensors")
            prefix = "weights/"
            weights = {k[len(prefix) :]: v for k, v in stored.items() if k.startswith(prefix)}
            save_file(weights, Path(folder) / "model.safetensors", {"format": "pt"})
            with torch.no_grad():
                if case == "open_clip_clip":
                    model = narrow_clip().eval()
                    model.load_state_dict(weights)
                    tensors[f"{case}/embedding"] = model.encode_text(ids, normalize=True)
                    continue
                for eos, name in ((END, case), (2, f"{case}_older")):
                    narrow_hf_clip(eos).config.save_pretrained(folder)
                    model = transformers.CLIPModel.from_pretrained(folder).eval()
                    found = model.get_text_features(input_ids=ids).pooler_output
                    tensors[f"{name}/embedding"] = normalize(found, dim=-1)
    write("literal.safetensors", {}, tensors)


def transformers_siglip() -> None:
    text = {**text_sizes(), "max_position_embeddings": CONTEXT}
    config = transformers.SiglipConfig(
        text_config=text, vision_config={**HF, "intermediate_size": MLP}
    )
    transformers_model("transformers_siglip", transformers.SiglipModel(config), siglip_ids())


def transformers_siglip2() -> None:
    """With patches laid flat, of images of any shape."""
    side = SIDE // PATCH
    vision = {k: v for k, v in HF.items() if k != "image_size"}
    config = transformers.Siglip2Config(
        text_config={**text_sizes(), "max_position_embeddings": CONTEXT},
        vision_config={**vision, "intermediate_size": MLP, "num_patches": side * side},
    )

    def patches(images: torch.Tensor) -> torch.Tensor:
        rows = images.permute(0, 2, 3, 1).reshape(3, side, PATCH, side, PATCH, 3)
        return rows.transpose(2, 3).reshape(3, side * side, -1)

    transformers_model(
        "transformers_siglip2",
        transformers.Siglip2Model(config),
        siglip_ids(),
        pixel_values=patches,
        pixel_attention_mask=lambda images: torch.ones(3, side * side, dtype=torch.long),
        spatial_shapes=lambda images: torch.tensor([[side, side]] * 3),
    )


def bert_config() -> transformers.BertConfig:
    return transformers.BertConfig(**text_sizes(), max_position_embeddings=CONTEXT)


def transformers_bert() -> None:
    model = randomise(transformers.BertForPreTraining(bert_config()))
    ids = torch.randint(1, VOCAB, (3, CONTEXT))
    ids[0, 4:], ids[1, 6:] = 0, 0
    segments = (torch.arange(CONTEXT) > torch.tensor([[2], [3], [5]])).long()
    found = listen({"": model.bert.encoder.layer})
    with torch.no_grad():
        given = {"attention_mask": (ids != 0).long(), "token_type_ids": segments}
        pooled = model.bert(ids, **given).pooler_output
        logits = model(ids, **given).prediction_logits
    tensors = {"ids": ids.int(), "segment_ids": segments.int(), "pooled": pooled, **found}
    write("transformers_bert.safetensors", saved(model), {**tensors, "token_logits": logits})


def main() -> None:
    torch.manual_seed(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    open_clip_clip()
    open_clip_siglip()
    open_clip_bert()
    big_vision_siglip()
    transformers_clip()
    transformers_siglip()
    transformers_siglip2()
    transformers_bert()
    literal()


if __name__ == "__main__":
    main()
