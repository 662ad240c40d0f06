"""CLIP in the form in which its claim is made; the recipe is that of `configs/clip_vit_b16.py`.

    python train.py --config=papers/clip/config.py:'/data/pairs/train-*.parquet' ...
    python train.py --config=papers/clip/config.py:small --workdir=...

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021. Nothing
of it is in a file of its own: the loss is `Contrast`, the towers are `Dual`, the test is `ZeroShot`
and `ImageTextRetrieval`. `small`: captions tell a random part of what could be told of one or two
things, so that bare names of classes are no strangers, and eight pairs of a colour and a shape are
never seen.
"""

import vision as v
from configs import clip_vit_b16
from configs.parts import small_pairs
from configs.parts.small import eval_data
from vision import spec

PAIRS = zip(small_pairs.COLOURS, small_pairs.SHAPES, strict=True)
HELD_OUT = tuple(f"{colour} {shape}" for colour, shape in PAIRS)
WORLD = {
    "image_size": 32,
    "sizes": ("large",),
    "rotation_deg": 0.0,
    "held_out": HELD_OUT,
}


def zero_shot(tokens, label, pairs):
    things = {**WORLD, "label": label, "pairs": pairs, "num_objects": (1, 1)}
    return spec(
        v.ZeroShot,
        data=eval_data(small_pairs.scenes("test", 512, ("image", "label"), **things), 256),
        tokenizer=tokens,
        templates=("a {}", "a picture of a {}", "there is a {}", "we see a {}"),
    )


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    return clip_vit_b16.get_config(paths)


def small() -> v.Config:
    long = {"caption": "caption_long"}
    tokens = small_pairs.tokenizer(length=44)
    known_pairs = {**WORLD, "label": "shape_colour", "pairs": "seen"}
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.5, world=known_pairs, **long),
        small_pairs.transformer(tokens),
        steps=400,
        evaluators={
            "retrieval": small_pairs.retrieval(tokens, world=WORLD, **long),
            "shape": zero_shot(tokens, "shape", "all"),
            "unseen": zero_shot(tokens, "shape_colour", "unseen"),
        },
        patch=8,
    )
