"""A small ViT on scikit-learn's 1,797 real handwritten digits (8x8): the demo.

    python train.py --config=configs/digits_vit.py --workdir=workdirs/digits_vit
    python evaluate.py --workdir=workdirs/digits_vit

Augmentation runs on the device, inside the step: the images are in memory anyway.
"""

from vision.core.config import spec
from vision.core.experiment import Experiment
from vision.core.optim import Ema, Optimizer, adamw
from vision.core.schedule import Cosine
from vision.data import ops
from vision.data.batch_ops import RandomCrop, ValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.digits import Digits
from vision.evaluators.classification import Classification
from vision.models.vit import ViT
from vision.objectives.classify import Classify


def get_config():
    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(Digits, split="train"),
            batch_size=64,
            batch_ops=[
                spec(ValueRange, low=-1, high=1),
                spec(RandomCrop, padding=1, fill="edge"),
            ],
            threads=0,
        ),
        model=spec(ViT, width=48, depth=3, heads=4, patch=2, pool="mean", posemb="learned"),
        objective=spec(Classify),
        optimizer=spec(
            Optimizer,
            method=spec(adamw, b2=0.99),
            learning_rate=4e-3,
            schedule=spec(Cosine, warmup="5 epochs"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        ema=spec(Ema, decay=0.99),
        total="80 epochs",
        evaluators={
            "test": spec(
                Classification,
                data=spec(
                    EvalData,
                    source=spec(Digits, split="test"),
                    batch_size=360,
                    ops=[spec(ops.ValueRange, low=-1, high=1)],
                ),
            ),
        },
        evaluate_every="20 epochs",
        log_every="10 steps",
    )
