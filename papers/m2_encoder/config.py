"""M2-Encoder: a bilingual dual encoder with the contrastive loss within groups of the batch.

    python train.py --config=papers/m2_encoder/config.py --workdir=...
    python train.py --config=papers/m2_encoder/config.py:small --workdir=...

Guo et al., M2-Encoder: Advancing Bilingual Image-Text Understanding by Large-scale Efficient
Pretraining, 2024. Headline: 88.5 % on ImageNet and 80.7 % on ImageNet-CN, zero-shot, of a model of
10 billion parameters, trained 60 % faster than with a gather over all devices.

Every batch mixes captions of both languages (``TranslateCaption``). With the batch cut into m
groups G_1 .. G_m of rows, s_ij the scaled similarity of image i and text j, and the usual loss both
ways,

    L = -1/m sum_g mean_{i in G_g} [log softmax_{j in G_g}(s_ij) + log softmax_{j in G_g}(s_ji)] / 2

so that embeddings travel within a group's devices only: ``Contrast(groups=m)`` of
``vision.objectives.contrast``. m = 1 is the loss over the whole batch. ``accumulate`` of the
experiment is the paper's second pass with cached gradients. Groups are as random as the sampler.

Not here: the paper's tower with one feed-forward network per modality, and its masked modelling.

`data/bm6b-*.parquet` has the columns `image` and `caption`, a list with an English and a Chinese
text, of which every epoch takes one, so that batches mix both. Each half of a batch is compared
within itself, and the towers see it in two parts, one after another, with cached gradients. The
paper has one transformer with a feed-forward network per modality, GLM's tokenizer of 115,244 ids,
and 3 billion pairs of each language; its batch and learning rate are not confirmed, these are ours.
CLIP's byte pairs read Chinese too, a token for every byte or two: hence the longer context.
"""

import vision as v
from configs.parts import pairs, small_pairs
from vision import spec
from vision.data.sources.scenes.translate_caption import TranslateCaption


def get_config(paths: str = "data/bm6b-*.parquet") -> v.Config:
    return spec(
        v.Experiment,
        data=pairs.train(paths, pairs.clip_tokenizer(length=128), batch_size=32_768),
        model=pairs.towers("cls", width=512, text={"context": 128}),
        objective=spec(v.Contrast, groups=2, duplicates="ignore"),
        optimizer=pairs.long_warmup(weight_decay=0.05),
        accumulate=2,
        total="1 epochs",
    )


def small() -> v.Config:
    tokens = small_pairs.tokenizer(languages=(0, 1))
    speak = {n: spec(TranslateCaption, feature="caption_medium", languages=(n,)) for n in (0, 1)}
    both = spec(TranslateCaption, feature="caption_medium", languages=(0, 1))
    tests = {n: small_pairs.unseen(tokens, say=[op]) for n, op in speak.items()}
    return small_pairs.experiment(
        small_pairs.train(tokens, say=[both]),
        small_pairs.transformer(tokens),
        steps=240,
        evaluators={
            "english": spec(v.ImageTextRetrieval, data=tests[0], tokenizer=tokens),
            "foreign": spec(v.ImageTextRetrieval, data=tests[1], tokenizer=tokens),
        },
        objective=spec(v.Contrast, duplicates="ignore", groups=2),
    )
