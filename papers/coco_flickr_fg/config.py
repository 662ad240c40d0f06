"""A dual encoder asked for images among look-alikes of MSCOCO-FG.

    python train.py --config=papers/coco_flickr_fg/config.py --workdir=...
    python train.py --config=papers/coco_flickr_fg/config.py:small --workdir=...

Rethinking Benchmarks for Cross-modal Image-text Retrieval, 2023, tests models that are tuned on the
captions of COCO. So this starts from a trained CLIP (`configs/clip_vit_b16.py`), whose tuning is
ours. The files `coco-train`, `coco-test` and `coco-fg` (.parquet) have the columns `image` and
`caption`, a list of five; `coco-fg` holds the refined captions of the 5,000 targets and, each with
the blank caption [" "], the 26,244 images that were added to distract. `small`: one thing in every
scene, and a test in which four of five scenes differ from another in one thing alone.
"""

from configs.parts import pairs, small_pairs
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.evaluators.image_text.retrieval import ImageTextRetrieval
from vision.objectives.contrast import Contrast
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import Cosine
from vision.weights.init_from import InitFrom


def gallery(paths, tokens):
    """Images with five captions each; a blank caption is none, and its image only distracts."""
    read = spec(ops.Tokenize, tokenizer=tokens, captions=5, pick="first", empty="mask")
    data = spec(
        EvalData,
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
    return spec(ImageTextRetrieval, data=data, tokenizer=tokens)


def get_config(paths: str = "data/coco") -> Config:
    tokens = pairs.clip_tokenizer()
    return spec(
        Experiment,
        data=pairs.train(f"{paths}-train.parquet", tokens, batch_size=1024),
        model=pairs.towers("cls", width=512, text={"activation": "quick_gelu"}),
        init_from=spec(InitFrom, source="workdir:workdirs/clip_vit_b16"),
        objective=spec(Contrast, duplicates="ignore"),
        optimizer=spec(
            Optimizer,
            method=spec(adamw, b2=0.98, eps=1e-6),
            learning_rate=1e-5,
            schedule=spec(Cosine, warmup="100 steps"),
            weight_decay=0.1,
        ),
        total="10 epochs",
        evaluators={
            "coco": gallery(f"{paths}-test.parquet", tokens),
            "coco_fg": gallery(f"{paths}-fg.parquet", tokens),
        },
    )


def small() -> Config:
    one = {"num_objects": (1, 1)}
    alike = {**one, "duplicates": 0.8, "duplicate_kind": "attribute"}
    tokens = small_pairs.tokenizer(length=18)
    long = {"caption": "caption_long"}
    return small_pairs.experiment(
        small_pairs.train(tokens, least_told=0.7, world=one, **long),
        small_pairs.transformer(tokens),
        steps=600,
        evaluators={
            "random": small_pairs.retrieval(tokens, examples=1000, world=one, **long),
            "look_alikes": small_pairs.retrieval(tokens, examples=1000, world=alike, **long),
        },
    )
