"""Zero-shot classification with texts found by evolution (ProAPO), with a dual encoder of ours.

    python evaluate.py --config=papers/proapo/config.py:data/cub --workdir=workdirs/proapo

Qu et al., ProAPO: Progressively Automatic Prompt Optimization for Visual Classification, 2025. The
text after the colon is a folder with `train` and `val`, each with a folder per class, named as the
class is; of `train` the first image of every class is searched with. `data/templates.txt` is the
pool of templates, one per line; `data/descriptions.json` has for every name a list of whole
sentences. The dual encoder is a trained run of `configs/clip_vit_b16.py`; the paper's is CLIP's
ViT-B/32. Nothing is trained.

`small`: one large thing of eight colours on paper. Of nine templates five suit it and four name a
shape; of the descriptions of a colour half tell of the next one.
"""

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from papers.proapo.evaluator import OptimizedZeroShot
from papers.proapo.method import Search
from papers.proapo.search import Fitness, Plan
from vision import spec

OPENERS = ("", "a picture of ", "there is ", "we see ", "this scene shows ")
TEMPLATES = (
    *(f"{opener}a {{}} thing" for opener in OPENERS),
    *(f"a small {{}} {shape} on the left" for shape in ("cross", "crescent", "flower", "arrow")),
)
NEXT = (*small_pairs.COLOURS[1:], small_pairs.COLOURS[0])
DESCRIPTIONS = {
    colour: tuple(f"a {size} {told} thing" for told in (colour, other) for size in ("", "large"))
    for colour, other in zip(small_pairs.COLOURS, NEXT, strict=True)
}


def search():
    """Weights and numbers of the authors' runs of CUB with ViT-B/32."""
    return spec(
        Search,
        templates=spec(Fitness, top1=0.5, top5=0.05, entropy=10.0),
        descriptions=spec(Fitness, top1=0.0, top5=0.2, entropy=10.0),
        template_plan=spec(Plan),
        description_plan=spec(Plan, epochs=4, mutations=4),
    )


def get_config(folder: str = "data/cub") -> v.Config:
    tokens = pairs.clip_tokenizer()
    evaluator = spec(
        OptimizedZeroShot,
        data=pairs.asked(spec(v.Folder, root=f"{folder}/val")),
        train=pairs.asked(spec(v.Folder, root=f"{folder}/train")),
        tokenizer=tokens,
        templates_file="data/templates.txt",
        descriptors="data/descriptions.json",
        search=search(),
    )
    return pairs.trained(tokens, {"proapo": evaluator})


def small() -> v.Config:
    tokens = small_pairs.tokenizer(length=20)
    single = {"num_objects": (1, 1)}

    def read(split, examples):
        world = {**single, "sizes": ("large",), "backgrounds": ("paper",)}
        source = small_pairs.scenes(split, examples, ("image", "label"), label="colour", **world)
        return eval_data(source, 256)

    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.5, world=single),
        small_pairs.transformer(tokens, causal=False, pool="mean"),
        steps=120,
        evaluators={
            "proapo": spec(
                OptimizedZeroShot,
                data=read("test", 512),
                train=read("val", 128),
                tokenizer=tokens,
                templates=TEMPLATES,
                descriptors=DESCRIPTIONS,
                search=search(),
            )
        },
    )
