"""A folder of images, one sub-folder per class."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from absl import logging

from vision.config.ranges import Rate, Rule, checked
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_PART_NAMES = {"train", "val", "valid", "validation", "test"}


_EXTENSION = Rule("like '.jpg', in lower case", lambda e: e.startswith(".") and e == e.lower())


@dataclasses.dataclass(frozen=True)
@checked
class Folder:
    """``root/class_name/**/*.jpg``: still encoded images under ``image``, and ``label``.

    Classes are the sub-folders of the root in alphabetical order; files are ordered by class,
    then path. The list is read once, on first use. Files without an image extension, and hidden
    ones, are left out, counted, logged, and mentioned in ``info``. Everything else that is not
    an image in a class folder is an error.

    Three ways to say which files are meant:

    * ``part="all"``: every file under ``root``.
    * ``part="train"`` or ``"val"`` with ``fraction=0``: the folder ``root/train`` or
      ``root/val``. The classes are those of ``root/train``, so both parts number them alike;
      ``root/val`` may lack some of them.
    * ``part="train"`` or ``"val"`` with ``fraction=0.1``: of every class under ``root`` the
      tenth of the files whose relative paths have the smallest SHA-256 is ``val``, the rest is
      ``train``. A class of two or more files is in both.

    Attributes:
      root: the folder.
      part: ``all``, ``train`` or ``val``.
      fraction: share of every class held out for ``val``; 0 uses sub-folders instead.
      extensions: what counts as an image file, in lower case.

    Raises:
      DataError: on first use, when the folder is missing or empty, a class has no image, images
        lie outside class folders, two classes differ only in case, or a link leaves the root.
    """

    root: str
    part: Literal["all", "train", "val"] = "all"
    fraction: Rate = 0.0
    extensions: tuple[Annotated[str, _EXTENSION], ...] = IMAGE_EXTENSIONS

    def __post_init__(self) -> None:
        if self.fraction and self.part == "all":
            raise ValueError("fraction is set but part='all': set part to 'train' or 'val'")

    @property
    def path(self) -> Path:
        """The folder whose sub-folders are the classes."""
        by_folder = self.part != "all" and not self.fraction
        return Path(self.root) / self.part if by_folder else Path(self.root)

    @property
    def info(self) -> SourceInfo:
        files = self._files
        kinds = collections.Counter(Path(p).suffix.lower() for p in files.paths)
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        left_out = f"; {len(files.left_out)} other files left out" if files.left_out else ""
        name = self.path.resolve().name
        return SourceInfo(
            name=f"{name}/{self.part}" if self.fraction else name,
            num_examples=len(files.paths),
            class_names=files.class_names,
            features={
                "image": f"encoded bytes ({counts}{left_out})",
                "label": f"int32, 0..{len(files.class_names) - 1}",
            },
            homepage=str(self.path),
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Paths, relative to ``path``, of the files that are not images by their extension."""
        return self._files.left_out

    def __len__(self) -> int:
        return len(self._files.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.path / self._files.paths[index]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        return {"image": data, "label": np.int32(self._files.labels[index])}

    def column(self, feature: str) -> np.ndarray:
        """The labels of all records, without opening a file."""
        return {"label": self._files.labels}[feature]

    def fingerprint(self) -> str:
        """Changes with the arguments and with path, size or time of any image."""
        return content(self, map(self.key, range(len(self))))

    def key(self, index: int) -> str:
        return str(self.path / self._files.paths[index])

    @functools.cached_property
    def _files(self) -> _Files:
        names = class_folders(self.path)
        class_names = names
        if self.path == Path(self.root) and set(names) <= _PART_NAMES:
            raise DataError(
                f"{self.path}: {', '.join(names)} look like parts, not classes; set part to "
                "'train' or 'val', or root to one of them"
            )
        if self.path != Path(self.root) and self.part != "train":
            train = Path(self.root) / "train"
            class_names = class_folders(train) if train.is_dir() else names
            unknown = sorted(set(names) - set(class_names))
            if unknown:
                raise DataError(
                    f"{self.path / unknown[0]}: {train} has no class {unknown[0]!r}; rename or "
                    "remove the folder"
                )
        images: dict[str, list[str]] = {name: [] for name in class_names}
        left_out: list[str] = []
        real_root = os.path.realpath(self.path)
        for path in walk_files(self.path):
            top, _, inner = path.partition(os.sep)
            suffix = os.path.splitext(path)[1].lower()
            if suffix not in self.extensions or is_hidden(path):
                left_out.append(path)
            elif not inner:
                raise DataError(
                    f"{self.path / path}: images belong into class folders; move it to "
                    f"{self.path}/CLASS_NAME/{path}"
                )
            else:
                _refuse_leaving_link(self.path / path, real_root)
                images[top].append(path)
        for name in names:
            if not images[name]:
                raise DataError(
                    f"{self.path / name}: no image ({', '.join(self.extensions)}) in this class "
                    "folder; add some or remove the folder"
                )
        if left_out:
            logging.warning(
                "%s: %d files left out, not images by their extension: %s%s",
                *(self.path, len(left_out), ", ".join(left_out[:5])),
                ", ..." if len(left_out) > 5 else "",
            )
        return self._select(class_names, images, tuple(left_out))

    def _select(
        self, class_names: tuple[str, ...], images: dict[str, list[str]], left_out: tuple[str, ...]
    ) -> _Files:
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            chosen = images[name]
            if self.fraction:
                held_out = _held_out(chosen, self.fraction)
                chosen = [p for p in chosen if (p in held_out) == (self.part == "val")]
            paths += chosen
            labels += [label] * len(chosen)
        if not paths:
            raise DataError(f"{self.path}: no file falls into part={self.part!r}; raise fraction")
        return _Files(tuple(paths), np.asarray(labels, np.int32), class_names, left_out)


@dataclasses.dataclass(frozen=True, eq=False)
class _Files:
    paths: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    left_out: tuple[str, ...]


def class_folders(path: Path) -> tuple[str, ...]:
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {what}; expected {path}/CLASS_NAME/*.jpg")
    names = sorted(e.name for e in os.scandir(path) if e.is_dir() and not is_hidden(e.name))
    if not names:
        raise DataError(f"{path}: no class folders in it; expected {path}/CLASS_NAME/*.jpg")
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise DataError(
                f"{path / name}: differs from class folder {other!r} only in case; merge them"
            )
    return tuple(names)


def walk_files(root: Path) -> list[str]:
    """All files under ``root``, relative to it, sorted by path component."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    paths: list[str] = []
    for folder, folders, files in os.walk(root, onerror=refuse):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise DataError(
                    f"{os.path.join(folder, name)}: is a link to a folder; such links are not "
                    "followed: put the files there, or set root to the folder itself"
                )
        paths += [os.path.relpath(os.path.join(folder, name), root) for name in files]
    return sorted(paths, key=lambda p: p.split(os.sep))


def _refuse_leaving_link(path: Path, real_root: str) -> None:
    if path.is_symlink():
        target = os.path.realpath(path)
        if os.path.commonpath([target, real_root]) != real_root:
            raise DataError(
                f"{path}: is a link to {target}, outside {real_root}; copy the file instead"
            )


def is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split(os.sep))


def _held_out(paths: list[str], fraction: float) -> set[str]:
    """The ``fraction`` of ``paths`` with the smallest hashes; neither none nor all of them."""
    count = round(fraction * len(paths))
    if len(paths) >= 2:
        count = min(max(count, 1), len(paths) - 1)
    else:
        count = 0

    def digest(path: str) -> bytes:
        return hashlib.sha256(Path(path).as_posix().encode()).digest()

    return set(sorted(paths, key=digest)[:count])
