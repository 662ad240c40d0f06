"""ResNet-50 v1.5 on ImageNet-1k for 90 epochs with SGD, the classic recipe.

    python train.py --config=configs/resnet50_i1k.py --workdir=workdirs/resnet50

Goyal et al. (2017) report 76.4 % top-1 for v1.5 at batch 1024 with a step schedule; the cosine
here follows later practice. We have not trained it at full length.
"""

from configs.parts import imagenet
from vision.config.specs import Config, spec
from vision.data import ops
from vision.models.resnet import ResNet
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, sgd
from vision.train.precision import Precision
from vision.train.schedule import Cosine


def get_config() -> Config:
    normalise = [spec(ops.ValueRange, low=0, high=1), spec(ops.Normalize)]
    return spec(
        Experiment,
        data=imagenet.train(batch_size=1024, augment=normalise),
        model=spec(ResNet, depth=50, precision=spec(Precision, compute="bfloat16")),
        objective=spec(Classify, label_smoothing=0.1),
        optimizer=spec(
            Optimizer,
            method=spec(sgd, momentum=0.9, nesterov=True),
            learning_rate=0.4,
            schedule=spec(Cosine, warmup="5 epochs"),
            weight_decay=1e-4,
            decay="coupled",
        ),
        total="90 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
