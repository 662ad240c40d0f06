"""ViT-B/16 with an embedding space for every attribute of a garment (CCA).

    python train.py --config=papers/cca/config.py:clothes.parquet --workdir=workdirs/cca
    python train.py --config=cca:small --workdir=workdirs/cca_small

Song et al., Conditional Cross Attention Network for Multi-Space Embedding without Entanglement in
Only a SINGLE Network, 2023: ViT-B/16 at 224 pixels, FashionAI's eight attributes (Zou et al.,
FashionAI, 2019). The table has the column ``image`` and a column ``attributes`` of lists of eight
classes, -1 where one is not known. The recipe is not public: AdamW at 1e-5 and 100 epochs of
batches of 64 are ours.

``small`` embeds scenes of one object by shape, colour and size; ``small,shared=True`` has one space
for the three.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from configs.parts.small_pairs import scenes
from papers.cca.method import ConditionalEmbedding
from vision import ops, spec

FASHION_AI = (
    *("skirt_length", "sleeve_length", "coat_length", "pant_length"),
    *("collar_design", "lapel_design", "neckline_design", "neck_design"),
)
SMALL = {"shape": 1, "colour": 3, "size": 5}
"""Columns of the scenes' ``attributes``."""
FEATURES = ("image", "attributes")


def get_config(table: str = "clothes.parquet") -> v.Config:
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Parquet, path=table, columns={"attributes": spec(v.Number, shape=(8,))}),
            batch_size=64,
            ops=[
                spec(ops.Decode),
                spec(ops.Resize, size=(256, 256)),
                spec(ops.RandomCrop, size=224),
                spec(ops.RandomFlip),
                spec(ops.ValueRange, low=-1, high=1),
            ],
        ),
        model=spec(v.ViT, variant="B/16", precision=spec(v.Precision, compute="bfloat16")),
        init_from=spec(v.InitFrom, source="timm:vit_base_patch16_224.augreg_in21k"),
        objective=spec(ConditionalEmbedding, names=FASHION_AI),
        optimizer=adamw_cosine(1e-5, "5 epochs"),
        total="100 epochs",
        evaluators={},
    )


def small(shared: bool = False) -> v.Config:
    one = {"num_objects": (1, 1)}
    return spec(
        v.Experiment,
        data=train_data(scenes("train", 4000, FEATURES, **one), 64),
        model=spec(v.ViT, width=64, depth=3, heads=4, patch=4, pool="mean"),
        objective=spec(
            ConditionalEmbedding,
            names=tuple(SMALL),
            columns=tuple(SMALL.values()),
            width=32,
            heads=4,
            shared=shared,
        ),
        optimizer=adamw_cosine(1e-3),
        total="300 steps",
        evaluators={
            name: spec(
                v.NearestNeighbours,
                train=eval_data(
                    scenes("train", 1000, (*FEATURES, "label"), label=name, **one), 250
                ),
                test=eval_data(scenes("test", 500, (*FEATURES, "label"), label=name, **one), 250),
                output=f"embedding/{name}",
            )
            for name in ("shape", "colour")
        },
    )
