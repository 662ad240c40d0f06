"""Text transformers: CLIP and SigLIP of open_clip, transformers and big_vision; BERT.

Which fields a ``TextTransformer`` needs so that its numbers are theirs, beside its sizes:

    CLIP, anywhere               pool="argmax", norm_epsilon=1e-5, and activation="quick_gelu" for
                                 OpenAI's weights
    CoCa of open_clip            pool="class", context=76, norm_epsilon=1e-5
    SigLIP of open_clip          causal=False, pad_id=None; activation="gelu_tanh" for SigLIP2
    SigLIP, SigLIP2 elsewhere    causal=False, pad_id=None, activation="gelu_tanh"
    BERT                         causal=False, post_norm=True, segments=2, pool="first",
                                 norm_epsilon=1e-12, pooler=True where its pooler is wanted, and
                                 masked_head=True where tokens are asked for

``pool="argmax"`` is the first end-of-text token of CLIP's vocabulary, in open_clip and OpenAI's
code by the same rule, in transformers by its id; ``pool="last"`` differs where a caption spells
that token. SigLIP reads the last place of a row, padding or not, and looks at padding;
``pad_id=None`` does so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from vision.models.text import TextTransformer
from vision.weights.families.blocks import (
    BIG_VISION,
    OPEN_CLIP,
    POSITION_IDS,
    TRANSFORMERS_CLIP,
    Layers,
    block,
    dense,
    norm,
)
from vision.weights.mapping import SAME, Form, MapEntry, Names, Tensor, WeightsError

_LEADING = Form("positions (1, T, D)", lambda tensors: tensors[0][0], lambda array: (array[None],))


@dataclasses.dataclass(frozen=True)
class TextNaming(Layers):
    """What a library calls the parts of a text transformer.

    Attributes:
      table, pos, segments: vectors of tokens, positions and segments.
      norm_stem: empty where blocks are pre-norm.
      norm: after the last block.
      pooler: dense layer on the pooled token.
      masked_dense, masked_norm, masked_bias: of the head that tells masked tokens.
    """

    table: str = "token_embedding.weight"
    pos: str = "positional_embedding"
    segments: str = "token_type_embeddings.weight"
    norm_stem: str = ""
    norm: str = "ln_final."
    pooler: str = "pooler.dense."
    masked_dense: str = "cls.predictions.transform.dense."
    masked_norm: str = "cls.predictions.transform.LayerNorm."
    masked_bias: str = "cls.predictions.bias"


def open_clip_text(tower: TextTransformer) -> Names:
    """open_clip's own ``TextTransformer``, without the ``text.`` that may be before its names."""
    return _names(tower, TextNaming(**OPEN_CLIP), {"attn_mask": "follows from the context"})


def transformers_clip_text(tower: TextTransformer) -> Names:
    """transformers' ``CLIPTextTransformer``, without the ``text_model.`` before its names."""
    naming = TextNaming(
        **TRANSFORMERS_CLIP,
        table="embeddings.token_embedding.weight",
        pos="embeddings.position_embedding.weight",
        norm="final_layer_norm.",
    )
    return _names(tower, naming, POSITION_IDS)


def transformers_bert(tower: TextTransformer, keys: Iterable[str] = ()) -> Names:
    """transformers' ``BertModel``, and ``BertForMaskedLM`` and ``BertForPreTraining``.

    Args:
      tower: ours.
      keys: names in the file; older ones call scale and bias of LayerNorms gamma and beta.
    """
    older = any(key.endswith("LayerNorm.gamma") for key in keys)
    naming = TextNaming(
        block="encoder.layer.{i}.",
        norm1="attention.output.LayerNorm.",
        qkv=tuple(f"attention.self.{name}." for name in ("query", "key", "value")),
        proj="attention.output.dense.",
        norm2="output.LayerNorm.",
        fc1="intermediate.dense.",
        fc2="output.dense.",
        table="embeddings.word_embeddings.weight",
        pos="embeddings.position_embeddings.weight",
        segments="embeddings.token_type_embeddings.weight",
        norm_stem="embeddings.LayerNorm.",
        norm_ends=("gamma", "beta") if older else ("weight", "bias"),
    )
    ignored = {
        **POSITION_IDS,
        r"cls\.seq_relationship\..*": "tells whether sentences follow each other",
        r"(classifier|qa_outputs)\..*": "the head of a task, which is not part of the tower",
    }
    if tower.masked_head:
        ignored[r"cls\.predictions\.decoder\..*"] = "the table of token vectors and the bias again"
    else:
        ignored[r"cls\.predictions\..*"] = "tells masked tokens; this tower has no masked_head"
    if not tower.pooler:
        ignored[r"pooler\..*"] = "a layer after pooling; this tower has no pooler"
    return _names(tower, naming, ignored)


def transformers_text(tower: TextTransformer, tensors: Mapping[str, Tensor]) -> Names:
    """The one of transformers' namings that the tensors in a file tell."""
    if any("word_embeddings" in name for name in tensors):
        return transformers_bert(tower, tensors)
    return transformers_clip_text(tower)


def big_vision_text(tower: TextTransformer) -> Names:
    """big_vision's ``text_transformer``, without the ``params/txt/`` before its names."""
    naming = TextNaming(
        **BIG_VISION,
        block="Encoder_0/encoderblock_{i}/",
        norm="Encoder_0/encoder_norm/",
        table="Embed_0/embedding",
        pos="pos_embedding",
    )
    return _names(tower, naming)


def _names(
    tower: TextTransformer, naming: TextNaming, ignored: Mapping[str, str] | None = None
) -> Names:
    if tower.pool == "class" and naming.block != OPEN_CLIP["block"]:
        raise WeightsError("pool='class' is of open_clip's CoCa, not of these weights")
    if tower.post_norm != bool(naming.norm_stem):
        here, there = ("post", "pre") if tower.post_norm else ("pre", "post")
        raise WeightsError(
            f"these weights are of a text tower with {there}-norm blocks, but this one has "
            f"{here}-norm blocks: set post_norm={not tower.post_norm}"
        )
    entries = [
        MapEntry("params.token_embed.embedding", (naming.table,)),
        MapEntry("params.pos_embed", (naming.pos,), _LEADING if naming.flax else SAME),
    ]
    if tower.pool == "class":
        entries.append(MapEntry("params.cls_token", ("cls_emb",)))
    if tower.segments:
        entries.append(MapEntry("params.segment_embed", (naming.segments,)))
    for i in range(tower.depth):
        entries += block(tower, naming, i, tower.heads)
    ours, theirs = ("norm_stem", naming.norm_stem) if tower.post_norm else ("norm", naming.norm)
    entries += norm(ours, theirs, naming)
    if tower.pooler:
        entries += dense("pooler", naming.pooler, naming)
    if tower.masked_head:
        entries += dense("masked_dense", naming.masked_dense, naming)
        entries += norm("masked_norm", naming.masked_norm, naming)
        entries.append(MapEntry("params.masked_bias", (naming.masked_bias,)))
    return Names(tuple(entries), ignored or {})
