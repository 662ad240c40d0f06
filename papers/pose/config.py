"""Which generator made an image, and whether it is one that was never met (POSE).

    python train.py --config=papers/pose/config.py:osma --workdir=workdirs/pose

Yang et al., Progressive Open Space Expansion for Open-Set Model Attribution, 2023. The folder has
a sub-folder per known generator under ``known`` and one per unknown under ``unknown``. The tower
is ours: the card does not name the paper's, nor its views of an image.

``small`` is six generators that leave fixed fingerprints in scenes of 24 pixels, scenes without a
trace, and six other generators that are never trained on; ``small,augmenters=0`` is the
classifier without augmenters.
"""

from configs.parts.small import eval_data, train_data
from configs.parts.small_pairs import scenes
from papers.pose.method import Pose
from vision.config.specs import Config, spec
from vision.data import ops
from vision.data.pipeline import TrainData
from vision.data.sources.folder import Folder
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.robustness.out_of_distribution import OutOfDistribution
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, ParameterRule, adamw
from vision.train.schedule import Constant, Staircase

KNOWN, UNKNOWN = (0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)


def get_config(folder: str = "osma") -> Config:
    prepared = [spec(ops.Decode), spec(ops.Resize, size=128), spec(ops.CenterCrop, size=128)]
    values = [spec(ops.ValueRange, low=-1, high=1)]

    def read(part: str, source: str):
        of = spec(Folder, root=f"{folder}/{source}", part=part, fraction=0.1)
        return eval_data(of, 64, *prepared)

    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=spec(Folder, root=f"{folder}/known", part="train", fraction=0.1),
            batch_size=8,
            ops=[*prepared, spec(ops.RandomFlip), *values],
        ),
        model=spec(ResNet, depth=18),
        objective=spec(Pose),
        optimizer={
            "expand": adam(1e-2, spec(Constant)),
            "attribute": adam(1e-4, spec(Staircase, factor=0.9, every="500 steps")),
        },
        total="30 epochs",
        evaluators=evaluation(read("val", "known"), read("val", "unknown")),
    )


def small(augmenters: int = 6) -> Config:
    optimizers = {
        "expand": adam(1e-2, spec(Constant)),
        "attribute": adam(2e-3, spec(Staircase, factor=0.9, every="50 steps")),
    }
    if not augmenters:
        del optimizers["expand"]
    return spec(
        Experiment,
        data=train_data(marked("train", KNOWN, 4000), 32),
        model=spec(ViT, width=48, depth=2, heads=4, patch=6, pool="mean"),
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
    rules = [spec(ParameterRule, pattern=".*")]
    return spec(
        Optimizer,
        method=spec(adamw),
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
        "known": spec(Classification, data=known),
        "open": spec(OutOfDistribution, inside=known, outside={"unknown": unknown}),
    }
