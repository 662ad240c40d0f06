"""ImageNet-1k through TFDS: training data and the evaluation suite of several configs.

TFDS reads what `tfds build imagenet2012 --file_format=array_record` prepared in ``data_dir``
(default: $TFDS_DATA_DIR or ~/tensorflow_datasets); no TensorFlow is needed to read it.
"""

from vision.config.specs import spec
from vision.data import ops
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.tfds import Tfds
from vision.evaluators.accuracy.classification import Classification
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Cosine

NUM_CLASSES = 1000
# How often those of ``evaluation`` run.
EVALUATE_EVERY = {"minival": "5 epochs", "val": "10 epochs"}


def train(batch_size, augment, batch_ops=(), size=224):
    """Inception crop, flip, then ``augment``, the ops of a recipe."""
    return spec(
        TrainData,
        source=spec(Tfds, name="imagenet2012", split="train[:99%]"),
        batch_size=batch_size,
        ops=[
            spec(ops.Decode),
            spec(ops.RandomResizedCrop, size=size),
            spec(ops.RandomFlip),
            *augment,
        ],
        batch_ops=batch_ops,
        threads=16,
        prefetch_batches=16,
    )


def evaluation(batch_size, normalise, size=224, resize=256):
    """The last 1 % of the training set, which is not trained on, and the validation set."""

    def suite(split):
        data = spec(
            EvalData,
            source=spec(Tfds, name="imagenet2012", split=split),
            batch_size=batch_size,
            ops=[
                spec(ops.Decode),
                spec(ops.Resize, size=resize),
                spec(ops.CenterCrop, size=size),
                *normalise,
            ],
        )
        return spec(Classification, data=data)

    return {
        "minival": suite("train[99%:]"),
        "val": suite("validation"),
    }


def nesterov(learning_rate, schedule=None, **more):
    """SGD with Nesterov momentum 0.9 and coupled decay of 1e-4, for convolutional networks.

    Without a ``schedule`` the rate rises for 5 epochs and falls along a cosine.
    """
    return spec(
        Optimizer,
        method=spec(sgd, momentum=0.9, nesterov=True),
        learning_rate=learning_rate,
        schedule=schedule or spec(Cosine, warmup="5 epochs"),
        weight_decay=1e-4,
        decay="coupled",
        **more,
    )
