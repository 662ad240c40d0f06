"""Video clips as folders of frame images."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data import files
from vision.data.decode import EXTENSIONS, DecodeError, decode
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.sources.folder import class_folders, left_out_text, refuse_parts, walk_files
from vision.data.sources.folder_names import is_system_name, why_left_out
from vision.data.sources.splits import valid_index
from vision.data.table import fields_only

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
@checked
class Frames:
    """``root/class_name/clip_name/0001.jpg``, ...: every ``stride``-th frame, T of them.

    Features: ``frames``, a tuple of T encoded images, or ``video`` uint8[T, H, W, 3], 0..255, RGB
    when ``decoded``; ``frames_valid`` bool[T]; ``start`` int32, the first frame's number; and
    ``label``. Frames are in natural order (``f2.jpg`` before ``f10.jpg``). A clip's frames are
    listed once, on first use; hidden files, and what file servers keep beside images, are left out,
    left_out_text and logged as in ``Folder``.

    Attributes:
      root: the folder, a local one.
      frames: T, at least 1.
      stride: distance of the frames taken, at least 1.
      windows: which frames of a clip: those from the ``first`` on, the ``middle`` ones, or ``all``
        windows side by side, each a record of its own (what is left at the end is not used, and
        left_out_text in ``info``).
      short: a clip of fewer than (T - 1) * stride + 1 frames is an ``error``, or its last frame is
        repeated, with ``frames_valid`` False there: ``repeat``.
      labelled: whether clips lie in class folders; else ``root/clip_name/0001.jpg``, no label.
      decoded: whether frames are decoded and stacked here; they must then have one size.

    Raises:
      DataError: on first use, when a folder is missing or empty, a clip is too short, files that
        are no images lie among the frames, or a link leads out of the root.
    """

    root: str
    frames: Positive[int] = 8
    stride: Positive[int] = 1
    windows: Literal["first", "middle", "all"] = "first"
    short: Literal["error", "repeat"] = "error"
    labelled: bool = True
    decoded: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @property
    def info(self) -> SourceInfo:
        clips, t = self._clips, self.frames
        unused = f"; {clips.unused} frames at the ends unused" if clips.unused else ""
        left_out = ""
        if clips.left_out:
            left_out = f"; {len(clips.left_out)} other {left_out_text(clips.left_out)}"
        what = f"{t} frames, stride {self.stride}, of {len(clips.frames)} clips{unused}{left_out}"
        features = (
            {"video": f"uint8[{t},H,W,3], 0..255, RGB: {what}"}
            if self.decoded
            else {"frames": f"tuple of encoded bytes: {what}"}
        )
        features |= {"frames_valid": f"bool[{t}]", "start": "int32, number of the first frame"}
        if self.labelled:
            features["label"] = f"int32, 0..{len(clips.class_names) - 1}"
        name = Path(self.root).resolve().name
        return SourceInfo(name, len(self), clips.class_names, features, homepage=self.root)

    def __len__(self) -> int:
        return len(self._clips.windows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, start = self._clips.windows[valid_index(index, self)]
        paths = self._clips.frames[clip]
        numbers = start + self.stride * np.arange(self.frames)
        valid = numbers < len(paths)
        chosen = [os.path.join(self.root, paths[i]) for i in np.minimum(numbers, len(paths) - 1)]
        data = {path: files.read_below(self.root, path) for path in dict.fromkeys(chosen)}
        example: dict[str, Any] = {"frames_valid": valid, "start": np.int32(start)}
        if self.decoded:
            images = {path: _decoded(path, content) for path, content in data.items()}
            sizes = {image.shape[:2]: path for path, image in images.items()}
            if len(sizes) > 1:
                raise DataError(f"frames of one clip have several sizes, {sizes}; resize them")
            example["video"] = np.stack([images[path] for path in chosen])
        else:
            example["frames"] = tuple(data[path] for path in chosen)
        if self.labelled:
            example["label"] = np.int32(self._clips.labels[clip])
        return example

    def column(self, feature: str) -> list[Any]:
        """``label`` or ``start`` of all records, without opening an image."""
        if feature == "label" and self.labelled:
            return [np.int32(self._clips.labels[clip]) for clip, _ in self._clips.windows]
        if feature == "start":
            return [np.int32(start) for _, start in self._clips.windows]
        return [self[i][feature] for i in range(len(self))]

    def fingerprint(self) -> str:
        """Changes with the arguments and with path, size or time of any frame."""
        return content(
            self, (os.path.join(self.root, path) for clip in self._clips.frames for path in clip)
        )

    def key(self, index: int) -> str:
        clip, start = self._clips.windows[index]
        path = os.path.join(self.root, os.path.dirname(self._clips.frames[clip][0]))
        return f"{path}@{start}" if self.windows == "all" else path

    @functools.cached_property
    def _clips(self) -> _Clips:
        root = Path(self.root)
        class_names = class_folders(root)
        if self.labelled:
            refuse_parts(root, class_names)
        frames_of: dict[str, list[str]] = {}
        left_out: dict[str, str] = {}
        for path in walk_files(root):
            if any(map(is_system_name, path.split(os.sep))):
                left_out[path] = why_left_out(path.split(os.sep), EXTENSIONS)
                continue
            folder = os.path.dirname(path)
            depth = len(Path(path).parts)
            if depth != (3 if self.labelled else 2):
                layout = "CLASS/CLIP/FRAME" if self.labelled else "CLIP/FRAME"
                raise DataError(f"{root / path}: files must be {root}/{layout}; see labelled")
            if os.path.splitext(path)[1].lower() not in EXTENSIONS:
                raise DataError(f"{root / path}: is no image by its extension; move it elsewhere")
            frames_of.setdefault(folder, []).append(path)
        with_frames = {folder.split(os.sep)[0] for folder in frames_of}
        if empty := [name for name in class_names if name not in with_frames]:
            raise DataError(f"{root / empty[0]}: no frames in it; add some or remove the folder")
        if left_out:
            log.warning("%s: %d %s", root, len(left_out), left_out_text(left_out, examples=5))
        clips = [sorted(paths, key=_natural) for paths in frames_of.values()]
        span = (self.frames - 1) * self.stride + 1
        windows: list[tuple[int, int]] = []
        unused = 0
        for clip, paths in enumerate(clips):
            count = len(paths)
            if count < span and self.short == "error":
                raise DataError(
                    f"{root / os.path.dirname(paths[0])}: {count} frames, but {self.frames} at "
                    f"stride {self.stride} need {span}; take fewer, or set short='repeat'"
                )
            if self.windows == "all":
                # A window is followed by the next frame that keeps the stride.
                step = self.frames * self.stride
                starts = list(range(0, max(count - span, 0) + 1, step))
                unused += max(count - (starts[-1] + span), 0)
            else:
                spare = max(count - span, 0)
                starts = [spare // 2 if self.windows == "middle" else 0]
            windows += [(clip, start) for start in starts]
        labels = [0] * len(clips)
        if self.labelled:
            number = {name: i for i, name in enumerate(class_names)}
            labels = [number[paths[0].split(os.sep)[0]] for paths in clips]
        names = class_names if self.labelled else ()
        return _Clips(clips, labels, windows, names, unused, left_out)


@dataclasses.dataclass(frozen=True, eq=False)
class _Clips:
    frames: list[list[str]]
    labels: list[int]
    windows: list[tuple[int, int]]
    class_names: tuple[str, ...]
    unused: int
    left_out: dict[str, str]


def _decoded(path: str, data: bytes) -> np.ndarray:
    try:
        return decode(data)
    except DecodeError as error:
        raise DataError(f"{path}: {error}") from None


def _natural(path: str) -> tuple[Any, ...]:
    """Digits compare as numbers; the path itself decides between ``f1`` and ``f01``."""
    parts = re.split(r"(\d+)", os.path.basename(path))
    return (*((int(p) if p.isdecimal() else p) for p in parts), path)
