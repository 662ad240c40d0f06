"""FreeNet on Pavia University, by the authors' recipe.

    python train.py --config=papers/freenet/config.py --workdir=workdirs/freenet
    python train.py --config=freenet:small --workdir=workdirs/freenet_small

reads ``pavia/PaviaU.mat`` and ``pavia/PaviaU_gt.mat``: 610 x 340 pixels, 103 bands, nine classes of
which 200 pixels each are learned from, 20 of each in a step. 1,000 steps of SGD with momentum 0.9,
decay 0.001 on everything and a rate of 0.001 that falls by the power 0.9.

``small`` is a made-up scene of 48 x 48 pixels, 32 bands and six classes, with 20 pixels of each.
"""

import vision as v
from configs.parts.small import adamw_cosine
from papers.freenet.method import PixelAccuracy, Polynomial, StratumLoss
from papers.freenet.scene import DrawnScene, MatScene
from papers.freenet.strata import LabelledPixels
from papers.freenet.tower import FreeNet
from vision import spec
from vision.data.samplers import InOrder

PAVIA = (
    *("asphalt", "meadows", "gravel", "trees", "painted metal sheets", "bare soil"),
    *("bitumen", "self-blocking bricks", "shadows"),
)


def get_config() -> v.Config:
    scene = spec(
        MatScene,
        path="pavia/PaviaU.mat",
        variable="paviaU",
        labels_path="pavia/PaviaU_gt.mat",
        labels_variable="paviaU_gt",
        class_names=PAVIA,
        bands=103,
    )
    return experiment(
        scene,
        {"per_class": 200, "stratum": 20},
        model=spec(FreeNet),
        optimizer=spec(
            v.Optimizer,
            method=spec(v.sgd, momentum=0.9),
            learning_rate=1e-3,
            schedule=spec(Polynomial),
            weight_decay=1e-3,
            decay="coupled",
            rules=[spec(v.ParameterRule, pattern=".*")],
        ),
        total="1000 steps",
    )


def small() -> v.Config:
    return experiment(
        spec(DrawnScene),
        {"per_class": 20, "stratum": 5},
        model=spec(FreeNet, widths=(16, 24, 32, 32), inner=16, groups=8),
        optimizer=adamw_cosine(3e-3, warmup="5 steps"),
        total="60 steps",
    )


def experiment(scene, sizes, **parts):
    def pixels(part):
        return spec(LabelledPixels, scene=scene, part=part, **sizes)

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData, source=pixels("train"), batch_size=1, sampler=spec(InOrder), threads=1
        ),
        objective=spec(StratumLoss),
        evaluators={
            "test": spec(PixelAccuracy, data=spec(v.EvalData, source=pixels("test"), batch_size=1))
        },
        **parts,
    )
