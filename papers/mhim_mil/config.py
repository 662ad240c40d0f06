"""Multiple instance learning with masked hard instance mining (MHIM-MIL).

    python train.py --config=papers/mhim_mil/config.py --workdir=workdirs/mhim
    python evaluate.py --workdir=workdirs/mhim/mhim

Tang et al., Multiple Instance Learning Framework with Masked Hard Instance Mining for Whole Slide
Image Classification, 2023, with its settings for CAMELYON16: two stages, plain attention, which
becomes the teacher, and the student; a bag per step. Patches of slides and the encoder that makes
their features are not here: bags of 1,000 noisy digits, of which a few are nines, stand for them.
Whatever source gives ``image`` (N, ...) float and ``label`` takes their place.

``small`` has 80 bags of 20 digits, 1 to 3 nines in every other one.
"""

import vision as v
from papers.mhim_mil.attention_mil import AttentionMIL
from papers.mhim_mil.bags import Bags
from papers.mhim_mil.method import MhimMil
from vision import spec


def get_config() -> v.Config:
    return stages(
        train=270,
        test=130,
        bag={"size": 1000, "present": (1, 10), "noise": 0.5},
        batch_size=1,
        model={},
        masks={},
        learning_rate=2e-4,
        total="200 epochs",
    )


def small() -> v.Config:
    return stages(
        train=80,
        test=300,
        bag={"noise": 0.35},
        batch_size=8,
        model={"width": 32, "hidden": 16},
        masks={"high": 0.05, "momentum": 0.99},
        learning_rate=3e-3,
        total="40 epochs",
    )


def stages(*, train, test, bag, batch_size, model, masks, learning_rate, total):
    def bags(split, number):
        return spec(Bags, source=spec(v.Digits, split=split), num_bags=number, positive=9, **bag)

    read = spec(v.EvalData, source=bags("test", test), batch_size=min(test, 100))

    def run(objective, **more):
        return spec(
            v.Experiment,
            data=spec(v.TrainData, source=bags("train", train), batch_size=batch_size, threads=1),
            model=spec(AttentionMIL, **model),
            objective=objective,
            optimizer=spec(
                v.Optimizer,
                method=spec(v.adamw),
                learning_rate=learning_rate,
                schedule=spec(v.Cosine),
                weight_decay=1e-5,
                decay="coupled",
            ),
            total=total,
            evaluators={"test": spec(v.Classification, data=read)},
            **more,
        )

    teacher = spec(v.InitFrom, source="workdir:stage:abmil", head="read")
    return spec(
        v.Scenario,
        stages=[
            spec(v.Stage, name="abmil", do=run(spec(v.Classify))),
            spec(v.Stage, name="mhim", do=run(spec(MhimMil, **masks), init_from=teacher)),
        ],
    )
