"""A diffusion model of the digits that ship: a U-Net of 180,000 parameters, 400 steps."""

from configs.parts.small import adamw_cosine, eval_data, train_data
from vision.blocks.diffusion import Diffusion
from vision.config.specs import spec
from vision.data.sources.digits import Digits
from vision.models.unet import UNet
from vision.objectives.denoise import Denoise
from vision.run.experiment import Experiment
from vision.train.optim import Ema

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
        optimizer=adamw_cosine(4e-3, weight_decay=0.0),
        ema=spec(Ema, decay=0.98),
        total="400 steps",
        evaluators=evaluators,
        log_every="50 steps",
    )
