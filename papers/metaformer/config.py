"""MetaFormer on iNaturalist by the authors' recipe, with place and time as tokens.

    python train.py --config=papers/metaformer/config.py:sightings.parquet --workdir=workdirs/meta
    python train.py --config=metaformer:small --workdir=workdirs/metaformer_small

Diao et al., MetaFormer: A Unified Meta Framework for Fine-Grained Recognition, 2022, and the
authors' config.py: 300 epochs, 20 of them warm-up, AdamW with decay 0.05 and the rate of 5e-5 per
512 images that their README has for fine-tuning, batches of 512, gradients clipped at 5, stochastic
depth 0.1, RandAugment of magnitude 9, erasing of a quarter, smoothing 0.1, no masks. Their MixUp
and CutMix are off where there is metadata, which cannot be mixed; their weights are at 384 pixels.
The table has ``image``, ``label`` among 8,142 (iNaturalist 2018), ``time`` (month 1..12, hour
0..24) and ``place`` (latitude, longitude in degrees), NaN where unknown; and one to test on beside
it. For CUB's 312 attributes ``fields=(312,)`` and ``EncodeMeta(time=None, place=None,
attributes="attributes", num_attributes=312)``.

``small`` names emoji of food and drink that live in simulated places and seasons, a third of them
unknown; ``small,rival=unmasked`` never masks, ``rival=image`` masks all.
"""

from typing import Literal

import vision as v
from configs.parts import emoji
from configs.parts.small import adamw_cosine, train_data
from papers.metaformer.fields import PLACE, TIME, EncodeMeta, Sightings
from papers.metaformer.method import ClassifyWithMeta
from papers.metaformer.tower import MetaFormer
from papers.metaformer.variants import Variant
from vision import batch_ops, ops, spec

FIELDS = (TIME, PLACE)


def get_config(
    table: str = "sightings.parquet", test: str = "test.parquet", variant: Variant = "0"
) -> v.Config:
    columns = {name: spec(v.Number, shape=(2,)) for name in ("time", "place")}
    columns["label"] = spec(v.ClassLabel)
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]

    def source(path: str) -> v.Config:
        return spec(v.Parquet, path=path, columns=columns)

    tested = spec(
        v.EvalData,
        source=source(test),
        batch_size=512,
        ops=[
            spec(ops.Decode),
            spec(ops.Resize, size=256),
            spec(ops.CenterCrop, size=224),
            *normalise,
            spec(EncodeMeta),
        ],
    )
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=source(table),
            batch_size=512,
            ops=[
                spec(ops.Decode),
                spec(ops.RandomResizedCrop, size=224),
                spec(ops.RandomFlip),
                spec(ops.RandAugment),
                *normalise,
                spec(ops.RandomErasing, fill="noise"),
                spec(EncodeMeta),
            ],
            threads=16,
        ),
        model=spec(
            MetaFormer,
            variant=variant,
            fields=FIELDS,
            drop_path=0.1,
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(ClassifyWithMeta, mask=0.0, label_smoothing=0.1),
        optimizer=adamw_cosine(5e-5, "20 epochs", clip_norm=5.0),
        total="300 epochs",
        evaluators={"test": spec(v.Classification, data=tested)},
        evaluate_every="10 epochs",
    )


def small(rival: Literal["", "unmasked", "image"] = "") -> v.Config:
    changes = {"": {}, "unmasked": {"mask": 0.0}, "image": {"decay": False}}[rival]
    fields = {"groups": ("food-drink",), "label": "emoji"}
    meta = [spec(Sightings, missing=1 / 3), spec(EncodeMeta)]
    drawn = emoji.emoji("train", num_examples=100_000, houses=emoji.LEARNED, **fields)
    return spec(
        v.Experiment,
        data=train_data(drawn, 32, spec(batch_ops.BatchRandomFlip), ops=meta),
        model=spec(
            MetaFormer,
            fields=FIELDS,
            widths=(16, 24, 48, 64, 96),
            depths=(1, 1, 1, 1),
            heads=4,
        ),
        objective=spec(ClassifyWithMeta, label_smoothing=0.1, **changes),
        optimizer=adamw_cosine(3e-3),
        total="300 steps",
        evaluators={
            "known": spec(
                v.Classification,
                data=emoji.asked(spec(Sightings), spec(EncodeMeta), **fields),
            ),
            "image": spec(v.Classification, data=emoji.asked(**fields)),
        },
        log_every="50 steps",
    )
