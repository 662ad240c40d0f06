"""Video label propagation with features of an ImageNet ResNet-50.

    python train.py --config=papers/label_prop/config.py --workdir=W
    python evaluate.py --workdir=W

McKee et al., Transfer of Representations to Video Label Propagation, 2022. Masks of DAVIS are not
read here: the clips are drawn, at its resolution, with exact masks. Features are those of the third
stage, at stride 16. The paper starts from trained weights: set `init_from`.

`small` is a CNN that names colours in scenes of 32 pixels, followed by clips of as many; a minute.
"""

from typing import Any

import vision as v
from configs.parts import imagenet, localised
from papers.label_prop.evaluator import LabelPropagation
from papers.label_prop.method import Propagation
from vision import ops, spec
from vision.data.sources.scenes import Clips

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def clips(examples, batch_size, **world):
    given = {
        "split": "test",
        "num_examples": examples,
        "motions": ("left", "right", "up", "down", "grow", "shrink", "orbit"),
        "others_move": True,
        **world,
    }
    return spec(v.EvalData, source=spec(Clips, **given), batch_size=batch_size, threads=0)


def get_config() -> v.Config:
    data = clips(100, 2, num_frames=24, image_size=(480, 856), num_objects=(1, 3))
    normalised = [spec(ops.ValueRange), spec(ops.Normalize)]
    given = {"objects": 3, "sites": ("block12",), "boxes": "boxes", "mean": MEAN, "std": STD}
    factors = spec(Propagation, top_k=10, radius=6.0, context=20, temperature=0.07)
    return spec(
        v.Experiment,
        data=imagenet.train(batch_size=1024, augment=normalised),
        model=spec(v.ResNet, depth=50),
        objective=spec(v.Classify),
        optimizer=imagenet.nesterov(0.4),
        total="90 epochs",
        evaluators={
            **imagenet.evaluation(512, normalised),
            "clips": spec(LabelPropagation, clips=data, propagation=factors, **given),
        },
        evaluate_every=imagenet.EVALUATE_EVERY,
    )


def small() -> v.Config:
    config: Any = localised.small(maps={})
    data = clips(
        24,
        8,
        num_frames=8,
        num_objects=(2, 2),
        sizes=("medium", "large"),
        **localised.WORLD,
    )
    given = {"objects": 2, "sites": ("block01",), "mean": (0.5,), "std": (0.5,), "boxes": "boxes"}
    tuned = spec(Propagation, top_k=5, radius=3.0, context=4, temperature=0.05)
    naive = spec(Propagation, top_k=None, radius=None, context=1, temperature=0.05, first=False)
    config.evaluators.tuned = spec(LabelPropagation, clips=data, propagation=tuned, **given)
    config.evaluators.naive = spec(LabelPropagation, clips=data, propagation=naive, **given)
    return config
