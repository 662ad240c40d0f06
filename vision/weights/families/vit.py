"""Vision transformers: timm, open_clip, transformers and big_vision.

Which fields a tower needs so that its numbers are theirs, beside sizes and ``num_classes``:

    timm vit_*, deit_*           class_position
    timm *_gap_*                 pool="mean", norm_pooled where the file has fc_norm
    timm *_dinov2                class_position, layer_scale=1e-5
    timm *_reg4_dinov2           registers=4, layer_scale=1e-5
    DINOv2 giant                 activation="swiglu", mlp_dim=4096 as well
    timm *_siglip_*              pool="map"
    CLIP, anywhere               class_position, pre_norm, norm_epsilon=1e-5, and
                                 activation="quick_gelu" for OpenAI's weights
    transformers SigLIP, SigLIP2 pool="map", activation="gelu_tanh"
    transformers DINOv2          class_position, layer_scale=1.0, and registers=4
    transformers ViT, DeiT       class_position, norm_epsilon=1e-12
    big_vision                   activation="gelu_tanh"; class_position for the files of the
                                 first ViT papers

A tower without ``class_position`` cannot be read from files that have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vision.models.vit import ViT
from vision.weights.families.vit_layers import Naming, vit_names
from vision.weights.mapping import Names

_SELF_ATTENTION = tuple(f"attention.attention.{name}." for name in ("query", "key", "value"))
_CLIP = Naming(
    norm1="layer_norm1.",
    qkv=("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
    proj="self_attn.out_proj.",
    norm2="layer_norm2.",
    patch="embeddings.patch_embedding.",
    cls="embeddings.class_embedding",
    pos="embeddings.position_embedding.weight",
    norm_pre="pre_layrnorm.",
    block="encoder.layers.{i}.",
    norm="post_layernorm.",
    fc_norm="post_layernorm.",
    probe="head.probe",
    q="head.attention.in_proj_",
    kv=("head.attention.in_proj_",),
    pool_proj="head.attention.out_proj.",
    pool_norm="head.layernorm.",
    pool_fc1="head.mlp.fc1.",
    pool_fc2="head.mlp.fc2.",
    joined=True,
)


def timm_vit(tower: ViT) -> Names:
    """timm's ``VisionTransformer``: augreg, DeiT, DINOv2, image towers of SigLIP and CLIP."""
    return vit_names(tower, Naming())


def open_clip_vit(tower: ViT) -> Names:
    """open_clip's own ``VisionTransformer``, without the ``visual.`` before its names."""
    naming = Naming(
        patch="conv1.",
        cls="class_embedding",
        pos="positional_embedding",
        norm_pre="ln_pre.",
        block="transformer.resblocks.{i}.",
        norm1="ln_1.",
        qkv=("attn.in_proj_",),
        proj="attn.out_proj.",
        norm2="ln_2.",
        fc1="mlp.c_fc.",
        fc2="mlp.c_proj.",
        scales=("ls_1.gamma", "ls_2.gamma"),
        norm="ln_post.",
        fc_norm="ln_post.",
        joined=True,
    )
    return vit_names(tower, naming, {"proj": "projects to the joint space; see Dual"})


def transformers_clip_vit(tower: ViT) -> Names:
    """transformers' ``CLIPVisionTransformer``, without the ``vision_model.`` before its names."""
    why = "numbers of the positions, which follow from their count"
    return vit_names(tower, _CLIP, {r"embeddings\.position_ids": why})


def transformers_siglip_vit(tower: ViT) -> Names:
    """transformers' ``SiglipVisionTransformer``, of SigLIP and of SigLIP2 at a fixed size."""
    return transformers_clip_vit(tower)


def transformers_vit(tower: ViT) -> Names:
    """transformers' ``ViTModel`` and ``DeiTModel``, as they are in files."""
    naming = Naming(
        patch="embeddings.patch_embeddings.projection.",
        cls="embeddings.cls_token",
        pos="embeddings.position_embeddings",
        block="encoder.layer.{i}.",
        norm1="layernorm_before.",
        qkv=_SELF_ATTENTION,
        proj="attention.output.dense.",
        norm2="layernorm_after.",
        fc1="intermediate.dense.",
        fc2="output.dense.",
        norm="layernorm.",
        fc_norm="layernorm.",
        head="classifier.",
    )
    ignored = {
        r"pooler\..*": "a layer after the class token, which is not part of ViT",
        r"embeddings\.mask_token": "only for masked pretraining",
    }
    return vit_names(tower, naming, ignored)


def transformers_dinov2(tower: ViT) -> Names:
    """transformers' ``Dinov2Model`` and ``Dinov2WithRegistersModel``, as they are in files."""
    gated = tower.activation == "swiglu"
    naming = Naming(
        patch="embeddings.patch_embeddings.projection.",
        cls="embeddings.cls_token",
        registers="embeddings.register_tokens",
        pos="embeddings.position_embeddings",
        block="encoder.layer.{i}.",
        qkv=_SELF_ATTENTION,
        proj="attention.output.dense.",
        fc1="mlp.weights_in." if gated else "mlp.fc1.",
        fc2="mlp.weights_out." if gated else "mlp.fc2.",
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        norm="layernorm.",
        fc_norm="layernorm.",
        head="classifier.",
    )
    ignored = {r"embeddings\.mask_token": "only for masked pretraining"}
    return vit_names(tower, naming, ignored)


def big_vision_vit(tower: ViT, keys: Iterable[str] = ()) -> Names:
    """big_vision's ``vit``, and the files of the first ViT papers (``vision_transformer``).

    Args:
      tower: ours.
      keys: names in the file, which tell the two kinds apart; without any, the former.
    """
    first = any("posembed_input" in key for key in keys)
    attention = f"MultiHeadDotProductAttention_{1 if first else 0}/"
    mlp = f"MlpBlock_{3 if first else 0}/"
    pool = "MAPHead_0/"
    pool_attention = f"{pool}MultiHeadDotProductAttention_0/"
    naming = Naming(
        patch="embedding/",
        cls="cls",
        pos="Transformer/posembed_input/pos_embedding" if first else "pos_embedding",
        block="Transformer/encoderblock_{i}/",
        norm1="LayerNorm_0/",
        qkv=tuple(f"{attention}{name}/" for name in ("query", "key", "value")),
        proj=f"{attention}out/",
        norm2=f"LayerNorm_{2 if first else 1}/",
        fc1=f"{mlp}Dense_0/",
        fc2=f"{mlp}Dense_1/",
        norm="Transformer/encoder_norm/",
        fc_norm="Transformer/encoder_norm/",
        probe=f"{pool}probe",
        q=f"{pool_attention}query/",
        kv=(f"{pool_attention}key/", f"{pool_attention}value/"),
        pool_proj=f"{pool_attention}out/",
        pool_norm=f"{pool}LayerNorm_0/",
        pool_fc1=f"{pool}MlpBlock_0/Dense_0/",
        pool_fc2=f"{pool}MlpBlock_0/Dense_1/",
        head="head/",
        flax=True,
    )
    return vit_names(tower, naming)


def transformers_names(tower: ViT, keys: Sequence[str]) -> Names:
    """The one of transformers' namings that the names in a file tell."""
    if any("position_embedding.weight" in key for key in keys):
        return transformers_clip_vit(tower)
    if any("lambda1" in key for key in keys):
        return transformers_dinov2(tower)
    return transformers_vit(tower)
