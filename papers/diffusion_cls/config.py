"""A diffusion model, and a linear probe of its features at several steps and blocks.

    python train.py --config=papers/diffusion_cls/config.py --workdir=workdirs/adm

Mukhopadhyay et al., Do Text-free Diffusion Models Learn Discriminative Visual Representations?,
2023: the unconditional ADM of Dhariwal and Nichol, 2021, for ImageNet at 256 pixels, which the
paper does not train itself. That predicts variances too and changes sides within residual blocks;
ours does neither. ADM counts the stem and the reductions of its encoder as blocks and we do not, so
that its block 24 of 37 is our 18 of 31; the sweep goes around it.

``small`` is a U-Net of 180,000 parameters on the digits that ship, every block of it.
"""

import vision as v
from configs.parts import digit_diffusion
from configs.parts.small import eval_data
from papers.diffusion_cls.evaluator import DiffusionProbe
from vision import ops, spec


def get_config() -> v.Config:
    values = [spec(ops.ValueRange, low=-1, high=1)]
    shape = [spec(ops.Decode), spec(ops.Resize, size=256), spec(ops.CenterCrop, size=256)]

    def read(split):
        source = spec(v.Tfds, name="imagenet2012", split=split)
        return eval_data(source, 128, *shape)

    diffusion = spec(v.Diffusion, steps=1000)
    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Tfds, name="imagenet2012", split="train"),
            batch_size=256,
            ops=[*shape, spec(ops.RandomFlip), *values],
            threads=16,
        ),
        model=spec(
            v.UNet,
            width=256,
            multipliers=(1, 1, 2, 2, 4, 4),
            depth=2,
            attention=(3, 4, 5),
            heads=4,
            remat="full",
            precision=spec(v.Precision, compute="bfloat16"),
        ),
        objective=spec(v.Denoise, diffusion=diffusion),
        optimizer=spec(v.Optimizer, method=spec(v.adamw), learning_rate=1e-4),
        ema=spec(v.Ema, decay=0.9999),
        total="1_980_000 steps",
        evaluators={
            "features": spec(
                DiffusionProbe,
                probe=spec(v.LinearProbe, train=read("train"), test=read("validation")),
                diffusion=diffusion,
                times=(10, 30, 90, 150, 300),
                blocks=tuple(f"block{i:02d}" for i in (6, 12, 15, 18, 21, 24)),
            )
        },
    )


def small() -> v.Config:
    return digit_diffusion.denoise(
        {
            "features": spec(
                DiffusionProbe,
                probe=spec(
                    v.LinearProbe,
                    train=digit_diffusion.digits("train"),
                    test=digit_diffusion.digits("test"),
                    decays=(1e-3,),
                ),
                diffusion=digit_diffusion.diffusion(),
                times=(10, 90, 300, 999),
                blocks=tuple(f"block{i:02d}" for i in range(4)),
            )
        }
    )
