"""A dual encoder of drawings and their names in two languages; two CPU cores suffice.

    python train.py --config=configs/emoji_clip.py --workdir=workdirs/emoji_clip
    python evaluate.py --workdir=workdirs/emoji_clip

The text is the name in English or German. `new_house` asks for the English names of drawings by a
house that was never seen, among those of all 996 emoji that it learned from; `unseen` for those of
emoji that it did not.
"""

import vision as v
from configs.parts import emoji
from configs.parts.small import adamw_cosine, train_data
from vision import ops, spec
from vision.data.sources.emoji.words import NameTokenizer

LANGUAGES = ("en", "de")
LENGTH = 12
WIDTH = 64


def asked(tokenizer, name):
    read = spec(ops.Tokenize, tokenizer=tokenizer)
    source = {"features": ("image", "caption"), "label": "emoji", **emoji.asked_of(name)}
    data = emoji.asked(read, **source)
    return spec(v.ImageTextRetrieval, data=data, tokenizer=tokenizer)


def get_config() -> v.Config:
    words = NameTokenizer(LANGUAGES, emoji.GROUPS, LENGTH)
    tokenizer = spec(NameTokenizer, languages=LANGUAGES, groups=emoji.GROUPS, length=LENGTH)
    source = emoji.emoji(
        "train",
        ("image", "caption"),
        num_examples=100_000,
        part="seen",
        houses=emoji.LEARNED,
        languages=LANGUAGES,
        side=(0.6, 1.0),
    )
    return spec(
        v.Experiment,
        data=train_data(source, 128, ops=[spec(ops.Tokenize, tokenizer=tokenizer)]),
        model=spec(
            v.Dual,
            image=spec(v.ResNet, depth=10, width_multiplier=0.25, zero_init_residual=False),
            text=spec(
                v.TextTransformer,
                vocab_size=words.vocab_size,
                width=WIDTH,
                depth=1,
                heads=4,
                mlp_dim=2 * WIDTH,
                context=LENGTH,
                causal=False,
                pool="mean",
            ),
            width=WIDTH,
        ),
        objective=spec(v.Contrast, duplicates="ignore"),
        optimizer=adamw_cosine(2e-3, warmup="50 steps"),
        ema=spec(v.Ema, decay=0.98),
        total="700 steps",
        evaluators={
            "new_house": asked(tokenizer, "new_house"),
            "unseen": asked(tokenizer, "unseen_new_house"),
        },
        log_every="50 steps",
    )
