"""ResNet-50 v1.5 on ImageNet-1k for 90 epochs with SGD, the classic recipe.

    python train.py --config=configs/resnet50_i1k.py --workdir=workdirs/resnet50

Goyal et al. (2017) report 76.4 % top-1 for v1.5 at batch 1024 with a step schedule; the cosine
here follows later practice. As there, 32 images at a time are normalised together, however many
devices there are. We have not trained it at full length.
"""

import vision as v
from configs.parts import imagenet
from vision import ops, spec


def get_config() -> v.Config:
    normalise = [spec(ops.ValueRange, low=0, high=1), spec(ops.Normalize)]
    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=1024, augment=normalise),
        model=spec(
            v.ResNet, depth=50, norm_rows=32, precision=spec(v.Precision, compute="bfloat16")
        ),
        objective=spec(v.Classify, label_smoothing=0.1),
        optimizer=imagenet.nesterov(0.4),
        total="90 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
