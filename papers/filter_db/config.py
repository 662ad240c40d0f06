"""Filter statistics of a ResNet-50 of ImageNet, as one of the authors' 647 models.

    python evaluate.py --config=papers/filter_db/config.py --workdir=workdirs/filters
    python train.py --config=papers/filter_db/config.py:small --workdir=workdirs/filters_small
    python -m papers.filter_db.compare --models=zoo:emoji_cnn,zoo:emoji_clip --out=filters.html

Gavrikov and Keuper, CNN Filter DB, 2022. Nothing is trained. ``small`` is a ResNet-18 of an eighth
of the width on scenes of 32 pixels, 200 steps. One run: entropies of 0.79 to 1.07 of random ones,
0.97 in the mean, the last layers the least.
"""

import vision as v
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.filter_db.evaluator import FilterStatistics
from vision import ops, spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def get_config(folder: str = "data/imagenet") -> v.Config:
    values = [
        spec(ops.Decode),
        spec(ops.ToRgb),
        spec(ops.Resize, size=256),
        spec(ops.CenterCrop, size=224),
        spec(ops.ValueRange),
        spec(ops.Normalize, mean=MEAN, std=STD),
    ]

    def read(part):
        return spec(v.Folder, root=folder, part=part)

    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=read("train"), batch_size=32, ops=values),
        model=spec(v.ResNet, depth=50),
        init_from=spec(v.InitFrom, source="timm:resnet50.tv_in1k", head="read"),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=0.0),
        total="1 steps",
        evaluators={
            "filters": spec(
                FilterStatistics,
                data=spec(v.EvalData, source=read("val"), batch_size=32, ops=values),
            )
        },
    )


def small() -> v.Config:
    def scenes(split, count):
        return spec(
            v.Scenes, split=split, num_examples=count, image_size=32, num_objects=(1, 1),
            label="colour",
        )  # fmt: skip

    return spec(
        v.Experiment,
        data=train_data(scenes("train", 2000), 64),
        model=spec(v.ResNet, depth=18, width_multiplier=0.125, stem="cifar"),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="200 steps",
        evaluators={"filters": spec(FilterStatistics, data=eval_data(scenes("test", 64), 64))},
        log_every="50 steps",
    )
