"""ConvNeXt-T on ImageNet-1k for 300 epochs, the recipe of Liu et al. (2022).

    python train.py --config=configs/convnext_t_i1k.py --workdir=workdirs/convnext_t

"A ConvNet for the 2020s" reports 82.1 % top-1. We have not trained it at full length.
"""

from configs.parts import imagenet
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.batch_ops import MixupCutMix
from vision.models.convnext import ConvNeXt
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Ema, Optimizer, adamw
from vision.train.precision import Precision
from vision.train.schedule import Cosine


def get_config() -> Config:
    normalise = [spec(ops.ValueRange, low=0, high=1), spec(ops.Normalize)]
    return spec(
        Experiment,
        data=imagenet.train(
            batch_size=4096,
            augment=[
                spec(ops.RandAugment, num_ops=2, magnitude=9, magnitude_std=0.5),
                *normalise,
                spec(ops.RandomErasing, probability=0.25),
            ],
            batch_ops=[
                spec(
                    MixupCutMix,
                    num_classes=imagenet.NUM_CLASSES,
                    mixup_alpha=0.8,
                    cutmix_alpha=1.0,
                )
            ],
        ),
        model=spec(
            ConvNeXt, variant="tiny", drop_path=0.1, precision=spec(Precision, compute="bfloat16")
        ),
        objective=spec(Classify, label_smoothing=0.1),
        optimizer=spec(
            Optimizer,
            method=spec(adamw),
            learning_rate=4e-3,
            schedule=spec(Cosine, warmup="20 epochs"),
            weight_decay=0.05,
        ),
        ema=spec(Ema, decay=0.9999),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
