"""What configs for one's own images share: towers by short names, the recipe, what is held out."""

from __future__ import annotations

from typing import Any, Literal

from vision.config.specs import spec
from vision.data import ops
from vision.data.pipeline import EvalData, TrainData
from vision.data.sources.folder import Folder
from vision.evaluators.accuracy.classification import Classification
from vision.models.convnext import ConvNeXt
from vision.models.resnet import ResNet
from vision.models.vit import ViT
from vision.run.experiment import Experiment
from vision.train.optim import Ema, Optimizer, adamw
from vision.train.schedule import Cosine

Tower = Literal["vit", "resnet18", "resnet50", "convnext_t"]


def tower(name: Tower, size: int, num_classes: int | None = None) -> Any:
    """A tower from scratch.

    Args:
      name: ``vit`` is a small one with an eighth of a 64 px image's side as patch.
      size: of the images in px.
      num_classes: of its head; None takes it from the data.
    """
    if name == "vit":
        if size % 8:
            raise ValueError(f"size={size}: a multiple of 8, the side of a patch, for model=vit")
        fields: dict[str, Any] = {"width": 192, "depth": 6, "heads": 3, "patch": 8}
        made = spec(ViT, **fields, pool="mean", posemb="sincos2d")
    elif name == "convnext_t":
        made = spec(ConvNeXt, variant="tiny")
    else:
        made = spec(ResNet, depth=int(name.removeprefix("resnet")))
    if num_classes is not None:
        made.num_classes = num_classes
    return made


def held_out_data(source: Any, size: int, values: list[Any], prepared: Any = None) -> Any:
    """Images to measure on.

    Args:
      source: of the records.
      size: of the central crop in px; the shorter side is an eighth longer.
      values: specs of the ops that bring pixels into the tower's range.
      prepared: all of the ops, in place of these.
    """
    prepared = prepared or [
        spec(ops.Decode),
        spec(ops.Resize, size=size + size // 8),
        spec(ops.CenterCrop, size=size),
        *values,
    ]
    return spec(EvalData, source=source, batch_size=64, ops=prepared, on_error="mask")


def held_out(root: str, size: int, values: list[Any], prepared: list[Any] | None = None) -> Any:
    """Accuracy on a tenth of every class; arguments as for ``held_out_data``.

    Args:
      root: folder with a folder per class.
    """
    source = spec(Folder, root=root, part="val", fraction=0.1)
    return spec(Classification, data=held_out_data(source, size, values, prepared))


def training(
    source: Any,
    model: Any,
    objective: Any,
    evaluators: dict[str, Any],
    *,
    size: int,
    batch: int,
    **more: Any,
) -> Any:
    """The recipe of configs that train on one's own images from scratch.

    Args:
      source: of the training records.
      model: a tower.
      objective: what is learned.
      evaluators: name to what is measured every 5 epochs.
      size: of the images in px.
      batch: examples of a step.
      **more: of the ``Experiment``.
    """
    return spec(
        Experiment,
        data=spec(
            TrainData,
            source=source,
            batch_size=batch,
            ops=[
                spec(ops.Decode),
                spec(ops.RandomResizedCrop, size=size, scale=(0.35, 1.0)),
                spec(ops.RandomFlip),
                spec(ops.ValueRange, low=-1, high=1),
            ],
            on_error="mask",
        ),
        model=model,
        objective=objective,
        optimizer=spec(
            Optimizer,
            method=spec(adamw, b2=0.99),
            learning_rate=1e-3,
            schedule=spec(Cosine, warmup="2 epochs"),
            weight_decay=0.05,
            clip_norm=1.0,
        ),
        ema=spec(Ema, decay=0.999),
        total="30 epochs",
        evaluators=evaluators,
        evaluate_every="5 epochs",
        log_every="10 steps",
        **more,
    )
