"""A diffusion model of the digits that ship: a U-Net of 180,000 parameters, 400 steps."""

from configs.parts.small import eval_data, train_data
from vision.blocks.diffusion import Diffusion
from vision.config.specs import spec
from vision.data.sources.digits import Digits
from vision.models.unet import UNet
from vision.objectives.denoise import Denoise
from vision.run.experiment import Experiment
from vision.train.optim import Ema, Optimizer, adamw
from vision.train.schedule import Cosine

STEPS = 1000


def diffusion():
    return spec(Diffusion, steps=STEPS)


def digits(split):
    """Every record once, scaled to -1..1."""
    return eval_data(spec(Digits, split=split), 360, threads=0)


def train(batch_size, *augment):
    return train_data(spec(Digits, split="train"), batch_size, *augment, threads=0)


def denoise(evaluators=None):
    """The run of the diffusion model."""
    return spec(
        Experiment,
        data=train(64),
        model=spec(UNet, width=32, multipliers=(1,), depth=1, patch=2, attention=(), groups=8),
        objective=spec(Denoise, diffusion=diffusion()),
        optimizer=spec(
            Optimizer,
            method=spec(adamw),
            learning_rate=4e-3,
            schedule=spec(Cosine, warmup="20 steps"),
            clip_norm=1.0,
        ),
        ema=spec(Ema, decay=0.98),
        total="400 steps",
        evaluators=evaluators,
        log_every="50 steps",
    )
