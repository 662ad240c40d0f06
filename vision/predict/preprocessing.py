"""Which preprocessing a run has for images of any origin: that of its evaluation, without labels.

An evaluator's ops were written for its data, which may have labels and captions and be arrays
already. Here there are only images: ops that need something else are left out and named, and where
no op decodes, decoding comes first. What the ops make of an image, and whether they bring images of
all sizes to one, is tried on two images of zeros.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vision.config.errors import UserError
from vision.config.schema import ConfigError, nearest
from vision.data.ops.base import Op
from vision.data.ops.fused import DecodeCrop
from vision.data.ops.values import Decode
from vision.data.pipeline import EvalData
from vision.evaluators.accuracy.classification import Classification
from vision.predict.images import Mode
from vision.run.restore import Run
from vision.weights import cards
from vision.weights.preprocessing import Preprocessing

# Of an image that is tried where the run does not say its own.
_TRIED = (64, 64, 3)
_OTHER = (37, 11)  # pixels by which the second image is larger


@dataclasses.dataclass(frozen=True)
class Prepared:
    """From an image, encoded or uint8, to the input of a model.

    Attributes:
      ops: in order; the first one decodes.
      where: where they come from, in words.
      shape: (height, width, channels) of the result.
      dtype: of the result.
      any_size: whether images of all sizes become ``shape``; otherwise the others are refused.
      mode: what images are decoded to; None where only arrays have the channels.
      left_out: names of ops that need more than an image, each with what it asked for.
    """

    ops: tuple[Op, ...]
    where: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    any_size: bool
    mode: Mode | None
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        steps = ", ".join(_told(op) for op in self.ops)
        without = f"; without {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.where}: {steps}{without}"


def of_run(run: Run, named: str = "", folder: str = "the run") -> Prepared:
    """The preprocessing of a run.

    Without a name it is that of the first ``Classification`` of the config, else of the first
    evaluator that reads images through ``EvalData``.

    Args:
      run: of ``vision.run.restore.load_run``.
      named: an evaluator of the config, or weights whose card says it: ``timm:NAME``.
      folder: of the run, for messages.

    Raises:
      ConfigError: no such evaluator, or none that reads images.
      WeightsError: no card, or one that is not understood.
    """
    if ":" in named:
        return of_card(named)
    batch = run.data_spec.batch.get("image")
    trained = tuple(batch[0][1:]) if batch and len(batch[0]) == 4 else None
    evaluators = dict(run.experiment.evaluators or {})
    readers = {name: data for name, each in evaluators.items() if (data := _data(each)) is not None}
    if named and named not in readers:
        what = "reads no images through EvalData" if named in evaluators else "is not there"
        raise ConfigError(
            f"--preprocessing={named}: the evaluator {what} in the config of {folder}"
            f"{nearest(named, [*readers])}"
        )
    first = [name for name in readers if isinstance(evaluators[name], Classification)]
    name = named or next(iter([*first, *readers]), "")
    if not name:
        raise ConfigError(
            f"{folder}: its config has no evaluator that reads images, whose ops say how a file "
            "becomes the model's input; name weights with a card, --preprocessing=timm:NAME or "
            "--preprocessing=safetensors:FOLDER with a preprocessing.json"
        )
    dtype = np.dtype(batch[1]) if batch else None
    return _prepared(readers[name].ops, f"ops of evaluator {name!r}", trained, dtype)


def of_card(source: str) -> Prepared:
    """The preprocessing that the card beside weights gives.

    Args:
      source: of ``InitFrom``, such as ``timm:resnet50.a1_in1k``.

    Raises:
      WeightsError: no card, or one that is not understood.
    """
    found = cards.read(source)
    if found is None:
        raise ConfigError(
            f"{source}: there is no card of preprocessing beside these weights; sources with one "
            f"begin with {', '.join(f'{scheme}:' for scheme in cards.FILES)}"
        )
    card, path = found
    if not isinstance(card, Preprocessing):
        raise ConfigError(f"{path} keeps the shape of every image, and images here get one size")
    return of_preprocessing(card, f"card {path}")


def of_preprocessing(card: Preprocessing, where: str) -> Prepared:
    """What a card says.

    Args:
      card: of weights.
      where: where it comes from, in words.
    """
    return _prepared(card.evaluation(), where, (*card.size, len(card.mean)), None)


def _data(evaluator: Any) -> EvalData | None:
    """The first field that reads data once."""
    fields = dataclasses.fields(evaluator) if dataclasses.is_dataclass(evaluator) else ()
    values = (getattr(evaluator, field.name) for field in fields)
    return next((value for value in values if isinstance(value, EvalData)), None)


def _prepared(
    ops: Sequence[Op], where: str, trained: tuple[int, ...] | None, dtype: np.dtype | None
) -> Prepared:
    height, width, channels = trained or _TRIED
    decoder = next((op for op in ops if isinstance(op, Decode | DecodeCrop)), None)
    mode: Mode | None = {1: "grey", 3: "rgb"}.get(channels)  # pyright: ignore[reportAssignmentType]
    if decoder is not None:
        mode = decoder.mode
        channels = 1 if mode == "grey" else 3
    elif mode is not None:
        ops = (Decode(mode=mode), *ops)
    usable, left_out, first = _tried(tuple(ops), (height, width, channels), where)
    try:
        larger = (height + _OTHER[0], width + _OTHER[1], channels)
        _, _, second = _tried(usable, larger, where)
        any_size = second.shape == first.shape
    except (UserError, ValueError):
        any_size = False
    if not any_size and trained is None:
        raise ConfigError(
            f"{where} do not bring images to one size, and the run does not say which it reads; "
            "name another evaluator, or a card, with --preprocessing"
        )
    if dtype is not None and dtype.kind == "f" and first.dtype.kind != "f":
        raise ConfigError(
            f"{where} read images that are {dtype} in their source, and say not how pixels 0..255 "
            "become such numbers; name another evaluator, or a card, with --preprocessing"
        )
    shape = (first.shape[0], first.shape[1], first.shape[2])
    return Prepared(usable, where, shape, first.dtype, any_size, mode, left_out)


def _tried(
    ops: tuple[Op, ...], shape: tuple[int, int, int], where: str
) -> tuple[tuple[Op, ...], tuple[str, ...], np.ndarray]:
    """The ops that an image alone is enough for, names of the others, and what they make of it."""
    example: dict[str, Any] = {"image": np.zeros(shape, np.uint8)}
    usable: list[Op] = []
    left_out: list[str] = []
    for op in ops:
        asked: list[str] = []
        try:
            changed = op(_Asked(example, asked.append), np.random.default_rng(0))
        except (UserError, ValueError, KeyError, TypeError) as error:
            lacking = [key for key in dict.fromkeys(asked) if repr(key) in str(error)]
            if not lacking:
                raise ConfigError(f"{where}: {type(op).__name__} failed: {error}") from error
            left_out.append(f"{type(op).__name__} (of {', '.join(lacking)})")
            continue
        usable.append(op)
        example = dict(changed)
    image = example.get("image")
    if not isinstance(image, np.ndarray) or image.ndim != 3:
        raise ConfigError(f"{where} do not give one image [H, W, C] under 'image'")
    return tuple(usable), tuple(left_out), image


class _Asked(dict[str, Any]):
    """An example that tells which features were asked for that it has not."""

    def __init__(self, example: Mapping[str, Any], tell: Callable[[str], None]) -> None:
        super().__init__(example)
        self._tell = tell

    def __missing__(self, key: str) -> Any:
        self._tell(key)
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        there = super().__contains__(key)
        if not there:
            self._tell(str(key))
        return there

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, default) if key in self else default


def _told(op: Op) -> str:
    """``Resize(64)``: an op with the sizes that people look for."""
    size = getattr(op, "size", None)
    name = type(op).__name__
    return name if size is None else f"{name}({re.sub(r'[()]', '', str(size)).replace(', ', 'x')})"
