"""What the configs on emoji have in common: real drawings on grounds of `scenes`, 48 pixels.

Two houses and four fifths of the emoji are learned from; the third house, and the emoji that
were left out, are what evaluators ask about.
"""

from configs.parts.small import adamw_cosine, train_data
from vision.config.specs import spec
from vision.data import ops
from vision.data.batch_ops import BatchRandomFlip
from vision.data.pipeline import EvalData
from vision.data.sources.emoji import Emoji
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.features.probe import NearestNeighbours
from vision.objectives.classify import Classify
from vision.run.experiment import Experiment
from vision.train.optim import Ema

LEARNED = ("noto", "twemoji")
NEW_HOUSE = ("fluent",)
GROUPS = (
    *("smileys-emotion", "animals-nature", "food-drink", "travel-places"),
    *("activities", "objects", "symbols"),
)
"""Without people, who differ in hair and clothes, and flags: 1,250 emoji."""


def emoji(split, features=("image", "label"), **more):
    fields = {"split": split, "features": features, "groups": GROUPS, "label": "subgroup"}
    return spec(Emoji, **(fields | more))


def shown(**more):
    """Everything that a page can show of the data, for `python -m vision.report.dataset`."""
    features = ("image", "label", "caption", "keywords", "names", "boxes", "masks", "valid")
    source = emoji(
        "train",
        (*features, "drawing", "house", "family", "language", "segmentation", "visible"),
        **{"label": "group", "num_objects": (1, 3), "overlap": 0.2, "clutter": 2, **more},
        languages=("en", "de", "fr", "ru", "hi", "ja", "ko", "th", "zh"),
        tones=("default", "light", "dark"),
    )
    return spec(EvalData, source=source, batch_size=64)


def asked(*more_ops, batch_size=256, **source):
    """One example of every drawing that is asked about."""
    return spec(
        EvalData,
        source=emoji("test", **source),
        batch_size=batch_size,
        ops=[spec(ops.ValueRange, low=-1, high=1), *more_ops],
    )


def asked_of(name):
    """Who draws and which emoji, of everything that evaluators ask about by `name`."""
    seen, unseen = {"part": "seen"}, {"part": "unseen"}
    return {
        "same_house": {"houses": LEARNED, **seen},
        "new_house": {"houses": NEW_HOUSE, **seen},
        "unseen": {"houses": LEARNED, **unseen},
        "unseen_new_house": {"houses": NEW_HOUSE, **unseen},
    }[name]


def neighbours(output="embedding"):
    """How often a drawing by the third house lies nearest to the same emoji by the first."""
    return spec(
        NearestNeighbours,
        train=asked(label="emoji", houses=("noto",)),
        test=asked(label="emoji", houses=NEW_HOUSE),
        k=(1, 10),
        output=output,
    )


def supervised(model, learning_rate, steps):
    """Cross-entropy on the subgroup of one drawing on a ground, of all sizes, a little turned."""
    source = emoji(
        "train",
        num_examples=100_000,
        part="seen",
        houses=LEARNED,
        side=(0.6, 1.0),
        rotation_deg=15.0,
    )
    names = ("new_house", "unseen", "unseen_new_house")
    return spec(
        Experiment,
        data=train_data(source, 64, spec(BatchRandomFlip)),
        model=model,
        objective=spec(Classify, label_smoothing=0.1),
        optimizer=adamw_cosine(learning_rate, warmup="50 steps"),
        ema=spec(Ema, decay=0.98),
        total=f"{steps} steps",
        evaluators={
            **{name: spec(Classification, data=asked(**asked_of(name))) for name in names},
            "neighbours": neighbours(),
        },
        log_every="50 steps",
    )
