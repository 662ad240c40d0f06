"""A dual encoder evaluated on the fine-grained galleries of MSCOCO-FG.

    python train.py --config=papers/coco_flickr_fg/config.py --workdir=...
    python train.py --config=papers/coco_flickr_fg/config.py:small --workdir=...

Rethinking Benchmarks for Cross-modal Image-text Retrieval, 2023, tests models that are tuned on the
captions of COCO. So this starts from a trained CLIP (`configs/clip_vit_b16.py`), whose tuning is
ours. The files `coco-train`, `coco-test` and `coco-fg` (.parquet) have the columns `image` and
`caption`, a list of five; `coco-fg` holds the refined captions of the 5,000 targets and, each with
the blank caption [" "], the 26,244 images that were added to distract. `small`: one thing in every
scene, and a test in which four of five scenes differ from another in one thing alone.
"""

import vision as v
from configs.parts import pairs, small_pairs
from vision import ops, spec


def gallery(paths, tokens):
    """Images with five captions each; a blank caption is none, and its image only distracts."""
    read = spec(ops.Tokenize, tokenizer=tokens, captions=5, pick="first", empty="mask")
    data = spec(
        v.EvalData,
        source=pairs.source(paths),
        batch_size=256,
        ops=[
            spec(ops.Decode),
            spec(ops.ToRgb),
            spec(ops.Resize, size=224),
            spec(ops.CenterCrop, size=224),
            spec(ops.ValueRange, low=-1, high=1),
            read,
        ],
    )
    return spec(v.ImageTextRetrieval, data=data, tokenizer=tokens)


def get_config(paths: str = "data/coco") -> v.Config:
    tokens = pairs.clip_tokenizer()
    return spec(
        v.Experiment,
        data=pairs.train(f"{paths}-train.parquet", tokens, batch_size=1024),
        model=pairs.towers("cls", width=512, text={"activation": "quick_gelu"}),
        init_from=spec(v.InitFrom, source="workdir:workdirs/clip_vit_b16"),
        objective=spec(v.Contrast, duplicates="ignore"),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw, b2=0.98, eps=1e-6),
            learning_rate=1e-5,
            schedule=spec(v.Cosine, warmup="100 steps"),
            weight_decay=0.1,
        ),
        total="10 epochs",
        evaluators={
            "coco": gallery(f"{paths}-test.parquet", tokens),
            "coco_fg": gallery(f"{paths}-fg.parquet", tokens),
        },
    )


def small() -> v.Config:
    single = {"num_objects": (1, 1)}
    alike = {**single, "duplicates": 0.8, "duplicate_kind": "attribute"}
    tokens = small_pairs.tokenizer(length=18)
    long = {"caption": "caption_long"}
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.7, world=single, **long),
        small_pairs.transformer(tokens),
        steps=600,
        evaluators={
            "random": small_pairs.retrieval(tokens, examples=1000, world=single, **long),
            "look_alikes": small_pairs.retrieval(tokens, examples=1000, world=alike, **long),
        },
    )
