"""CLIP on photographs of 33,000 species, with a text of one kind in every batch (Arboretum).

    python train.py --config=papers/arboretum/config.py:/data/arboretum --workdir=...
    python train.py --config=arboretum:small --workdir=workdirs/arboretum_small

Yang et al., Arboretum: A Large Multimodal Dataset Enabling AI for Biodiversity, 2024: ArborCLIP-O,
ViT-B/16 from OpenAI's CLIP. The folder has `train-*.parquet` with `image` and `label`, the number
of a species in `taxa.json`, which maps scientific names to names by rank and a `common_name`:
what the authors' tables of metadata and downloaded photographs amount to; and `rare-*.parquet`, of
species that are not learned from. Images cropped as in `configs/clip_vit_b16.py` are ours.

`small`: thirty species of scenes, a colour for a genus, with an invented scientific name each.
`small,kind=taxon_com` has one kind of text.
"""

from typing import Any, Literal

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data, train_data
from papers.arboretum.capped import CappedClasses
from papers.arboretum.evaluator import Ranks
from papers.arboretum.method import OneKindOfText
from papers.arboretum.taxa import TRAINED, TaxonTexts
from vision import ops, spec

SHAPES = ("circle", "triangle", "square", "star", "cross")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
GENERA = ("Rubor", "Flavor", "Viridia", "Caelum", "Purpura", "Alba")
EPITHETS = ("orbis", "trigona", "quadra", "stella", "crux")
# Labels of scenes count shapes, and within a shape colours.
TAXA = {
    f"{genus} {epithet}": {
        "genus": genus,
        "species": epithet,
        "common_name": f"{colour} {shape}",
    }
    for shape, epithet in zip(SHAPES, EPITHETS, strict=True)
    for colour, genus in zip(COLOURS, GENERA, strict=True)
}


def get_config(folder: str = "data/arboretum") -> v.Config:
    tokens, taxa = pairs.clip_tokenizer(), f"{folder}/taxa.json"
    label = {"label": spec(v.ClassLabel)}
    train = spec(v.Parquet, path=f"{folder}/train-*.parquet", columns=label)
    rare = spec(v.Parquet, path=f"{folder}/rare-*.parquet", columns=label)
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(CappedClasses, source=train),
            batch_size=4096,
            ops=[
                spec(ops.Decode),
                spec(ops.ToRgb),
                spec(ops.RandomResizedCrop, size=224, scale=(0.9, 1.0)),
                spec(ops.ValueRange, low=-1, high=1),
                spec(TaxonTexts, taxa=taxa),
                spec(ops.Tokenize, tokenizer=tokens, captions=len(TRAINED), pick="first"),
            ],
            on_error="mask",
            threads=16,
            prefetch_batches=16,
        ),
        model=pairs.towers("cls", width=512, text={"pool": "argmax", "activation": "quick_gelu"}),
        objective=spec(OneKindOfText),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b1=0.9, b2=0.98, eps=1e-6),
            learning_rate=5e-4,
            schedule=spec(v.Cosine, warmup="5_000 steps"),
            weight_decay=4e-4,
        ),
        init_from=spec(v.InitFrom, source="workdir:workdirs/clip_vit_b16"),
        total="40 epochs",
        evaluators={"rare": spec(Ranks, data=pairs.asked(rare), tokenizer=tokens, taxa=taxa)},
        evaluate_every="1 epoch",
    )


def small(kind: Literal["", "sci", "taxon_com"] = "") -> v.Config:
    kinds = (kind,) if kind else TRAINED
    words = [word.lower() for name in TAXA for word in f"{name} {name}".split()]
    words += ["photo", "of", "a", "with", "common", "name"]
    words += [word for taxon in TAXA.values() for word in taxon["common_name"].split()]
    words = tuple(dict.fromkeys(words))
    tokens = spec(v.WordTokenizer, words=words, length=16)
    world = {
        "label": "shape_colour",
        "num_objects": (1, 1),
        "shapes": SHAPES,
        "colours": COLOURS,
        "sizes": ("large",),
    }
    taxa = {"taxa": TAXA, "class_names": tuple(TAXA)}
    read = [
        spec(TaxonTexts, kinds=kinds, **taxa),
        spec(ops.Tokenize, tokenizer=tokens, captions=len(kinds), pick="first"),
    ]
    fields = ("image", "label")
    asked = small_pairs.scenes("test", 400, fields, **world)
    config: Any = small_pairs.experiment(
        train_data(small_pairs.scenes("train", 6000, fields, **world), 64, ops=read),
        small_pairs.transformer(tokens, vocab_size=4 + len(words)),
        steps=400,
        evaluators={
            name: spec(Ranks, data=eval_data(asked, 200), tokenizer=tokens, kind=name, **taxa)
            for name in ("sci", "com")
        },
        objective=spec(OneKindOfText, duplicates="ignore"),
    )
    # Small dual encoders leave their first plateau by luck at the rate that others here have.
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule.warmup = "50 steps"
    return config
