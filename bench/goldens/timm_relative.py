"""How timm's newer transformers are told, for timm_architectures.py."""

from __future__ import annotations

import re
from functools import partial

import torch
from timm.models import beit, eva, maxxvit, mlp_mixer, swin_transformer_v2, xcit

ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}


class Differs(Exception):
    """No tower here computes the same; the text says why."""


def layers(model: torch.nn.Module) -> list[str]:
    """What a model prints, without what only training needs."""
    text = re.sub(r"DropPath\([^)]*\)|Dropout\([^)]*\)", "Identity()", repr(model))
    text = text.replace("GELU(approximate='none')", "GELU()")
    return text.splitlines()


def compare(model: torch.nn.Module, plain: torch.nn.Module, flags: tuple[str, ...] = ()) -> None:
    theirs, ours = layers(model), layers(plain)
    for a, b in zip(theirs, ours, strict=False):
        if a != b:
            raise Differs(f"it has {a.strip()} where the tower here has {b.strip()}")
    if len(theirs) != len(ours):
        raise Differs("it has more or fewer layers than the tower here")
    for flag in flags:
        if getattr(model, flag) != getattr(plain, flag):
            values = getattr(model, flag), getattr(plain, flag)
            raise Differs(
                "it has {2}={0!r} where the tower here has {2}={1!r}".format(*values, flag)
            )


def has(owner: object, name: str) -> bool:
    return not isinstance(getattr(owner, name, None), (torch.nn.Identity, type(None)))


def relative(model: eva.Eva | beit.Beit) -> dict:
    """timm's Eva and Beit, which are RelativeViT here."""
    block, kind = model.blocks[0], type(model).__name__
    attention, mlp = block.attn, type(block.mlp).__name__
    if kind not in ("Eva", "Beit") or type(block).__name__ not in ("EvaBlock", "Block"):
        raise Differs(f"its blocks are {type(block).__name__}s, which no tower here has")
    if model.global_pool not in ("token", "avg"):
        raise Differs(f"it pools by global_pool={model.global_pool!r}, which no tower here does")
    if len({str(layers(block)) for block in model.blocks}) > 1:
        raise Differs("its blocks differ from one another")
    activation = type(block.mlp.act).__name__
    if mlp not in ("Mlp", "GluMlp", "SwiGLU") or (mlp == "Mlp" and activation not in ACTIVATIONS):
        raise Differs(f"its MLPs are {mlp}s with {activation}, which no tower here has")
    if getattr(block, "gamma_1", None) is not None and block.gamma_2 is None:
        raise Differs("only its attention has a layer scale")
    if mlp == "Mlp" and has(block.mlp, "norm"):
        raise Differs("its MLPs have norms without being gated, which no tower here has")
    prefix, patches = model.num_prefix_tokens, model.patch_embed.num_patches
    placed = None if model.pos_embed is None else model.pos_embed.shape[1]
    fields = {
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "heads": attention.num_heads,
        "patch": model.patch_embed.patch_size[0],
        "mlp_dim": block.mlp.fc2.in_features,
        "pool": {"token": "cls", "avg": "mean"}[model.global_pool],
        "class_token": model.cls_token is not None,
        "registers": prefix - (model.cls_token is not None),
        "posemb": {None: "none", patches: "patches", patches + prefix: "tokens"}[placed],
        "qkv_bias": bias_of(attention),
        "activation": ACTIVATIONS[activation] if mlp == "Mlp" else "swiglu",
        "attention_norm": has(attention, "norm"),
        "mlp_norm": mlp != "Mlp" and has(block.mlp, "norm"),
        "layer_scale": None if block.gamma_1 is None else block.init_values,
        "pre_norm": has(model, "norm_pre"),
        "norm_pooled": has(model, "fc_norm"),
        "norm_epsilon": block.norm1.eps,
        "size": list(model.patch_embed.img_size),
    }
    rope = getattr(model, "rope", None)
    if rope is not None:
        fields["rope"] = rope_of(rope, attention)
    if kind == "Beit":
        own = attention.relative_position_bias_table is not None
        shared = model.rel_pos_bias is not None
        if own and shared:
            raise Differs("it has biases of blocks and shared ones")
        fields["bias"] = "block" if own else "shared" if shared else "none"
    compare(model, plain(model, fields))
    return {"tower": "RelativeViT", **fields}


def bias_of(attention: torch.nn.Module) -> str:
    if getattr(attention, "qkv", None) is None:
        names = tuple(name for name in "qkv" if getattr(attention, f"{name}_proj").bias is not None)
        return {("q", "k", "v"): "all", ("q", "v"): "qv", (): "none"}[names]
    if attention.qkv.bias is not None:
        return "all"
    return "none" if getattr(attention, "q_bias", None) is None else "qv"


def rope_of(rope: torch.nn.Module, attention: torch.nn.Module) -> dict:
    kind = type(rope).__name__
    dinov3 = kind == "RotaryEmbeddingDinoV3"
    if kind not in ("RotaryEmbeddingDinoV3", "RotaryEmbeddingCat"):
        raise Differs(f"its rotary positions are {kind}, which no tower here has")
    if rope.rotate_half != attention.rotate_half:
        raise Differs("its rotary positions are laid out in two ways")
    common = {
        "temperature": float(rope.temperature),
        "columns_first": rope.grid_indexing == "xy",
        "halves": rope.rotate_half,
    }
    if dinov3:
        if (rope.normalize_coords, rope.grid_offset, rope.min_period) != ("separate", 0.0, None):
            raise Differs("its rotary positions are not those of DINOv3")
        return {"coordinates": "centered", **common}
    if rope.in_pixels or rope.grid_type != "index":
        raise Differs("its rotary positions do not count patches")
    reference = None if rope.ref_feat_shape is None else list(rope.ref_feat_shape)
    return {"reference": reference, "offset": float(rope.grid_offset), **common}


def plain(model: eva.Eva | beit.Beit, fields: dict) -> torch.nn.Module:
    """timm's class with these fields, and those that change only names of parameters."""
    block = model.blocks[0]
    gated = fields["activation"] == "swiglu"
    arguments = {
        "img_size": model.patch_embed.img_size,
        "patch_size": fields["patch"],
        "embed_dim": fields["width"],
        "depth": fields["depth"],
        "num_heads": fields["heads"],
        "mlp_ratio": (fields["mlp_dim"] + 0.5) / fields["width"],
        "global_pool": model.global_pool,
        "num_classes": model.num_classes,
        "qkv_bias": fields["qkv_bias"] != "none",
        "swiglu_mlp": gated,
        "scale_mlp": fields["mlp_norm"],
        "init_values": fields["layer_scale"],
        "use_abs_pos_emb": fields["posemb"] != "none",
        "use_fc_norm": fields["norm_pooled"],
        "norm_layer": partial(type(block.norm1), eps=fields["norm_epsilon"]),
    }
    with torch.device("meta"):
        if isinstance(model, beit.Beit):
            biases = fields["bias"]
            return beit.Beit(
                **arguments,
                use_rel_pos_bias=biases == "block",
                use_shared_rel_pos_bias=biases == "shared",
            ).eval()
        if gated and type(block.mlp).__name__ == "SwiGLU" and not fields["mlp_norm"]:
            arguments["swiglu_align_to"] = 1
        rope = fields.get("rope")
        if rope is not None:
            arguments |= {
                "use_rot_pos_emb": True,
                "rope_type": "dinov3" if rope.get("coordinates") == "centered" else "cat",
            }
        return eva.Eva(
            **arguments,
            qkv_fused=block.attn.qkv is not None,
            scale_attn_inner=fields["attention_norm"],
            attn_type="rope" if type(block.attn).__name__ == "AttentionRope" else "eva",
            class_token=fields["class_token"],
            num_reg_tokens=fields["registers"],
            no_embed_class=fields["posemb"] == "patches",
            use_pre_transformer_norm=fields["pre_norm"],
            use_post_transformer_norm=not fields["norm_pooled"],
        ).eval()


def swin_v2(model: swin_transformer_v2.SwinTransformerV2) -> dict:
    blocks = [stage.blocks[0] for stage in model.layers]
    trained = [block.attn.pretrained_window_size[0] for block in blocks]
    fields = {
        "width": model.embed_dim,
        "depths": [len(stage.blocks) for stage in model.layers],
        "heads": [block.num_heads for block in blocks],
        "windows": [model.layers[0].blocks[0].window_size[0]] * len(blocks),
        "trained_windows": trained if any(trained) else None,
        "patch": model.patch_embed.patch_size[0],
        "mlp_ratio": blocks[0].mlp.fc1.out_features / model.embed_dim,
        "size": list(model.patch_embed.img_size),
    }
    if any(block.always_partition for block in blocks):
        raise Differs("its windows are never smaller, which no tower here has")
    with torch.device("meta"):
        compare(
            model,
            swin_transformer_v2.SwinTransformerV2(
                img_size=model.patch_embed.img_size,
                patch_size=fields["patch"],
                embed_dim=fields["width"],
                depths=fields["depths"],
                num_heads=fields["heads"],
                window_size=fields["windows"][0],
                mlp_ratio=fields["mlp_ratio"],
                pretrained_window_sizes=trained,
                num_classes=model.num_classes,
            ).eval(),
        )
    return {"tower": "SwinV2", **fields}


def mixer(model: mlp_mixer.MlpMixer) -> dict:
    block = model.blocks[0]
    if type(block).__name__ != "MixerBlock":
        raise Differs(f"its blocks are {type(block).__name__}s, and Mixer here has MixerBlocks")
    activation = type(block.mlp_tokens.act).__name__
    fields = {
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "patch": model.stem.patch_size[0],
        "mix_dim": block.mlp_tokens.fc1.out_features,
        "mlp_dim": block.mlp_channels.fc1.out_features,
        "activation": ACTIVATIONS.get(activation, activation),
        "size": list(model.stem.img_size),
    }
    with torch.device("meta"):
        compare(
            model,
            mlp_mixer.MlpMixer(
                img_size=model.stem.img_size,
                patch_size=fields["patch"],
                num_blocks=fields["depth"],
                embed_dim=fields["width"],
                mlp_ratio=[(fields[n] + 0.5) / fields["width"] for n in ("mix_dim", "mlp_dim")],
                num_classes=model.num_classes,
            ).eval(),
        )
    return {"tower": "Mixer", **fields}


def x_cit(model: xcit.Xcit) -> dict:
    block, last = model.blocks[0], model.cls_attn_blocks[0]
    fields = {
        "width": model.embed_dim,
        "depth": len(model.blocks),
        "heads": block.attn.num_heads,
        "patch": model.patch_embed.patch_size,
        "class_depth": len(model.cls_attn_blocks),
        "mlp_dim": block.mlp.fc1.out_features,
        "tokens_norm": last.tokens_norm,
        "layer_scale": 1.0,
        "size": list(model.patch_embed.img_size),
    }
    if model.global_pool != "token" or model.pos_embed is None:
        raise Differs("it does not pool by its class token, or has no positions")
    with torch.device("meta"):
        compare(
            model,
            xcit.Xcit(
                patch_size=fields["patch"],
                embed_dim=fields["width"],
                depth=fields["depth"],
                num_heads=fields["heads"],
                tokens_norm=fields["tokens_norm"],
                num_classes=model.num_classes,
            ).eval(),
        )
    return {"tower": "Xcit", **fields}


def maxvit(model: maxxvit.MaxxVit) -> dict:
    """Google's MaxViT, of which timm's class has many others."""
    stages = [stage.blocks for stage in model.stages]
    block = stages[0][0]
    if type(block).__name__ != "MaxxVitBlock" or block.nchw_attn or block.attn_block is None:
        raise Differs("it is none of Google's MaxViTs (maxvit_*_tf_*), which MaxVit here is")
    attention = block.attn_block.attn
    if type(attention.rel_pos).__name__ != "RelPosBiasTf" or attention.head_first:
        raise Differs("its biases or heads are not those of Google's MaxViTs, which MaxVit here is")
    windows = {
        tuple(part.partition_size)
        for blocks in stages
        for each in blocks
        for part in (each.attn_block, each.attn_grid)
    }
    fields = {
        "widths": [blocks[0].conv.conv3_1x1.out_channels for blocks in stages],
        "depths": [len(blocks) for blocks in stages],
        "stem_width": model.stem.conv1.out_channels,
        "head_width": attention.dim_head,
        "embedding_width": model.head.pre_logits.fc.out_features,
        "window": list(windows.pop()),
        "mlp_ratio": block.attn_block.mlp.fc1.out_features / block.attn_block.mlp.fc1.in_features,
    }
    if windows:
        raise Differs("it has windows of several sizes")
    with torch.device("meta"):
        plain = maxxvit.MaxxVit(
            maxxvit.MaxxVitCfg(
                embed_dim=tuple(fields["widths"]),
                depths=tuple(fields["depths"]),
                block_type=("M",) * len(stages),
                stem_width=fields["stem_width"],
                stem_bias=True,
                head_hidden_size=fields["embedding_width"],
                **maxxvit._tf_cfg(),
            ),
            img_size=model.img_size,
            num_classes=model.num_classes,
        ).eval()
    compare(model, plain)
    return {"tower": "MaxVit", **fields}
