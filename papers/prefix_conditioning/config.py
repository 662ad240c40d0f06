"""One dual encoder of captions and labelled images, marked by a prefix token of the text.

    python train.py --config=papers/prefix_conditioning/config.py --workdir=...
    python train.py --config=papers/prefix_conditioning/config.py:small --workdir=...

Prefix Conditioning Unifies Language and Label Supervision, 2023: Swin-T, UniCL, batches of CC12M
alternate with batches of ImageNet-21k. `data/cc12m-*.parquet` has the columns `image` and
`caption`, `data/imagenet21k-*.parquet` the columns `image` and `label`, and
`data/imagenet21k.json` maps its class names, in label order, to empty lists. Zero-shot prompts read
the prefix of captions. Batch size, learning rate and length are not confirmed; these are ours.

`small`: captions of cluttered scenes with things of ten colours, a fifth of them wrong, and labels
of six of these colours on plain paper.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from configs.parts.small_pairs import SHAPES, experiment, tokenizer, transformer
from papers.prefix_conditioning.method import SOURCES, Unlabelled, prefixed
from vision import batch_ops, ops, spec
from vision.data.prompts import SHORT
from vision.data.sources.scenes.vocabulary import COLOURS

LABELLED = COLOURS[:6]
CLUTTERED = ("brick", "wood", "stone", "night")
TEMPLATES = ("a picture of a {} thing", "there is a {} thing", "we see a {} thing")


def two_sources(captions, labelled, tokenizers, say, read=(), **more):
    """Batches of captions alternate with batches of labels in words, as many of each."""
    tokenize = {name: spec(ops.Tokenize, tokenizer=tokens) for name, tokens in tokenizers.items()}
    parts = [
        spec(
            v.MixturePart,
            source=captions,
            ops=[*read, spec(Unlabelled), tokenize["captions"]],
            name="captions",
        ),
        spec(v.MixturePart, source=labelled, ops=[*read, say, tokenize["labels"]], name="labels"),
    ]
    return spec(v.Mixture, parts=parts, pure=True, **more)


def scenes(split, num_examples, features, cluttered, colours, **more):
    """Scenes of one thing, whose colour is the class."""
    world = {"label": "colour", "num_objects": (1, 1), "shapes": SHAPES, "colours": colours}
    world |= {"backgrounds": CLUTTERED, "clutter": 4} if cluttered else {"backgrounds": ("paper",)}
    return small_pairs.scenes(split, num_examples, features, **world, **more)


def zero_shot(tokenizer, cluttered, colours):
    source = scenes("test", 1000, ("image", "label"), cluttered, colours)
    return spec(
        v.ZeroShot,
        data=eval_data(source, 250),
        tokenizer=tokenizer,
        templates=TEMPLATES,
    )


def small(conditioned: bool = True) -> v.Config:
    """The small config; `conditioned=False` is its baseline, where both sources read alike."""
    words: Any = tokenizer(length=16)
    tokenizers = {
        name: spec(prefixed, tokenizer=words, source=name) if conditioned else words
        for name in SOURCES
    }
    noisy = {"caption_noise": 0.2, "caption_noise_kind": "attribute"}
    features = ("image", "caption")
    return experiment(
        two_sources(
            scenes("captions", 6000, features, True, COLOURS, **noisy),
            spec(
                v.Relabel,
                source=scenes("labels", 6000, ("image", "label"), False, LABELLED),
                mapping=tuple((name, name) for name in LABELLED),
                class_names=COLOURS,
            ),
            tokenizers,
            spec(ops.LabelToCaption, names=COLOURS, templates=TEMPLATES),
            batch_size=64,
            batch_ops=[spec(batch_ops.BatchValueRange, low=-1, high=1)],
            threads=1,
        ),
        transformer(words, vocab_size=4 + len(words.words) + len(SOURCES)),
        steps=150,
        evaluators={
            f"{test}_{name}_prefix": zero_shot(tokens, *of)
            for test, of in (("open", (True, COLOURS)), ("plain", (False, LABELLED)))
            for name, tokens in tokenizers.items()
        },
        objective=spec(v.Contrast, targets=spec(v.SameKey)),
    )


def get_config(paths: str = "data") -> v.Config:
    tokenizer = pairs.clip_tokenizer()
    half = spec(v.Precision, compute="bfloat16")
    return spec(
        v.Experiment,
        data=two_sources(
            pairs.source(f"{paths}/cc12m-*.parquet"),
            spec(
                v.Parquet,
                path=f"{paths}/imagenet21k-*.parquet",
                columns={"label": spec(v.ClassLabel)},
            ),
            {name: spec(prefixed, tokenizer=tokenizer, source=name) for name in SOURCES},
            spec(ops.LabelToCaption, file=f"{paths}/imagenet21k.json", templates=SHORT),
            read=[
                spec(ops.Decode),
                spec(ops.ToRgb),
                spec(ops.RandomResizedCrop, size=224, scale=(0.5, 1.0)),
                spec(ops.ValueRange, low=-1, high=1),
            ],
            batch_size=4096,
            on_error="mask",
            threads=16,
            prefetch_batches=16,
        ),
        model=spec(
            v.Dual,
            image=spec(v.Swin, variant="T", drop_path=0.1, precision=half),
            text=spec(
                v.TextTransformer,
                vocab_size=v.ClipTokenizer().vocab_size + len(SOURCES),
                precision=half,
            ),
            width=512,
        ),
        objective=spec(v.Contrast, targets=spec(v.SameKey)),
        optimizer=pairs.long_warmup(weight_decay=0.05),
        total="50 epochs",
    )
