"""A folder of images, one sub-folder per class."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vision.config.ranges import Rate, Rule, checked
from vision.data import files
from vision.data.decode import EXTENSIONS
from vision.data.fingerprint import content
from vision.data.labels import label_form, label_text, refuse_twins
from vision.data.source import DataError, SourceInfo
from vision.data.sources.folder_names import (
    is_system_name,
    look_like_parts,
    mentioned_part,
    part_of,
    why_left_out,
)

log = logging.getLogger(__name__)

_EXTENSION = Rule("like '.jpg', in lower case", lambda e: e.startswith(".") and e == e.lower())


@dataclasses.dataclass(frozen=True)
@checked
class Folder:
    """``root/class_name/**/*.jpg``: still encoded images under ``image``, and ``label``.

    Classes are the sub-folders of the root, sorted as text (``10`` before ``2``, as torchvision's
    ImageFolder has them); files are ordered by class,
    then path. The list is read once, on first use. Files without an image extension, hidden ones,
    and what file servers keep beside images (``@eaDir``, ``#recycle``), are left out, counted,
    logged with the reason, and mentioned in ``info``. Everything else that is not an image in a
    class folder is an error, and so are folders that are parts of a data set (``Train``, ``Test``)
    where classes are expected.

    Three ways to say which files are meant:

    * ``part="all"``: every file under ``root``.
    * ``part="train"`` or ``"val"`` with ``fraction=0``: the folder ``root/train`` or
      ``root/val``, or the only one of that meaning (``Train``, ``validation``, ``seg_train``). The
      classes are those of the training folder, so both parts number them alike; ``root/val`` may
      lack some of them.
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
        lie outside class folders, two classes differ only in case or form, or a link leaves the
        root.
    """

    root: str
    part: Literal["all", "train", "val"] = "all"
    fraction: Rate = 0.0
    extensions: tuple[Annotated[str, _EXTENSION], ...] = EXTENSIONS

    def __post_init__(self) -> None:
        if self.fraction and self.part == "all":
            raise ValueError("fraction is set but part='all': set part to 'train' or 'val'")

    @functools.cached_property
    def path(self) -> Path:
        """The folder whose sub-folders are the classes."""
        root = Path(self.root)
        return root if self.part == "all" or self.fraction else _part_folder(root, self.part)

    @property
    def info(self) -> SourceInfo:
        listed = self._files
        kinds = collections.Counter(Path(p).suffix.lower() for p in listed.paths)
        counts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        left_out = ""
        if listed.left_out:
            left_out = f"; {len(listed.left_out)} other {left_out_text(listed.left_out)}"
        name = self.path.resolve().name
        return SourceInfo(
            name=f"{name}/{self.part}" if self.fraction else name,
            num_examples=len(listed.paths),
            class_names=listed.class_names,
            features={
                "image": f"encoded bytes ({counts}{left_out})",
                "label": f"int32, 0..{len(listed.class_names) - 1}",
            },
            homepage=str(self.path),
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Paths, relative to ``path``, of the files that are no images of the data set."""
        return tuple(self._files.left_out)

    def __len__(self) -> int:
        return len(self._files.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        data = files.read_bytes(self.key(index))
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
        refuse_parts(self.path, names)
        if self.path != Path(self.root) and self.part != "train":
            train = _part_folder(Path(self.root), "train")
            class_names = class_folders(train) if train.is_dir() else names
            unknown = sorted(set(names) - set(class_names))
            if unknown:
                raise DataError(
                    f"{self.path / unknown[0]}: {train} has no class {unknown[0]!r}; rename or "
                    "remove the folder"
                )
        images: dict[str, list[str]] = {name: [] for name in class_names}
        left_out: dict[str, str] = {}
        inner_folders: dict[str, set[str]] = {name: set() for name in class_names}
        real_root = os.path.realpath(self.path)
        for path in walk_files(self.path):
            components = path.split(os.sep)
            if reason := why_left_out(components, self.extensions):
                left_out[path] = reason
            elif len(components) == 1:
                raise DataError(
                    f"{self.path / path}: images belong into class folders; move it to "
                    f"{self.path}/CLASS_NAME/{path}"
                )
            else:
                _refuse_leaving_link(self.path / path, real_root)
                images[components[0]].append(path)
                inner_folders[components[0]].update(components[1:-1][:1])
        for name in names:
            if not images[name]:
                raise DataError(
                    f"{self.path / name}: no image ({', '.join(self.extensions)}) in this class "
                    "folder; add some or remove the folder"
                )
            if len(inner_folders[name]) > 1 and look_like_parts(inner_folders[name]):
                raise DataError(
                    f"{self.path / name}: {', '.join(sorted(inner_folders[name])[:5])} look like "
                    f"parts below a class; put the parts above the classes: PART/{name}/*.jpg"
                )
        if left_out:
            told = left_out_text(left_out, examples=5)
            log.warning("%s: %d %s", self.path, len(left_out), told)
        return self._select(class_names, images, left_out)

    def _select(
        self, class_names: tuple[str, ...], images: dict[str, list[str]], left_out: dict[str, str]
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
    left_out: dict[str, str]


def left_out_text(left_out: Mapping[str, str], examples: int = 0) -> str:
    """How many files are left out, by reason, and some of them: paths with their reasons."""
    counts = collections.Counter(left_out.values())
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    paths = list(left_out)[:examples]
    more = ", ..." if examples and len(left_out) > examples else ""
    listed = f": {', '.join(paths)}{more}" if paths else ""
    return f"{'file' if len(left_out) == 1 else 'files'} left out ({reasons}){listed}"


def _part_folder(root: Path, part: str) -> Path:
    """``root/part``, or the only folder in ``root`` whose name means this part."""
    if (root / part).is_dir() or not root.is_dir():
        return root / part
    names = [e.name for e in os.scandir(root) if e.is_dir() and not is_system_name(e.name)]
    matches = sorted(name for name in names if part_of(name) == part)
    if not matches and look_like_parts(names):
        matches = sorted(name for name in names if mentioned_part(name) == part)
    if len(matches) > 1:
        raise DataError(
            f"{root}: {', '.join(matches)} all look like part {part!r}; set root to one of them"
        )
    return root / (matches[0] if matches else part)


def refuse_parts(path: Path, names: Iterable[str]) -> None:
    """Raises DataError where the folders ``names`` in ``path`` are parts and not classes."""
    names = tuple(names)
    if names and look_like_parts(names):
        raise DataError(
            f"{path}: {', '.join(sorted(names)[:5])} look like parts, not classes; set root to the "
            "folder that holds them and part to 'train' or 'val' with fraction=0, or root to one "
            "of them"
        )


def class_folders(path: Path) -> tuple[str, ...]:
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {what}; expected {path}/CLASS_NAME/*.jpg")
    names = sorted(e.name for e in os.scandir(path) if e.is_dir() and not is_system_name(e.name))
    if not names:
        raise DataError(f"{path}: no class folders in it; expected {path}/CLASS_NAME/*.jpg")
    for name in names:
        if label_text(name) == "-1" or not label_form(name):
            raise DataError(
                f"{path / name}: a folder called {name!r} stands for no label; rename or remove it"
            )
    refuse_twins((str(path / name), name) for name in names)
    return tuple(names)


def walk_files(root: Path) -> list[str]:
    """All files under ``root``, relative to it, sorted by path component."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    paths: list[str] = []
    for folder, folders, names in os.walk(root, onerror=refuse):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise DataError(
                    f"{os.path.join(folder, name)}: is a link to a folder; such links are not "
                    "followed: put the files there, or set root to the folder itself"
                )
        paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(paths, key=lambda p: p.split(os.sep))


def _refuse_leaving_link(path: Path, real_root: str) -> None:
    if path.is_symlink():
        target = os.path.realpath(path)
        if os.path.commonpath([target, real_root]) != real_root:
            raise DataError(
                f"{path}: is a link to {target}, outside {real_root}; copy the file instead"
            )


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
