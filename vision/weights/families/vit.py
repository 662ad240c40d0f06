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
    CoCa of open_clip            the same, pool="queries", norm_pooled, query_width that of the
                                 joint space
    transformers SigLIP, SigLIP2 pool="map", activation="gelu_tanh"; of a Siglip2Model ("naflex")
                                 the images have the sides of its grid of patches
    transformers DINOv2          class_position, layer_scale=1.0, and registers=4; with its
                                 classification head pool="cls_mean"
    timm vit_so150m_*            register_positions, registers=4 or 1
    transformers ViT, DeiT       class_position, norm_epsilon=1e-12
    big_vision                   activation="gelu_tanh"; class_position for the files of the
                                 first ViT papers

A tower without ``class_position`` cannot be read from files that have one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vision.models.vit import ViT
from vision.weights.families.blocks import (
    BIG_VISION,
    OPEN_CLIP,
    POSITION_IDS,
    TRANSFORMERS_CLIP,
)
from vision.weights.families.vit_layers import Naming, vit_names
from vision.weights.fit import (
    fit_positions,
    fit_positions_by_corners,
    fit_positions_linearly,
    fit_positions_plainly,
)
from vision.weights.mapping import LINEAR, Form, Names, Tensor

_SELF_ATTENTION = tuple(f"attention.attention.{name}." for name in ("query", "key", "value"))
_CLIP = Naming(
    **TRANSFORMERS_CLIP,
    patch="embeddings.patch_embedding.",
    cls="embeddings.class_embedding",
    pos="embeddings.position_embedding.weight",
    norm_pre="pre_layrnorm.",
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
    fit=fit_positions_plainly,
)


def timm_vit(tower: ViT) -> Names:
    """timm's ``VisionTransformer``: augreg, DeiT, DINOv2, image towers of SigLIP and CLIP."""
    return vit_names(tower, Naming())


def open_clip_vit(tower: ViT) -> Names:
    """open_clip's own ``VisionTransformer``, without the ``visual.`` before its names."""
    naming = Naming(
        **OPEN_CLIP,
        patch="conv1.",
        cls="class_embedding",
        pos="positional_embedding",
        norm_pre="ln_pre.",
        norm="ln_post.",
        fc_norm="ln_post.",
        query_pool="attn_pool.",
        joined=True,
    )
    return vit_names(tower, naming)


def transformers_clip_vit(tower: ViT) -> Names:
    """transformers' ``CLIPVisionTransformer``, without the ``vision_model.`` before its names."""
    return vit_names(tower, _CLIP, POSITION_IDS)


def transformers_siglip2_vit(tower: ViT) -> Names:
    """transformers' ``Siglip2VisionTransformer``, which takes images of any shape (NaFlex)."""
    naming = dataclasses.replace(_CLIP, flat_patches=True, fit=fit_positions_linearly)
    return vit_names(tower, naming, POSITION_IDS)


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
        fit=fit_positions_plainly,
    )
    ignored = {
        r"pooler\..*": "a layer after the class token, which is not part of ViT",
        r"embeddings\.mask_token": "only for masked pretraining",
    }
    return vit_names(tower, naming, ignored)


def transformers_dinov2(tower: ViT, none_of_registers: bool = False) -> Names:
    """transformers' ``Dinov2Model`` and ``Dinov2WithRegistersModel``, as they are in files.

    Args:
      tower: ours.
      none_of_registers: the file is of the class with registers, and has none.
    """
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
        # The class with registers antialiases, the other does not.
        fit=fit_positions if tower.registers or none_of_registers else fit_positions_plainly,
    )
    ignored = {r"embeddings\.mask_token": "only for masked pretraining"}
    names = vit_names(tower, naming, ignored)
    entries = (
        dataclasses.replace(entry, form=_class_head(tower))
        if entry.ours == "params.head.kernel"
        else entry
        for entry in names.entries
    )
    return dataclasses.replace(names, entries=tuple(entries))


def _class_head(tower: ViT) -> Form:
    """A classifier (classes, D), or (classes, 2 D) of class token and mean."""
    inputs = tower.resolved().width * (2 if tower.pool == "cls_mean" else 1)

    def read(tensors: Sequence[np.ndarray]) -> np.ndarray:
        kernel = LINEAR.read(tensors)
        if kernel.shape[0] != inputs:
            raise ValueError("a classifier of another width")
        return kernel

    name = (
        f"a classifier of {inputs} numbers (DINOv2's ForImageClassification reads the mean of the "
        "patches beside the class token: pool='cls_mean'; init_from.head='new' starts another)"
    )
    return dataclasses.replace(LINEAR, name=name, read=read)


def big_vision_vit(tower: ViT, keys: Iterable[str] = ()) -> Names:
    """big_vision's ``vit``, and the files of the first ViT papers (``vision_transformer``).

    Args:
      tower: ours.
      keys: names in the file, which tell the two kinds apart; without any, the former.
    """
    pool = "MAPHead_0/"
    pool_attention = f"{pool}MultiHeadDotProductAttention_0/"
    naming = Naming(
        **BIG_VISION,
        patch="embedding/",
        cls="cls",
        pos="pos_embedding",
        block="Transformer/encoderblock_{i}/",
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
        fit=fit_positions_by_corners,
    )
    if any("posembed_input" in key for key in keys):
        attention = "MultiHeadDotProductAttention_1/"
        naming = dataclasses.replace(
            naming,
            pos="Transformer/posembed_input/pos_embedding",
            qkv=tuple(f"{attention}{name}/" for name in ("query", "key", "value")),
            proj=f"{attention}out/",
            norm2="LayerNorm_2/",
            fc1="MlpBlock_3/Dense_0/",
            fc2="MlpBlock_3/Dense_1/",
        )
    return vit_names(tower, naming)


def transformers_names(tower: ViT, tensors: Mapping[str, Tensor]) -> Names:
    """The one of transformers' namings that the tensors in a file tell."""
    if any("position_embedding.weight" in name for name in tensors):
        patches = tensors.get("embeddings.patch_embedding.weight")
        if patches is not None and len(patches.shape) == 2:
            return transformers_siglip2_vit(tower)
        return transformers_clip_vit(tower)
    if any("lambda1" in name for name in tensors):
        empty = [k for k, x in tensors.items() if k.endswith("register_tokens") and 0 in x.shape]
        nothing = dict.fromkeys(map(re.escape, empty), "of no registers")
        return transformers_dinov2(tower, bool(empty)) + Names((), nothing)
    return transformers_vit(tower)
