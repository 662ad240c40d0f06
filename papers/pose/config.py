"""Open-set attribution of images to generators (POSE).

    python train.py --config=papers/pose/config.py:osma --workdir=workdirs/pose

Yang et al., Progressive Open Space Expansion for Open-Set Model Attribution, 2023. The folder has
a sub-folder per known generator under ``known`` and one per unknown under ``unknown``. The tower
is ours: the card does not name the paper's, nor its views of an image.

``small`` is six generators that leave fixed fingerprints in scenes of 24 pixels, scenes without a
trace, and six other generators that are never trained on; ``small,augmenters=0`` is the
classifier without augmenters.
"""

import vision as v
from configs.parts.small import eval_data, train_data
from configs.parts.small_pairs import scenes
from papers.pose.method import Pose
from vision import ops, spec

KNOWN, UNKNOWN = (0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)


def get_config(folder: str = "osma") -> v.Config:
    prepared = [spec(ops.Decode), spec(ops.Resize, size=128), spec(ops.CenterCrop, size=128)]
    values = [spec(ops.ValueRange, low=-1, high=1)]

    def read(part: str, source: str):
        of = spec(v.Folder, root=f"{folder}/{source}", part=part, fraction=0.1)
        return eval_data(of, 64, *prepared)

    return spec(
        v.Experiment,
        data=spec(
            v.TrainData,
            source=spec(v.Folder, root=f"{folder}/known", part="train", fraction=0.1),
            batch_size=8,
            ops=[*prepared, spec(ops.RandomFlip), *values],
        ),
        model=spec(v.ResNet, depth=18),
        objective=spec(Pose),
        optimizer={
            "expand": adam(1e-2, spec(v.Constant)),
            "attribute": adam(1e-4, spec(v.Staircase, factor=0.9, every="500 steps")),
        },
        total="30 epochs",
        evaluators=evaluation(read("val", "known"), read("val", "unknown")),
    )


def small(augmenters: int = 6) -> v.Config:
    optimizers = {
        "expand": adam(1e-2, spec(v.Constant)),
        "attribute": adam(2e-3, spec(v.Staircase, factor=0.9, every="50 steps")),
    }
    if not augmenters:
        del optimizers["expand"]
    return spec(
        v.Experiment,
        data=train_data(marked("train", KNOWN, 4000), 32),
        model=spec(v.ViT, width=48, depth=2, heads=4, patch=6, pool="mean"),
        objective=spec(Pose, augmenters=augmenters, width=8),
        optimizer=optimizers,
        total="300 steps",
        evaluators=evaluation(
            held(marked("test", KNOWN, 600)),
            held(marked("test", UNKNOWN, 600, label="colour", artefact_rate=1.0)),
        ),
        log_every="50 steps",
    )


def adam(learning_rate: float, schedule):
    rules = [spec(v.ParameterRule, pattern=".*")]
    return spec(
        v.Optimizer,
        method=spec(v.adamw),
        learning_rate=learning_rate,
        schedule=schedule,
        rules=rules,
    )


def marked(split: str, seeds: tuple[int, ...], examples: int, **more):
    """Scenes with the traces of these generators; one class more is that without a trace."""
    traces = {"artefacts": ("fingerprint",), "artefact_seeds": seeds, "artefact_strength": 1.0}
    of = {"label": "generator", **traces, **more}
    return scenes(split, examples, ("image", "label"), **of)


def held(source):
    return eval_data(source, 300)


def evaluation(known, unknown):
    return {
        "known": spec(v.Classification, data=known),
        "open": spec(v.OutOfDistribution, inside=known, outside={"unknown": unknown}),
    }
