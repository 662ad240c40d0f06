"""Chest X-rays told by findings in words, with a frozen dual encoder.

    python evaluate.py --config=papers/med_cbm/config.py:data/xrays --workdir=workdirs/concepts
    python -m vision.report.explain --workdir=workdirs/clip_vit_b16 --images=photos \\
        --classes=normal,pneumonia --concepts=data/concepts.json --labelled=data/xrays/train

Yan et al., Robust and Interpretable Medical Image Classifiers via Concept Bottleneck Models, 2023.
The text after the colon is a folder with ``train`` and ``val``, each with a folder per class, named
as the class is; `data/concepts.json` has for every class a list of what one sees, which the paper
has GPT-4 write. The dual encoder is a trained run of `configs/clip_vit_b16.py`; the paper's is
BioViL on X-rays. Scores are of whole images here: that run's patches are not among texts. Nothing
but the linear layer is trained.

`small`: four colours with names that no caption had, on grounds that go with them in most
training images and say nothing in those that are asked about. Concepts are scored by patches.
"""

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from papers.med_cbm.method import ConceptProbe
from vision import spec

COLOURS = ("red", "yellow", "green", "blue")
NAMES = ("wug", "dax", "fep", "kiki")
CONCEPTS = {
    name: (f"a {colour} thing", f"a {colour} circle", f"a {colour} star", f"a large {colour} cross")
    for name, colour in zip(NAMES, COLOURS, strict=True)
}


def get_config(folder: str = "data/xrays") -> v.Config:
    tokens = pairs.clip_tokenizer()
    probe = spec(
        ConceptProbe,
        train=pairs.asked(spec(v.Folder, root=folder, part="train")),
        test=pairs.asked(spec(v.Folder, root=folder, part="val")),
        tokenizer=tokens,
        concepts="data/concepts.json",
    )
    return pairs.trained(tokens, {"concepts": probe})


def small() -> v.Config:
    tokens = small_pairs.tokenizer(length=20)
    single = {"num_objects": (1, 1)}
    world = {**single, "label": "colour", "colours": COLOURS, "spurious": 0.8}
    shifted = {**world, "spurious": 0.0}

    def data(split, count, world):
        source = small_pairs.scenes(split, count, ("image", "label"), **world)
        return eval_data(source, 256)

    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.5, world=single),
        small_pairs.transformer(tokens, causal=False, pool="mean"),
        steps=200,
        evaluators={
            "concepts": spec(
                ConceptProbe,
                train=data("train", 1024, world),
                test=data("test", 512, shifted),
                tokenizer=tokens,
                concepts=CONCEPTS,
                class_names=NAMES,
                site="image/tokens",
            )
        },
        tokens=True,
    )
