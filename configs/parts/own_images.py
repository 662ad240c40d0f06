"""What configs for a folder of one's own images share: the tenth that is held out."""

from __future__ import annotations

from typing import Any

from vision.config.specs import spec
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.folder import Folder
from vision.evaluators.accuracy.classification import Classification


def held_out(root: str, size: int, values: list[Any], prepared: list[Any] | None = None) -> Any:
    """Accuracy on a tenth of every class.

    Args:
      root: folder with a folder per class.
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
    source = spec(Folder, root=root, part="val", fraction=0.1)
    data = spec(EvalData, source=source, batch_size=64, ops=prepared, on_error="mask")
    return spec(Classification, data=data)
