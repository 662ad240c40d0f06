"""MuSc as its authors run it, on images of one product with some that are anomalous.

    python evaluate.py --config=papers/musc/config.py:PARQUET --workdir=workdirs/musc
    python train.py --config=papers/musc/config.py:small --workdir=workdirs/musc_small

Li et al., MuSc, 2024: CLIP's ViT-L/14 of 336 pixels at 518, blocks 6, 12, 18 and 24, neighbourhoods
of 1, 3 and 5. PARQUET are files of one product's test images: ``image``, ``label`` (the first class
is that of normal images) and ``masks`` as COCO writes them. Images are as unlabelled as ever:
labels and masks are only compared with. Nothing is trained.

``small`` has a CNN that learns shapes for 200 steps, and 60 drawings of an emoji of which a third
bear a defect; seconds.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.musc.defects import Defects
from papers.musc.evaluator import MutualScoring
from vision import ops, spec
from vision.data.columns import ClassLabel
from vision.data.regions import Masks

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def get_config(files: str = "product/*.parquet") -> v.Config:
    label = {"label": spec(ClassLabel)}
    values = [
        spec(ops.Decode),
        spec(ops.Resize, size=(518, 518)),
        spec(ops.ValueRange),
        spec(ops.Normalize, mean=MEAN, std=STD),
    ]
    masks = {"masks": spec(Masks, max_masks=10)}
    source = spec(v.Parquet, path=files, columns={**label, **masks})
    data = spec(v.EvalData, source=source, batch_size=4, ops=values)
    unmasked = spec(v.Parquet, path=files, columns=label)
    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=unmasked, batch_size=4, ops=values),
        model=spec(
            v.ViT,
            width=1024,
            depth=24,
            mlp_dim=4096,
            heads=16,
            patch=14,
            activation="quick_gelu",
            pre_norm=True,
        ),
        init_from=spec(
            v.InitFrom, source="timm:vit_large_patch14_clip_quickgelu_336.openai", head="new"
        ),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.0),
        total="1 steps",
        evaluators={
            "musc": spec(
                MutualScoring,
                data=data,
                sites=("block05", "block11", "block17", "block23"),
                prefix=1,
            )
        },
    )


def small() -> v.Config:
    shapes = spec(v.Scenes, num_examples=2000, image_size=48, num_objects=(1, 1), label="shape")
    data = eval_data(spec(Defects), 60, threads=0)
    return spec(
        v.Experiment,
        data=train_data(shapes, 64),
        model=spec(v.PlainConv, width=16, depth=3),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="200 steps",
        evaluators={"musc": spec(MutualScoring, data=data, sites=("block00", "block01"))},
        log_every="50 steps",
    )
