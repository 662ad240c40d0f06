"""A dual encoder of figures and captions of biomedical articles.

    python train.py --config=papers/biomedclip/config.py --workdir=...
    WORDS=papers/biomedclip/config.py:small_words
    python train.py --config=$WORDS --workdir=workdirs/biomedclip_words
    python train.py --config=papers/biomedclip/config.py:small --workdir=...
    python train.py --config=papers/biomedclip/config.py:small_pretrained --workdir=...

Zhang et al., Large-Scale Domain-Specific Pretraining for Biomedical Vision-Language Processing
(BiomedCLIP), 2023: ViT-B/16 from ImageNet, BERT's architecture with PubMedBERT's weights and
vocabulary, its first token, 256 tokens. `data/pmc-train-*.parquet` has the columns `image` and
`caption`, as `figures` of `papers.biomedclip.method` finds them in articles;
`data/pubmedbert.json` is the `tokenizer.json` of PubMedBERT, whose weights come as a workdir of the
text tower, trained by `MaskedLanguage`. Learning rate and batch are not all confirmed.

`small`: captions of three objects in an artificial language, up to 60 words, the last objects
late. `small_words` pretrains its text tower by masked language modelling, and `small_pretrained`
starts from there.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from vision import spec
from vision.data.sources.scenes.translate_caption import TranslateCaption

DOMAIN = 2  # an invented language in which words keep their order
THREE = {"num_objects": (3, 3)}
BERT = {
    "vocab_size": 30_522,
    "width": 768,
    "heads": 12,
    "context": 256,
    "causal": False,
    "post_norm": True,
    "segments": 2,
    "pool": "first",
    "norm_epsilon": 1e-12,
}


def small(context: int = 64) -> v.Config:
    tokens: Any = small_pairs.tokenizer(length=context, languages=(DOMAIN,))
    say = [spec(TranslateCaption, feature="caption_long", languages=(DOMAIN,))]
    text = small_pairs.transformer(
        tokens,
        vocab_size=5 + len(tokens.words),
        causal=False,
        pool="first",
        masked_head=True,
    )
    return small_pairs.experiment(
        small_pairs.train(tokens, "caption_long", say=say, world=THREE),
        text,
        steps=200,
        evaluators={
            "retrieval": small_pairs.retrieval(tokens, caption="caption_long", say=say, world=THREE)
        },
    )


def small_words() -> v.Config:
    config: Any = small()
    tokens = config.data.ops[-1].tokenizer
    config.data.source.features = ("caption_long",)
    config.data.batch_ops = ()
    config.model = config.model.text
    config.objective = spec(v.MaskedLanguage, tokenizer=tokens)
    config.evaluators = None
    return config


def small_pretrained(words: str = "workdirs/biomedclip_words") -> v.Config:
    config: Any = small()
    config.init_from = spec(v.InitFrom, source=f"workdir:{words}", into="text")
    return config


def get_config(paths: str = "data/pmc-train-*.parquet") -> v.Config:
    tokens = spec(v.HuggingFaceTokenizer, path="data/pubmedbert.json", length=256)
    return spec(
        v.Experiment,
        data=pairs.train(paths, tokens, batch_size=4096),
        model=spec(
            v.Dual,
            image=spec(v.ViT, variant="B/16", pool="cls"),
            text=spec(v.TextTransformer, **BERT),
            width=512,
        ),
        init_from=spec(v.InitFrom, source="workdir:workdirs/pubmedbert", into="text"),
        objective=spec(v.Contrast, duplicates="ignore"),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98, eps=1e-6),
            learning_rate=5e-4,
            schedule=spec(v.Cosine, warmup="2_000 steps"),
            weight_decay=0.2,
        ),
        total="32 epochs",
    )
