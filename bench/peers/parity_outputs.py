"""What models of timm, open_clip and transformers compute, for ``parity_model.py``.

Outputs are by our names; a function gives a model with random weights, what goes into it, and what
came of it. What begins with ``other/`` is of images of another size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch.nn.functional import normalize

# This torchvision asks a CPU build of torch for two operators before it can be imported.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

Tensors = dict[str, torch.Tensor]
Model = tuple[torch.nn.Module, Tensors, Tensors]
Sites = tuple[str, ...] | Callable[[torch.nn.Module], tuple[str, ...]] | None
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
    sites: Sites = (),
    other: tuple[int, int] | None = None,
    **options: object,
) -> Model:
    """Its intermediates are those of ``forward_intermediates``; ``sites`` are ours, or all.

    With None they are of every block of every stage. ``other`` is a second size of images.
    """
    import timm
    from timm.models import swin_transformer

    model = randomise(timm.create_model(name, pretrained=False, **options), gain)
    given, found = timm_outputs(model, size, sites(model) if callable(sites) else sites)
    if other is not None:
        made = {"img_size": other} if hasattr(model, "patch_embed") else {}
        resized = timm.create_model(name, pretrained=False, **made, **options).eval()
        weights = model.state_dict()
        if isinstance(model, swin_transformer.SwinTransformer):  # windows that exceed the map
            resized.load_state_dict(swin_transformer.checkpoint_filter_fn(weights, resized))
        elif any(weights[k].shape != x.shape for k, x in resized.state_dict().items()):
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


def stage_ends(model: torch.nn.Module) -> tuple[str, ...]:
    """Our last block of each of timm's stages, of models of its EfficientNet's classes."""
    counts = [len(stage) for stage in model.blocks]
    return stages(*(sum(counts[:end]) - 1 for end in model.stage_ends))


def keep_each(blocks: Iterable[torch.nn.Module]) -> Tensors:
    """Fills itself with what each of these gives."""
    found: Tensors = {}
    for i, block in enumerate(blocks):
        block.register_forward_hook(
            lambda module, given, out, i=i: found.update({f"block{i:02d}": out})
        )
    return found


def open_clip_model(name: str, other: tuple[int, int] | None = None) -> Model:
    import open_clip

    model = randomise(open_clip.create_model(name), 1.0)
    model.name = name
    size = model.visual.image_size
    images = torch.randn(ROWS, 3, *(size if isinstance(size, tuple) else (size, size)))
    vocabulary = open_clip.get_model_config(name)["text_cfg"]["vocab_size"]
    ids = texts(model.context_length, vocabulary)
    text = getattr(model, "text", None) or model.transformer
    found = keep_blocks({"image/": model.visual, "text/": text})
    given = {"images": images, "ids": ids}
    found["image/embedding"] = model.encode_image(images, normalize=True)
    found["text/embedding"] = model.encode_text(ids, normalize=True)
    if hasattr(model, "get_logits"):
        found["logits"] = model.get_logits(images, ids)[0]
    if other is not None:
        weights = model.state_dict()
        if hasattr(model.visual, "trunk"):
            resized = open_clip.create_model(name)
            resized.load_state_dict(weights)
            resized.visual.set_input_size(other)
        else:
            resized = open_clip.create_model(name, force_image_size=other)
            open_clip.model.resize_pos_embed(weights, resized)
            resized.load_state_dict(weights)
        given |= {"other/images": torch.randn(ROWS, 3, *other), "other/ids": ids}
        out = resized.eval().encode_image(given["other/images"], normalize=True)
        given["other/out/image/embedding"] = out
    return model, given, found


def texts(context: int, vocabulary: int) -> torch.Tensor:
    """One fills its row; the other ends early in the highest id and is padded with 0."""
    ids = torch.randint(2, vocabulary - 1, (ROWS, context))
    ids[0, -1] = ids[1, context // 2] = vocabulary - 1
    ids[1, context // 2 + 1 :] = 0
    return ids


def transformers_model(
    kind: str, head: str = "Model", other: tuple[int, int] | None = None, **fields: object
) -> Model:
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
            sized = {"interpolate_pos_encoding": True} if kind == "ViT" else {}
            given[f"other/out/{name}"] = getattr(model(given["other/images"], **sized), attribute)
        return model, given, found
    ids = texts(config.text_config.max_position_embeddings, config.text_config.vocab_size)
    found = keep_blocks({"image/": model.vision_model, "text/": model.text_model})
    out = model(input_ids=ids, pixel_values=images)
    found["image/embedding"] = normalize(out.image_embeds, dim=-1)
    found["text/embedding"] = normalize(out.text_embeds, dim=-1)
    found["logits"] = out.logits_per_image
    given, found = {"images": images, "ids": ids}, dict(found)  # which blocks fill again
    if other is not None:
        given |= {"other/images": torch.randn(ROWS, 3, *other), "other/ids": ids}
        resized = {"pixel_values": given["other/images"], "interpolate_pos_encoding": True}
        out = model(input_ids=ids, **resized).image_embeds
        given["other/out/image/embedding"] = normalize(out, dim=-1)
    return model, given, found


def transformers_naflex() -> Model:
    """SigLIP2 on images of two shapes, whose patches are one array for each."""
    import transformers

    config = transformers.Siglip2VisionConfig()
    model = randomise(transformers.Siglip2VisionModel(config), 1.0)
    found = keep_blocks({"": model})
    grids, count = torch.tensor([[16, 16], [9, 22]]), 256
    sizes = grids.prod(1)
    mask = torch.arange(count)[None] < sizes[:, None]
    patches = torch.randn(ROWS, count, 3 * config.patch_size**2) * mask[..., None]
    out = model(patches, mask.long(), grids)
    # Of what stands in the padding nothing is said.
    found = {k: x * mask[..., None] for k, x in found.items()} | {"embedding": out.pooler_output}
    places = torch.full((ROWS, count, 2), 0.0) + grids[:, None]
    return model, {"patches": torch.cat([patches, places], -1)}, found


SMALL = {"hidden_size": 384, "num_attention_heads": 6}


def transformers_convolutional(
    kind: str, gain: float, sites: tuple[str, ...], other: tuple[int, int], **fields: object
) -> Model:
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


def transformers_swin(other: tuple[int, int]) -> Model:
    """Swin V2, as ``swinv2-tiny-patch4-window8-256``; its blocks give (B, N, C)."""
    import transformers

    config = transformers.Swinv2Config(image_size=256, window_size=8, num_labels=1000)
    model = randomise(transformers.Swinv2ForImageClassification(config), 1.0)
    blocks = [block for stage in model.swinv2.encoder.layers for block in stage.blocks]
    kept = keep_each(blocks)
    images, others = torch.randn(ROWS, 3, 256, 256), torch.randn(ROWS, 3, *other)
    logits = model(images).logits
    found = {"logits": logits}
    for site, x in kept.items():
        x = x[0] if isinstance(x, tuple) else x
        side = round(x.shape[1] ** 0.5)
        found[site] = x.reshape(len(x), side, side, -1)
    given = {"images": images, "other/images": others, "other/out/logits": model(others).logits}
    return model, given, found


def stages(*last: int) -> tuple[str, ...]:
    return tuple("" if i < 0 else f"block{i:02d}" for i in last)
