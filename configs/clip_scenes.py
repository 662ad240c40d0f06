"""A small dual encoder on scenes that are drawn on the fly; two CPU cores suffice.

    python train.py --config=configs/clip_scenes.py --workdir=workdirs/clip_scenes
    python evaluate.py --workdir=workdirs/clip_scenes

Six of the 36 pairs of a colour and a shape are never seen in training, nor told; `unseen`
classifies images of them among the names of all pairs. A text is a short caption, which names
colour and shape, or a sentence of a longer one: place and background tell scenes apart more
easily than shapes, so that shapes would be learned last. `bench.clip_scenes` has what comes out.
"""

import vision as v
from vision import batch_ops, ops, spec
from vision.data.sources.scenes.vocabulary import POSITIONS

SHAPES = ("circle", "triangle", "square", "star", "cross", "crescent")
COLOURS = ("red", "yellow", "green", "blue", "purple", "white")
SIZES = ("large",)
BACKGROUNDS = ("paper", "stone", "night")
HELD_OUT = tuple(f"{colour} {shape}" for colour, shape in zip(COLOURS, SHAPES, strict=True))
GRAMMAR = (
    "a an the and thing with background is in on at of to left right top bottom centre there we "
    "see picture this scene shows solid plain above below inside front behind larger smaller than "
    "has same colour shape as"
)
LENGTH = 44


def vocabulary():
    """All words of the captions."""
    listed = (*GRAMMAR.split(), *SHAPES, *COLOURS, *SIZES, *BACKGROUNDS)
    return tuple(dict.fromkeys((*listed, *(word for name in POSITIONS for word in name.split()))))


def scenes(split, num_examples, features, **more):
    return spec(
        v.Scenes,
        split=split,
        num_examples=num_examples,
        image_size=32,
        features=features,
        shapes=SHAPES,
        colours=COLOURS,
        sizes=SIZES,
        backgrounds=BACKGROUNDS,
        variants=("solid",),
        textures=("plain",),
        rotation_deg=0.0,
        view_zoom=(1.3, 1.3),
        held_out=HELD_OUT,
        **more,
    )


def zero_shot(label, pairs, tokenizer):
    source = scenes("test", 512, ("image", "label"), label=label, pairs=pairs, num_objects=(1, 1))
    return spec(
        v.ZeroShot,
        data=spec(
            v.EvalData,
            source=source,
            batch_size=128,
            ops=[spec(ops.ValueRange, low=-1, high=1)],
        ),
        tokenizer=tokenizer,
        templates=("a {}", "a picture of a {}", "there is a {}", "we see a {}"),
        list_classes=8,
    )


def get_config() -> v.Config:
    tokenizer = spec(v.WordTokenizer, words=vocabulary(), length=LENGTH)
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=scenes(
                "train",
                100_000,
                ("image", "caption", "caption_long"),
                label="shape_colour",
                pairs="seen",
                num_objects=(1, 1),
            ),
            batch_size=64,
            ops=[
                spec(ops.SubCaptions, count=2),
                spec(ops.Tokenize, tokenizer=tokenizer),
            ],
            batch_ops=[spec(batch_ops.BatchValueRange, low=-1, high=1)],
            threads=1,
        ),
        model=spec(
            v.Dual,
            image=spec(
                v.ResNet,
                depth=10,
                stem="cifar",  # the other one leaves 8x8 positions, too few to tell shapes by
                width_multiplier=0.25,
                zero_init_residual=False,
            ),
            text=spec(
                v.TextTransformer,
                vocab_size=4 + len(vocabulary()),
                width=64,
                depth=1,
                heads=4,
                context=LENGTH,
                causal=False,
                pool="mean",
            ),
            width=64,
        ),
        objective=spec(v.Contrast, duplicates="ignore"),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98),
            learning_rate=3e-3,
            schedule=spec(v.Cosine, warmup="50 steps"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        total="1100 steps",
        evaluators={
            "unseen": zero_shot("shape_colour", "unseen", tokenizer),
            "seen": zero_shot("shape_colour", "seen", tokenizer),
            "shape": zero_shot("shape", "all", tokenizer),
            "retrieval": spec(
                v.ImageTextRetrieval,
                data=spec(
                    v.EvalData,
                    source=scenes(
                        "test",
                        256,
                        ("image", "caption_long"),
                        label="shape_colour",
                        num_objects=(1, 1),
                    ),
                    batch_size=128,
                    ops=[
                        spec(ops.ValueRange, low=-1, high=1),
                        spec(ops.Tokenize, tokenizer=tokenizer, feature="caption_long"),
                    ],
                ),
                tokenizer=tokenizer,
            ),
        },
        log_every="50 steps",
    )
