"""k-nearest-neighbour accuracy of frozen encoders by image size and normalisation.

    python evaluate.py --config=papers/resize_normalize_rs/config.py \\
        --config.init_from.source=timm:resnet50.tv_in1k --workdir=workdirs/resize

Corley et al., Revisiting pre-trained remote sensing model benchmarks, 2023: EuroSAT, 64 px, RGB,
with a ResNet-50 of ImageNet. TFDS has one split; the last fifth is measured.

``small`` trains a small network on the first five digits at 32 px, and asks about the other five at
their own 8 px and at 16, 32 and 64.
"""

import vision as v
from configs.parts.small import adamw_cosine
from papers.resize_normalize_rs.method import ResizeNormalize
from vision import batch_ops, ops, spec


def get_config() -> v.Config:
    train, test = (spec(v.Tfds, name="eurosat/rgb", split=f"train[{s}]") for s in (":80%", "80%:"))

    def read(source):
        return spec(v.EvalData, source=source, batch_size=64, ops=[spec(ops.Decode)])

    values = [
        spec(ops.Decode),
        spec(ops.Resize, size=224),
        spec(ops.ValueRange),
        spec(ops.Normalize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ]
    rules = [
        spec(v.ParameterRule, pattern="/head/"),
        spec(v.ParameterRule, pattern=".*", learning_rate=0.0),
    ]
    return spec(
        v.Experiment,
        data=spec(v.TrainData, source=train, batch_size=64, ops=values),
        model=spec(v.ResNet, depth=50),
        init_from=spec(v.InitFrom, source="timm:resnet50.tv_in1k", head="new"),
        objective=spec(v.Classify),
        optimizer=spec(v.Optimizer, method=spec(v.sgd), learning_rate=1e-2, rules=rules),
        total="1 epochs",
        evaluators={
            "grid": spec(ResizeNormalize, train=read(train), test=read(test)),
        },
    )


def digits(split, classes):
    names = tuple((str(each), str(each)) for each in classes)
    return spec(v.Relabel, source=spec(v.Digits, split=split), mapping=names, unmapped="drop")


def small() -> v.Config:
    known, new = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
    resize = spec(ops.Resize, size=32)

    def read(split):
        return spec(v.EvalData, source=digits(split, new), batch_size=240)

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=digits("train", known),
            batch_size=64,
            ops=[resize],
            batch_ops=[spec(batch_ops.BatchValueRange)],
            threads=0,
        ),
        model=spec(v.ResNet, depth=10, stem="imagenet", width_multiplier=0.25),
        objective=spec(v.Classify),
        optimizer=adamw_cosine(3e-3),
        total="200 steps",
        evaluators={
            "seen": spec(
                v.Classification,
                data=spec(
                    v.EvalData,
                    source=digits("test", known),
                    batch_size=180,
                    ops=[resize, spec(ops.ValueRange)],
                ),
            ),
            "grid": spec(
                ResizeNormalize, train=read("train"), test=read("test"), sizes=(0, 16, 32, 64)
            ),
        },
        log_every="50 steps",
    )
