"""Images that people hand in: files, folders of them, Pillow images and arrays, in one order."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vision.data import files
from vision.data.decode import EXTENSIONS, from_pillow
from vision.data.source import DataError, SourceInfo
from vision.data.sources.folder import left_out_text, walk_files
from vision.data.sources.folder_names import why_left_out

Mode = Literal["rgb", "grey"]
# What one image is, or a folder of them.
Input = str | os.PathLike[str] | bytes | Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True)
class Refused:
    """In the place of an image that is not opened.

    Attributes:
      reason: why.
    """

    reason: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A source of ``{"image": encoded bytes or uint8 [H, W, C]}``, in the order they were given.

    Attributes:
      items: paths, bytes of files, Pillow images, uint8 arrays, or ``Refused``.
      names: one for each: the path, ``image 3`` for the fourth that is none.
      mode: what Pillow images and arrays are converted to, as ``decode`` converts files; None
        leaves arrays as they are, and refuses all else.
    """

    items: tuple[Any, ...]
    names: tuple[str, ...]
    mode: Mode | None = "rgb"

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            "images", len(self.items), (), {"image": "encoded bytes, or uint8[H,W,C]"}
        )

    def __len__(self) -> int:
        return len(self.items)

    def key(self, index: int) -> str:
        return self.names[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        if isinstance(item, Refused):
            raise DataError(item.reason)
        if isinstance(item, str | bytes):
            if self.mode is None:
                raise DataError("is a file, but this model's images have channels that no file has")
            return {"image": _read(item) if isinstance(item, str) else item}
        if self.mode is None:
            if isinstance(item, np.ndarray) and item.ndim == 3:
                return {"image": item}
            raise DataError("this model's images have channels that only arrays [H, W, C] have")
        return {"image": _converted(item, self.mode)}


def _read(path: str) -> bytes:
    if not files.is_remote(path):
        try:
            regular = stat.S_ISREG(os.stat(path).st_mode)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path}: cannot be read: {reason}") from error
        if not regular:  # opening a pipe would wait for somebody to write into it
            raise DataError(f"{path}: is not a regular file")
    return files.read_bytes(path)


def _converted(item: Any, mode: Mode) -> np.ndarray:
    if isinstance(item, np.ndarray):
        plain = item.shape[2] == (3 if mode == "rgb" else 1) if item.ndim == 3 else False
        if plain:
            return item
        item = Image.fromarray(item[:, :, 0] if item.ndim == 3 and item.shape[2] == 1 else item)
    return from_pillow(item, mode)


def gather(given: Input | Iterable[Input], mode: Mode | None = "rgb") -> tuple[Images, str]:
    """All images that are meant, and what was left out of folders, in words ("" for nothing).

    The order is that of what is given, and inside a folder that of the paths. What is given twice
    is there twice. Folders are walked by the rules of data sources: hidden files, those that file
    servers keep and those without an extension of an image are left out, and links to folders are
    an error. A file that is given itself is read whatever its name. Nothing is opened.

    Args:
      given: one or several paths of files or folders, bytes of an encoded file, Pillow images, or
        uint8 arrays [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] (with transparency); also an array
        [N, H, W, C].
      mode: see ``Images``.

    Raises:
      DataError: no such file or folder, no image in all that is given, or something else than an
        image.
    """
    items: list[Any] = []
    names: list[str] = []
    left_out: dict[str, str] = {}
    for one in _each(given):
        if isinstance(one, str | os.PathLike):
            path = os.fspath(one)
            for item, name in _of_path(path, left_out):
                items.append(item)
                names.append(name)
        else:
            name = f"image {len(names)}"
            items.append(_checked(one, name, mode))
            names.append(name)
    told = f"{len(left_out)} {left_out_text(left_out, examples=5)}" if left_out else ""
    if not items:
        raise DataError(
            "there are no images"
            + (f": {told}" if told else "; give files, or folders with some in them")
            + f". Files in folders count by their extension ({', '.join(EXTENSIONS)}); others are "
            "read when they are given themselves"
        )
    return Images(tuple(items), tuple(names), mode), told


def _each(given: Any) -> Sequence[Any]:
    if isinstance(given, str | bytes | os.PathLike | Image.Image):
        return (given,)
    if isinstance(given, np.ndarray):
        return list(given) if given.ndim == 4 else (given,)
    if isinstance(given, Iterable):
        return list(given)
    return (given,)


def _of_path(path: str, left_out: dict[str, str]) -> Iterable[tuple[Any, str]]:
    if not isinstance(path, str):
        path = os.fsdecode(path)
    if files.is_remote(path):
        return ((path, path),)
    path = os.path.expanduser(path)
    if "\0" in path or not os.path.lexists(path):
        raise DataError(f"{path}: no such file or folder")
    if not os.path.isdir(path):
        return ((path, path),)
    found: list[tuple[Any, str]] = []
    real_root = os.path.realpath(path)
    for relative in walk_files(Path(path)):
        full = os.path.join(path, relative)
        if reason := why_left_out(relative.split(os.sep), EXTENSIONS) or _why_no_file(full):
            left_out[full] = reason
        else:
            found.append((_unless_it_leaves(full, real_root), full))
    return found


def _why_no_file(path: str) -> str:
    """Pipes, sockets and devices are left out; a link to nothing is an unreadable image."""
    try:
        return "" if stat.S_ISREG(os.stat(path).st_mode) else "not regular files"
    except OSError:
        return ""


def _unless_it_leaves(path: str, real_root: str) -> Any:
    if os.path.islink(path):
        target = os.path.realpath(path)
        if os.path.commonpath([target, real_root]) != real_root:
            return Refused(
                f"is a link to {target}, outside {real_root}; copy the file, or give that path"
            )
    return path


def _checked(item: Any, name: str, mode: Mode | None) -> Any:
    if isinstance(item, bytes | Image.Image):
        return item
    if not isinstance(item, np.ndarray):
        raise DataError(
            f"{name} is a {type(item).__module__}.{type(item).__name__}; give a path, a file's "
            "bytes, a Pillow image or a NumPy array (np.asarray(x))"
        )
    if item.dtype != np.uint8:
        raise DataError(
            f"{name} is an array of {item.dtype}, whose range is not known: give uint8, 0..255, "
            "before any normalisation, which the model's preprocessing does"
        )
    good = item.ndim == 2 or (item.ndim == 3 and (mode is None or item.shape[2] in (1, 3, 4)))
    if not good or 0 in item.shape:
        raise DataError(
            f"{name} is an array of shape {list(item.shape)}; give [H, W], or [H, W, C] with 1, 3 "
            "or 4 channels"
        )
    return item
