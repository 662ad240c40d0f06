"""An adapter for one language in the text tower of a multilingual dual encoder.

    BABEL=papers/babel_imagenet/config.py
    python train.py --config=$BABEL --workdir=...
    python train.py --config=$BABEL:small --workdir=workdirs/babel
    python train.py --config=$BABEL:small_adapter --workdir=workdirs/babel_adapter

Geigle, Timofte and Glavaš, Babel-ImageNet, 2024, evaluates published models and then adapts their
text towers to a language. It starts from a run that was trained on a little of the language;
`data/captions-SI.parquet` has the columns `image`, `caption` and `caption_translated`;
`data/babel_imagenet.json` are the paper's class names, of which the evaluator takes every language.
Sizes and learning rate are ours.

`small` is that run on scenes, in four languages: 60 % of the captions are English, 30, 8 and 2 % in
the first, second and third foreign language; the classes are colours, called "a red thing" and so
on. `small_adapter` goes on from there with the third.
"""

from typing import Any

import vision as v
from configs.parts import pairs, small_pairs
from configs.parts.small import eval_data
from papers.babel_imagenet.method import AdaptText
from papers.babel_imagenet.translated import Translated
from vision import ops, spec
from vision.data.sources.scenes.translate_caption import TranslateCaption

LANGUAGES = {"EN": 0, "A": 1, "B": 2, "C": 3}
SHARES = (0,) * 30 + (1,) * 15 + (2,) * 4 + (3,)
CAPTION = "caption_medium"
NAMES = "papers/babel_imagenet/babel_scenes.json"


def adapter_only():
    frozen = spec(v.ParameterRule, pattern="model/", learning_rate=0)
    return [frozen, *v.DECAY_KERNELS]


def small() -> v.Config:
    tokens = small_pairs.tokenizer(languages=tuple(LANGUAGES.values()))
    translated = spec(TranslateCaption, feature=CAPTION, languages=SHARES)
    tests = {
        name: small_pairs.unseen(
            tokens, say=[spec(TranslateCaption, feature=CAPTION, languages=(n,))]
        )
        for name, n in LANGUAGES.items()
    }
    world = {"num_objects": (1, 1), "label": "colour"}
    things = eval_data(small_pairs.scenes("test", 512, ("image", "label"), **world), 256)
    return small_pairs.experiment(
        small_pairs.train(tokens, CAPTION, least_told=0.5, say=[translated]),
        small_pairs.transformer(tokens),
        steps=400,
        evaluators={
            "languages": spec(
                v.MultilingualZeroShot, data=things, tokenizer=tokens, names_file=NAMES
            ),
            **{
                f"retrieval_{name}": spec(v.ImageTextRetrieval, data=data, tokenizer=tokens)
                for name, data in tests.items()
            },
        },
    )


def small_adapter(base: str = "workdirs/babel") -> v.Config:
    config: Any = small()
    tokens = config.evaluators["languages"].tokenizer
    language = max(LANGUAGES.values())
    # Both languages of one caption: the foreign one is what the adapter reads.
    config.data.ops = (
        config.data.ops[0],
        spec(Translated, language=language, feature=CAPTION),
        spec(ops.Tokenize, tokenizer=tokens, feature=CAPTION, output="text_english"),
        spec(ops.Tokenize, tokenizer=tokens, feature="caption_translated"),
    )
    config.init_from = spec(v.InitFrom, source=f"workdir:{base}")
    config.objective = spec(AdaptText)
    config.optimizer.rules = tuple(adapter_only())
    config.total = "400 steps"
    return config


def get_config(paths: str = "data/captions-SI.parquet") -> v.Config:
    tokens = pairs.clip_tokenizer()
    data: Any = pairs.train(paths, tokens, batch_size=512)
    data.source.columns.caption_translated = spec(v.Captions)
    data.ops = (
        *data.ops[:-1],
        spec(ops.Tokenize, tokenizer=tokens, pick="first", output="text_english"),
        spec(ops.Tokenize, tokenizer=tokens, pick="first", feature="caption_translated"),
    )
    classes = eval_data(
        spec(v.Tfds, name="imagenet2012", split="validation"),
        512,
        spec(ops.Decode),
        spec(ops.Resize, size=256),
        spec(ops.CenterCrop, size=224),
    )
    return spec(
        v.Experiment,
        data=data,
        model=pairs.towers("cls", width=512, text={}),
        init_from=spec(v.InitFrom, source="workdir:workdirs/clip_vit_b16"),
        objective=spec(AdaptText, width=64),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.adamw),
            learning_rate=1e-4,
            schedule=spec(v.Cosine, warmup="500 steps"),
            rules=adapter_only(),
        ),
        total="10 epochs",
        evaluators={
            "languages": spec(
                v.MultilingualZeroShot,
                data=classes,
                tokenizer=tokens,
                names_file="data/babel_imagenet.json",
            )
        },
    )
