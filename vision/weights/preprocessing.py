"""The preprocessing of images that belongs to weights: resizing, cropping and normalisation.

Nothing is applied implicitly: the numbers are in the config, as ops or as a ``Preprocessing`` whose
``evaluation()`` gives the ops. ``python -m vision.weights.describe SOURCE`` prints them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data import ops
from vision.data.ops.base import Op
from vision.data.ops.resizing import Method
from vision.weights.mapping import WeightsError
from vision.weights.naflex import NaflexPreprocessing, patchify_of

Mode = Literal["shortest", "squash", "longest"]
# Ops that neither move pixels nor change their values.
_NEUTRAL = (ops.Decode, ops.ToRgb, ops.Keep, ops.Drop, ops.Tokenize)


@dataclasses.dataclass(frozen=True)
@checked
class Preprocessing:
    """From a decoded image to the input of a network.

    Attributes:
      size: (height, width) of the input.
      resized: (height, width) after resizing, before the central crop; None for ``size``.
      mode: ``shortest`` resizes the shorter side to that of ``resized``, ``squash`` both sides,
        whatever the aspect ratio, ``longest`` fits the image into ``resized`` and pads it.
      method: of resizing; see ``vision.data.ops.resizing``.
      mean, std: per channel, of pixels in 0..1; the input is (pixel - mean) / std.
      fill: colour of the borders, 0..255.
    """

    size: tuple[Positive[int], Positive[int]] = (224, 224)
    resized: tuple[Positive[int], Positive[int]] | None = None
    mode: Mode = "shortest"
    method: Method = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fill: tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        ops.Normalize(self.mean, self.std)

    @property
    def before_crop(self) -> tuple[int, int]:
        """``resized``, or ``size`` where it is not given."""
        return self.resized or self.size

    def at(self, side: int) -> Preprocessing:
        """The same for square images of another size, of which the crop leaves the same share."""
        if self.size == (side, side):
            return self
        resized = None
        if self.resized is not None:
            resized = (round(side * self.resized[0] / self.size[0]),) * 2
        return dataclasses.replace(self, size=(side, side), resized=resized)

    def evaluation(self, decode: bool = True) -> tuple[Op, ...]:
        """Ops for ``EvalData.ops``: decoding, resizing, the crop in the middle, and values."""
        mode = "grey" if len(self.mean) == 1 else "rgb"
        first = (ops.Decode(mode=mode),) if decode else ()
        return (*first, *self.geometry(), *self.values())

    def geometry(self) -> tuple[Op, ...]:
        """The ops that resize and crop."""
        target, size = self.before_crop, self.size
        crop = ops.CenterCrop(size[0] if size[0] == size[1] else size)
        if self.mode == "squash":
            resize = ops.Resize(target, self.method)
            return (resize,) if target == size else (resize, crop)
        if self.mode == "longest":
            pad = ops.CenterPad(size, tuple(float(x) for x in self.fill))
            resize = ops.ResizeInto(target, method=self.method)
            return (resize, pad) if target == size else (resize, pad, crop)
        if target[0] == target[1]:
            return ops.Resize(target[0], self.method), crop
        return ops.ResizeInto(target, cover=True, method=self.method), crop

    def values(self) -> tuple[Op, ...]:
        """The ops from uint8 to the numbers that the network reads; training needs them too."""
        if len(set(self.mean)) == 1 and len(set(self.std)) == 1:
            mean, std = self.mean[0], self.std[0]
            return (ops.ValueRange(low=-mean / std, high=(1 - mean) / std),)
        return ops.ValueRange(), ops.Normalize(self.mean, self.std)


def of_ops(evaluation: Iterable[Op], shape: tuple[int, ...]) -> Preprocessing | NaflexPreprocessing:
    """The inverse of ``Preprocessing.evaluation``, or of ``NaflexPreprocessing.evaluation``.

    Args:
      evaluation: ops of an ``EvalData``.
      shape: (height, width, channels) of training images, which say the size where no op does; or
        (patches, numbers) of them as patches.

    Raises:
      WeightsError: an op that no card can describe.
    """
    evaluation = tuple(evaluation)
    patches = patchify_of(evaluation)
    channels = shape[-1] if patches is None else (shape[-1] - 2) // patches.patch**2
    mean, std = _per_channel(evaluation, channels)
    fields: dict[str, Any] = {"mean": mean, "std": std}
    if patches is not None:
        card = NaflexPreprocessing(patches.patch, patches.most, **fields)
        resized = next((op for op in evaluation if isinstance(op, ops.ResizeToPatches)), None)
        card = card if resized is None else dataclasses.replace(card, method=resized.method)
        unlike = [op for op in evaluation if not isinstance(op, _NEUTRAL)]
        if tuple(unlike) != card.evaluation(decode=False):
            raise WeightsError("the evaluation's ops are not those of a NaflexPreprocessing")
        return card
    size, target, mode = (shape[0], shape[1]), None, "squash"
    for op in evaluation:
        if isinstance(op, (ops.Resize, ops.ResizeInto)):
            size = target = _pair(op.size)
            fields["method"] = op.method
            shortest = op.cover if isinstance(op, ops.ResizeInto) else isinstance(op.size, int)
            longest = isinstance(op, ops.ResizeInto) and not op.cover
            mode = "shortest" if shortest else "longest" if longest else "squash"
        elif isinstance(op, ops.CenterPad):
            size = op.size
            fields["fill"] = tuple(round(x) for x in op.fill)
        elif isinstance(op, ops.CenterCrop):
            size = _pair(op.size)
        elif not isinstance(op, (ops.ValueRange, ops.Normalize, *_NEUTRAL)):
            raise WeightsError(
                f"the evaluation's {type(op).__name__} has no place in a card of preprocessing"
            )
    if mode == "shortest" and not any(isinstance(op, ops.CenterCrop) for op in evaluation):
        raise WeightsError("the evaluation's Resize has no CenterCrop after it: sizes are many")
    return Preprocessing(size, None if target == size else target, mode, **fields)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def normalisation(
    evaluation: Iterable[Op],
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std, one number or one per channel, that ops normalise with, of pixels in 0..1;
    None where no op converts uint8 to floating point."""
    scale, offset, changed = np.ones(1), np.zeros(1), False
    for op in evaluation:
        if isinstance(op, ops.ValueRange):
            scale, offset = scale * (op.high - op.low), offset * (op.high - op.low) + op.low
            changed = True
        elif isinstance(op, ops.Normalize):
            scale, offset = scale / op.std, (offset - np.asarray(op.mean)) / op.std
    if not changed:
        return None
    numbers = zip(-offset / scale, 1 / scale, strict=True)
    mean, std = zip(*((round(float(m), 9), round(float(s), 9)) for m, s in numbers), strict=True)
    return mean, std


def _per_channel(evaluation: tuple[Op, ...], channels: int) -> tuple[tuple[float, ...], ...]:
    mean_std = normalisation(evaluation)
    if mean_std is None:
        raise WeightsError(
            "the evaluation has no ValueRange: how pixels become numbers is not in its ops"
        )
    mean, std = (x * channels if len(x) == 1 else x for x in mean_std)
    return mean, std


def disagreements(
    card: Preprocessing | NaflexPreprocessing,
    path: Path,
    evaluations: Mapping[str, Iterable[Op]],
) -> list[str]:
    """A line for every evaluation whose normalisation differs from that of the weights.

    Args:
      card: of the weights.
      path: the file that it was read from.
      evaluations: name in the config, such as ``evaluators.val.data.ops``, to ops.
    """
    lines = []
    for name, evaluation in evaluations.items():
        mean_std = normalisation(evaluation)
        if mean_std is None:
            continue
        pair = (np.array([card.mean, card.std]), np.array(mean_std))
        if pair[1].shape[1] not in (1, len(card.mean)) or np.abs(pair[0] - pair[1]).max() > 2e-3:
            lines.append(
                f"config.{name} normalises with mean {mean_std[0]} and std {mean_std[1]}, but "
                f"{path} says mean {card.mean} and std {card.std}: the weights expect the latter"
            )
    return lines
