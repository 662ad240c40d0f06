"""Zero-shot classification of ImageNet by what classes look like, with a dual encoder of ours.

    python evaluate.py --config=papers/classify_by_description/config.py:data/imagenet \\
        --workdir=workdirs/described

Menon and Vondrick, Visual Classification via Description from Large Language Models, 2022. The text
after the colon is a folder with a folder per class, named as the class is;
`data/descriptors.json` has for every name a list, as the authors' `descriptors_imagenet.json` has.
The dual encoder is a trained run of `configs/clip_vit_b16.py`; the paper's is CLIP's ViT-B/32.
Nothing is trained.

`small`: twelve kinds of things with names that no caption had, which are colours and shapes.
"""

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from papers.classify_by_description.method import DescribedZeroShot
from vision import spec

COLOURS, SHAPES = ("red", "green", "blue"), ("circle", "star", "square", "cross")
# By the number of the class among the source's own names.
NONCE = {
    "wug": "red cross",
    "dax": "blue square",
    "fep": "green square",
    "blicket": "red square",
    "toma": "blue star",
    "zav": "green star",
    "kiki": "red star",
    "moop": "blue circle",
    "lorp": "green circle",
    "gazzer": "red circle",
    "tulver": "blue cross",
    "pim": "green cross",
}
DESCRIPTORS = {
    name: (f"a {colour} thing", f"a {shape}", f"a large {colour} {shape}")
    for name, (colour, shape) in ((name, kind.split()) for name, kind in NONCE.items())
}


def get_config(folder: str = "data/imagenet") -> v.Config:
    tokens = pairs.clip_tokenizer()
    evaluator = spec(
        DescribedZeroShot,
        data=pairs.asked(spec(v.Folder, root=folder)),
        tokenizer=tokens,
        descriptors="data/descriptors.json",
    )
    return pairs.trained(tokens, {"described": evaluator})


def small() -> v.Config:
    tokens = small_pairs.tokenizer(length=20)
    single = {"num_objects": (1, 1)}
    asked = small_pairs.scenes(
        "test",
        512,
        ("image", "label"),
        label="identity",
        **{**single, "colours": COLOURS, "shapes": SHAPES, "sizes": ("large",)},
    )
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.5, world=single),
        small_pairs.transformer(tokens, causal=False, pool="mean"),
        steps=200,
        evaluators={
            "described": spec(
                DescribedZeroShot,
                data=eval_data(asked, 256),
                tokenizer=tokens,
                descriptors=DESCRIPTORS,
                class_names=tuple(NONCE),
                sentences=False,
            )
        },
    )
