"""What configs that run in seconds to minutes have in common: images in -1..1, AdamW, a cosine."""

from vision.config.specs import spec
from vision.data import ops
from vision.data.batch_ops import BatchValueRange
from vision.data.pipeline import EvalData, TrainData
from vision.train.optim import Optimizer, adamw
from vision.train.schedule import Cosine


def train_data(source, batch_size, *batch_ops, threads=1, **more):
    """Images are brought to -1..1 on the device, then come ``batch_ops``."""
    values = spec(BatchValueRange, low=-1, high=1)
    return spec(
        TrainData,
        source=source,
        batch_size=batch_size,
        batch_ops=[values, *batch_ops],
        threads=threads,
        **more,
    )


def eval_data(source, batch_size, *before, **more):
    """The ops ``before``, and images in -1..1."""
    values = spec(ops.ValueRange, low=-1, high=1)
    return spec(EvalData, source=source, batch_size=batch_size, ops=[*before, values], **more)


def adamw_cosine(
    learning_rate,
    warmup="20 steps",
    weight_decay=0.05,
    clip_norm: float | None = 1.0,
    **more,
):
    """AdamW whose learning rate rises for ``warmup`` and falls along a cosine to the end."""
    return spec(
        Optimizer,
        method=spec(adamw),
        learning_rate=learning_rate,
        schedule=spec(Cosine, warmup=warmup),
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        **more,
    )
