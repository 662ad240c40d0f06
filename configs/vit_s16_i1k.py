"""ViT-S/16 on ImageNet-1k for 90 epochs, the plain recipe of Beyer et al. (2022).

    python train.py --config=configs/vit_s16_i1k.py --workdir=gs://... or a local folder

"Better plain ViT baselines for ImageNet-1k" reports 76.5 % top-1 for this recipe after 6 to 7
hours on a TPU-v3-8. We have not trained it at full length.
"""

from configs.parts import imagenet
from vision.core.config import spec
from vision.core.experiment import Experiment
from vision.core.optim import Optimizer, adamw
from vision.core.precision import Precision
from vision.core.schedule import Cosine
from vision.data import ops
from vision.data.batch_ops import Mixup
from vision.models.vit import ViT
from vision.objectives.classify import Classify


def get_config():
    to_range = spec(ops.ValueRange, low=-1, high=1)
    return spec(
        Experiment,
        data=imagenet.train(
            batch_size=1024,
            augment=[
                spec(ops.RandAugment, num_ops=2, magnitude=10, magnitude_std=0, probability=1),
                to_range,
            ],
            batch_ops=[spec(Mixup, num_classes=imagenet.NUM_CLASSES, alpha=0.2)],
        ),
        model=spec(
            ViT,
            variant="S/16",
            pool="mean",
            posemb="sincos2d",
            precision=spec(Precision, compute="bfloat16"),
        ),
        objective=spec(Classify),
        optimizer=spec(
            Optimizer,
            method=spec(adamw, moment_dtype="bfloat16"),
            learning_rate=1e-3,
            schedule=spec(Cosine, warmup="10_000 steps"),
            # The paper's 1e-4 is not multiplied by the learning rate; ours is.
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        total="90 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=[to_range]),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )
