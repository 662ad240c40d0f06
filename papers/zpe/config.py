"""Zero-shot classification with prompt templates weighted on the test images (ZPE).

    python evaluate.py --config=papers/zpe/config.py:data/imagenet --workdir=workdirs/zpe

Allingham et al., A Simple Zero-shot Prompt Weighting Technique to Improve Prompt Ensembling in
Text-Image Models, 2023. The text after the colon is a folder with a folder per class, named as the
class is. `data/templates.txt` is the pool, one per line. Images and captions of `data/pairs`, as
the model was trained with, stand for those of LAION. The dual encoder is a trained run of
`configs/clip_vit_b16.py`; trained further, it would learn from those pairs.

`small`: one large thing of eight colours on paper, five templates that suit it and 20 that name
shapes, a size and places of other images. Nothing is trained for ZPE; the model is.
"""

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from papers.zpe.evaluator import WeightedZeroShot
from vision import spec

OPENERS = ("", "a picture of ", "there is ", "we see ", "this scene shows ")
SUITING = tuple(f"{opener}a {{}} thing" for opener in OPENERS)
OTHER_SHAPES = ("cross", "crescent", "flower", "arrow")
MISLEADING = tuple(
    f"{opener}a small {{}} {shape} on the left" for opener in OPENERS for shape in OTHER_SHAPES
)


def get_config(folder: str = "data/imagenet") -> v.Config:
    tokens = pairs.clip_tokenizer()
    evaluator = spec(
        WeightedZeroShot,
        data=pairs.asked(spec(v.Folder, root=folder)),
        neutral=pairs.asked(pairs.source(pairs.PAIRS)),
        tokenizer=tokens,
        templates_file="data/templates.txt",
    )
    return pairs.trained(tokens, {"zpe": evaluator})


def small() -> v.Config:
    tokens = small_pairs.tokenizer(length=20)
    single = {"num_objects": (1, 1)}

    def read(split, examples, features, **world):
        source = small_pairs.scenes(split, examples, features, **{**single, **world})
        return eval_data(source, 256)

    asked = {"shapes": ("circle", "triangle", "square", "star"), "sizes": ("large",)}
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.5, world=single),
        small_pairs.transformer(tokens, causal=False, pool="mean"),
        steps=120,
        evaluators={
            "zpe": spec(
                WeightedZeroShot,
                data=read(
                    "test",
                    1000,
                    ("image", "label"),
                    label="colour",
                    backgrounds=("paper",),
                    **asked,
                ),
                neutral=read("val", 500, ("image",)),
                tokenizer=tokens,
                templates=(*SUITING, *MISLEADING),
            )
        },
    )
