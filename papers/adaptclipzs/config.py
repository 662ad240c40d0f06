"""CLIP fine-tuned with descriptions of classes, evaluated zero-shot on other classes.

    python train.py --config=papers/adaptclipzs/config.py --workdir=...
    python train.py --config=papers/adaptclipzs/config.py:base \
        --workdir=workdirs/adaptclipzs_base
    python train.py --config=papers/adaptclipzs/config.py:small --workdir=...

Improved Zero-Shot Classification by Adapting VLMs with Text Descriptions, 2024, on CUB, from our
CLIP ViT-B/16. `data/cub-seen.parquet` holds the first half of the classes, `data/cub-novel.parquet`
the other, both with the columns `image` and `label`, a class's number among all 200, and
`data/cub.json` maps their names, in this order, to lists of sentences. The rates are those of the
authors' code; that of the scale is for the number that we learn, temperature / 100.

`small` starts from the run `base`, a dual encoder of captions of one or two things. Its classes
have names that mean nothing, each a colour and a shape; twelve are for tuning, twelve are novel. It
has one rate for all, a third of the one that `base` was trained with.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data, train_data
from configs.parts.small_pairs import experiment, train, transformer, words
from papers.adaptclipzs.method import DescribedZeroShot, WarmRestarts
from vision import ops, spec
from vision.blocks.scale import Scale

SHAPES = ("circle", "triangle", "square", "star")
COLOURS = ("red", "orange", "green", "blue", "purple", "white")
PAIRS = tuple((colour, shape) for shape in SHAPES for colour in COLOURS)
NOVEL = tuple(i for i in range(len(PAIRS)) if (i // len(COLOURS) + i) % 2)
NAMES = (
    *("wug", "dax", "blick", "toma", "fep", "zav", "kiki", "bouba", "mib", "gorp", "lorp", "nonk"),
    *("pim", "rell", "sarn", "tulver", "vosh", "wib", "yost", "zorch", "cheem", "drell", "ersk"),
    "fluff",
)
DESCRIPTIONS = tuple(
    (f"a {colour} thing", f"a {shape}", f"a {colour} {shape}") for colour, shape in PAIRS
)


# Of the authors' code, whose filter of names leaves out what has "proj" in it: the rate of the
# projections is the lower one. The scale's is 1e-2 for a temperature that is 100 times ours.
MAIN_RATE, PROJECTION_RATE, SCALE_RATE = 5e-7, 1e-7, 1e-4


def tokens():
    """Words of captions, and the names, which no caption has."""
    return spec(v.WordTokenizer, words=(*words(), *NAMES), length=16)


def tower():
    return transformer(tokens())


# As MOFI's config has it: at 24 px the shapes of small or turned things are hardly learned.
PLAIN = {"sizes": ("large",), "rotation_deg": 0.0, "view_zoom": (1.3, 1.3)}


def base() -> v.Config:
    """A dual encoder of short captions."""
    world = {"num_objects": (1, 2), **PLAIN}
    return experiment(train(tokens(), "caption", world=world), tower(), 150, {})


def scenes(split, num_examples, classes):
    """Scenes of one thing; the label is its number in `NAMES`."""
    world = {"label": "shape_colour", "num_objects": (1, 1), "shapes": SHAPES, "colours": COLOURS}
    held_out = tuple(" ".join(PAIRS[i]) for i in NOVEL)
    world |= {"held_out": held_out, "pairs": classes, **PLAIN}
    return small_pairs.scenes(split, num_examples, ("image", "label"), **world)


def say(described=True):
    """What is said of the classes; names alone where they are not described."""
    texts = {"descriptions": DESCRIPTIONS} if described else {}
    return spec(ops.LabelToCaption, names=NAMES, templates=("{}",), **texts)


def novel(source):
    return spec(
        DescribedZeroShot,
        data=eval_data(source, 200),
        tokenizer=tokens(),
        say=say(),
        among=NOVEL,
        scale=30.0,
    )


def small(described: bool = True) -> v.Config:
    """The small config; `described=False` is its baseline, tuned by names alone."""
    config: Any = experiment(
        train_data(
            scenes("train", 4000, "seen"),
            64,
            ops=[say(described), spec(ops.Tokenize, tokenizer=tokens())],
        ),
        tower(),
        steps=60,
        evaluators={"novel": novel(scenes("test", 600, "unseen"))},
        objective=spec(
            v.Contrast, criterion=spec(v.Softmax, weights=(1.0, 1.0)), targets=spec(v.SameKey)
        ),
    )
    config.init_from = spec(v.InitFrom, source="workdir:workdirs/adaptclipzs_base")
    config.optimizer.learning_rate = 1e-3
    return config


def get_config(paths: str = "data/cub") -> v.Config:
    tokenizer = pairs.clip_tokenizer()
    captions = spec(ops.LabelToCaption, file=f"{paths}.json", templates=("a photo of a {} bird.",))
    labels = {"label": spec(v.ClassLabel)}
    read = [spec(ops.Decode), spec(ops.ToRgb)]
    scaled = spec(ops.ValueRange, low=-1, high=1)
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Parquet, path=f"{paths}-seen.parquet", columns=labels),
            batch_size=256,
            ops=[
                *read,
                spec(ops.RandomResizedCrop, size=224),
                spec(ops.RandomFlip),
                spec(ops.ColorJitter, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.0),
                scaled,
                captions,
                spec(ops.Tokenize, tokenizer=tokenizer),
            ],
            threads=8,
        ),
        model=pairs.towers("cls", width=512, text={"activation": "quick_gelu"}),
        init_from=spec(v.InitFrom, source="workdir:workdirs/clip_vit_b16"),
        objective=spec(
            v.Contrast,
            criterion=spec(
                v.Softmax, scale=spec(Scale, initial=50.0, form="temperature"), weights=(1.0, 1.0)
            ),
            targets=spec(v.SameKey),
        ),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98, eps=1e-6),
            learning_rate=MAIN_RATE,
            schedule=spec(WarmRestarts),
            weight_decay=1e-2,
            rules=[
                spec(
                    v.ParameterRule,
                    pattern="^contrast/",
                    learning_rate=SCALE_RATE / MAIN_RATE,
                    weight_decay=1e-2,
                ),
                spec(
                    v.ParameterRule,
                    pattern="_projection/",
                    learning_rate=PROJECTION_RATE / MAIN_RATE,
                ),
                spec(v.ParameterRule, pattern=".*"),
            ],
        ),
        total="15 epochs",
        evaluators={
            "novel": spec(
                DescribedZeroShot,
                data=spec(
                    v.EvalData,
                    source=spec(v.Parquet, path=f"{paths}-novel.parquet", columns=labels),
                    batch_size=256,
                    ops=[*read, spec(ops.Resize, size=224), spec(ops.CenterCrop, size=224), scaled],
                ),
                tokenizer=tokenizer,
                say=captions,
                among=tuple(range(100, 200)),
            )
        },
    )
