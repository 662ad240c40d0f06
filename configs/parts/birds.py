"""Caltech-UCSD Birds 200-2011 through TFDS, read as fine-grained recognition does it.

Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011: 200 kinds, 5,994 images to learn from and
5,794 to test on. Images are stretched to a square, cropped at random in training and in the middle
in testing, and not otherwise changed but mirrored. `tfds build caltech_birds2011
--file_format=array_record` prepares them.
"""

from vision.config.specs import spec
from vision.data import ops
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.tfds import Tfds
from vision.evaluators.accuracy.classification import Classification
from vision.run.experiment import Experiment
from vision.train.optim import Optimizer, sgd
from vision.train.schedule import Cosine


def birds(batch_size, total, size=448, resize=600, **parts):
    """An experiment on birds: ``parts`` are its model, objective, optimizer and so on."""
    values = [spec(ops.ValueRange, low=-1, high=1)]

    def read(split, *cropped):
        source = spec(Tfds, name="caltech_birds2011", split=split)
        return source, [spec(ops.Decode), spec(ops.Resize, size=(resize, resize)), *cropped]

    train, ops_train = read("train", spec(ops.RandomCrop, size=size), spec(ops.RandomFlip))
    test, ops_test = read("test", spec(ops.CenterCrop, size=size))
    asked = spec(EvalData, source=test, batch_size=64, ops=[*ops_test, *values])
    return spec(
        Experiment,
        data=spec(
            TrainData, source=train, batch_size=batch_size, ops=[*ops_train, *values], threads=16
        ),
        total=total,
        evaluators={"test": spec(Classification, data=asked)},
        evaluate_every="5 epochs",
        **parts,
    )


def sgd_cosine(learning_rate, warmup, weight_decay=0.0):
    """SGD with momentum 0.9, coupled decay, and a cosine after the warm-up."""
    return spec(
        Optimizer,
        method=spec(sgd, momentum=0.9),
        learning_rate=learning_rate,
        schedule=spec(Cosine, warmup=warmup),
        weight_decay=weight_decay,
        decay="coupled",
    )
