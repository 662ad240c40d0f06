"""Classification without a list of classes, by captions (CaSED), with a dual encoder of ours.

    python evaluate.py --config=papers/cased/config.py:data/caltech101 --workdir=workdirs/cased

Conti et al., Vocabulary-free Image Classification, 2023. The text after the colon is a folder with
a folder per class, named as the class is; the names only say whether an answer is right.
`data/captions.txt` is the database, one caption per line; the paper's are five subsets
of PMD. The dual encoder is a trained run of `configs/clip_vit_b16.py`; the paper's is CLIP's
ViT-L/14. Nothing is trained.

`small`: one large thing of eight colours on paper, called by its colour. Of 88 captions 64 tell a
colour and a shape, and 24 a size and a shape, of no colour.
"""

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from papers.cased.evaluator import VocabularyFree
from vision import spec

CAPTIONS = (
    *(f"a {colour} {shape}" for shape in small_pairs.SHAPES for colour in small_pairs.COLOURS),
    *(f"a {size} {shape}" for size in small_pairs.SIZES for shape in small_pairs.SHAPES),
)


def get_config(folder: str = "data/caltech101") -> v.Config:
    tokens = pairs.clip_tokenizer()
    evaluator = spec(
        VocabularyFree,
        data=pairs.asked(spec(v.Folder, root=folder)),
        tokenizer=tokens,
        captions_file="data/captions.txt",
    )
    return pairs.trained(tokens, {"named": evaluator})


def small() -> v.Config:
    tokens = small_pairs.tokenizer(length=20)
    single = {"num_objects": (1, 1)}
    asked = small_pairs.scenes(
        "test",
        512,
        ("image", "label"),
        label="colour",
        **{**single, "sizes": ("large",), "backgrounds": ("paper",)},
    )
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.5, world=single),
        small_pairs.transformer(tokens, causal=False, pool="mean"),
        steps=200,
        evaluators={
            "named": spec(
                VocabularyFree, data=eval_data(asked, 256), tokenizer=tokens, captions=CAPTIONS
            )
        },
    )
