"""PlainMamba-L1 on ImageNet-1k.

    python train.py --config=papers/plain_mamba/config.py --workdir=workdirs/mamba

Yang et al., PlainMamba: Improving Non-Hierarchical Mamba in Visual Recognition, 2024: 300 epochs,
batches of 2,048, AdamW at 5e-4 per 512 images, Swin's augmentation.

``small`` reads the 64 pixels of handwritten digits one by one. ``small,order=raster`` begins every
row and column at the same side and does not know the direction of its steps.
"""

from typing import Literal

from configs.parts import imagenet
from configs.parts.small import adamw_cosine, eval_data, train_data
from papers.plain_mamba.plain_mamba import PlainMamba
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.batch_ops import BatchRandomCrop, MixupCutMix
from vision.data.sources.digits import Digits
from vision.evaluators.accuracy.classification import Classification
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.precision import Precision


def get_config() -> Config:
    normalise = [spec(ops.ValueRange), spec(ops.Normalize)]
    return spec(
        Experiment,
        data=imagenet.train(
            batch_size=2048,
            augment=[spec(ops.RandAugment), *normalise, spec(ops.RandomErasing, fill="noise")],
            batch_ops=[spec(MixupCutMix, num_classes=imagenet.NUM_CLASSES)],
        ),
        model=spec(
            PlainMamba,
            variant="L1",
            drop_path=0.2,
            remat="full",
            precision=spec(Precision, compute="bfloat16"),
        ),
        objective=spec(Classify, label_smoothing=0.1),
        optimizer=adamw_cosine(2e-3, "15 epochs", clip_norm=5.0),
        total="300 epochs",
        evaluators=imagenet.evaluation(batch_size=1024, normalise=normalise),
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small(order: Literal["snake", "raster"] = "snake") -> Config:
    snake = order == "snake"
    return spec(
        Experiment,
        data=train_data(
            spec(Digits, split="train"),
            32,
            spec(BatchRandomCrop, padding=1, fill="edge"),
            threads=0,
        ),
        model=spec(
            PlainMamba,
            width=16,
            depth=2,
            patch=1,
            stem="patches",
            states=4,
            kernel=3,
            snake=snake,
            directions=snake,
            sequential=True,
        ),
        objective=spec(Classify),
        optimizer=adamw_cosine(8e-3),
        total="900 steps",
        evaluators={
            "test": spec(
                Classification,
                data=eval_data(spec(Digits, split="test"), 360),
            ),
        },
        log_every="50 steps",
    )
