"""ALIGN: a large EfficientNet and a BERT-Large on 1.8 billion noisy alt-texts.

    python train.py --config=papers/align/config.py:'/data/alt/{00000..99999}.tar' ...
    python train.py --config=papers/align/config.py:small --workdir=...

Scaling Up Visual and Vision-Language Representation Learning With Noisy Text Supervision, 2021.
The shards, as in `clip_vit_b16.py`, hold what `AltTextRules` leaves. The sizes of the paper's
EfficientNet-L7 are not published; here are those of L2. Its text tower is post-norm with
WordPiece ids, ours pre-norm with CLIP's. The decay of 1e-5 is in `lamb`.

`small`: the captions of three scenes in ten belong to another scene.
"""

import vision as v
from configs.parts.pairs import clip_tokenizer, source
from configs.parts.small import train_data
from configs.parts.small_pairs import experiment, retrieval, scenes, tokenizer, transformer
from papers.align.method import lamb
from vision import ops, spec
from vision.blocks.scale import Scale

CAPTION = "caption_medium"
NOISE = 0.3
WORLD = {"num_objects": (1, 2)}


def objective(initial=1.0, **more):
    """Softmax with a learned temperature, label smoothing and both directions in full."""
    scale = spec(Scale, initial=initial, maximum=100.0, form="temperature")
    criterion = spec(v.Softmax, scale=scale, label_smoothing=0.1, weights=(1.0, 1.0))
    return spec(v.Contrast, criterion=criterion, **more)


def small(num_examples: int = 8000, noise: float = NOISE) -> v.Config:
    """The small config, with so many pairs of which so many are wrong."""
    tokens = tokenizer()
    wrong = {"caption_noise": noise, "caption_noise_kind": "other"}
    return experiment(
        train_data(
            scenes("train", num_examples, ("image", CAPTION), **WORLD, **wrong),
            64,
            ops=[spec(ops.Tokenize, tokenizer=tokens, feature=CAPTION)],
        ),
        transformer(tokens),
        steps=150,
        evaluators={"retrieval": retrieval(tokens, caption=CAPTION, world=WORLD)},
        objective=objective(initial=10.0, duplicates="ignore"),
    )


def get_config(paths: str = "pairs/*.parquet") -> v.Config:
    half = spec(v.Precision, compute="bfloat16")
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=source(paths),
            batch_size=16_384,
            ops=[
                spec(ops.Decode),
                spec(ops.ToRgb),
                spec(ops.Resize, size=(346, 346)),
                spec(ops.RandomCrop, size=289),
                spec(ops.RandomFlip),
                spec(ops.ValueRange, low=-1, high=1),
                spec(ops.Tokenize, tokenizer=clip_tokenizer(length=64)),
            ],
            on_error="mask",
            threads=16,
            prefetch_batches=16,
        ),
        model=spec(
            v.Dual,
            image=spec(v.EfficientNet, width_multiplier=4.3, depth_multiplier=5.3, precision=half),
            text=spec(
                v.TextTransformer,
                vocab_size=v.ClipTokenizer().vocab_size,
                width=1024,
                depth=24,
                heads=16,
                context=64,
                causal=False,
                pool="first",
                precision=half,
            ),
            width=5504,
            image_projection=False,
        ),
        objective=objective(),
        optimizer=spec(
            v.Optimizer,
            method=spec(lamb),
            learning_rate=1e-3,
            schedule=spec(v.LinearDecay, warmup="10_000 steps"),
        ),
        total="1_200_000 steps",
    )
