"""What the names of files and folders mean: parts of a data set, and files that are no data.

Names are compared by meaning, in any case: ``Train``, ``seg_train`` and ``training_set`` are the
training part; ``@eaDir`` and ``.AppleDouble`` are folders of a file server, whose thumbnails are
no images of the data set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_PARTS = {
    "train": ("train", "training", "trainval", "trn"),
    "val": ("val", "valid", "validate", "validation", "dev", "devel", "development", "eval"),
    "test": ("test", "testing", "tst", "holdout", "heldout"),
    "prediction": ("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"),
}
_PART_OF = {word: part for part, words in _PARTS.items() for word in words}
_FILLERS = frozenset(
    (
        *("set", "sets", "subset", "split", "splits", "part", "final"),
        *("data", "dataset", "image", "images", "img", "imgs"),
    )
)
_SUFFIXES = ("set", "sets", "data", "split", "images", "imgs", "img")
_SYSTEM_FOLDERS = frozenset(
    (
        "#recycle",
        "#snapshot",
        "#snapshots",
        "$recycle.bin",
        "__macosx",
        "__pycache__",
        "lost+found",
        "lost.dir",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
    )
)


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: ``segTrain_2017`` is ("seg", "train")."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    result = []
    for word in words:
        stem = next(
            (word.removesuffix(s) for s in _SUFFIXES if word.removesuffix(s) in _PART_OF), word
        )
        result.append(stem)
    return tuple(result)


def part_of(name: str) -> str:
    """``train``, ``val``, ``test`` or ``prediction`` for a name that says nothing else, or ""."""
    words = _meaningful(name)
    parts = {_PART_OF.get(word, "") for word in words}
    # A single letter tells domains apart: trainA, trainB.
    parts -= {""} if all(len(word) == 1 for word in words if word not in _PART_OF) else set()
    return parts.pop() if len(parts) == 1 else ""


def look_like_parts(names: Collection[str]) -> bool:
    """Whether folders are parts of a data set and not its classes.

    They are when two of them are different parts by their whole names (a class may be called
    "train", but hardly beside another called "test"), when all of them are the same part, or when
    they name different parts beside the same other word: ``seg_train`` and ``seg_test``, but not
    ``bullet train`` and ``freight train``, nor ``train`` and ``crash test``.
    """
    named_only = {part_of(name) for name in names} - {""}
    if len(named_only) > 1:
        return True
    if not all(mentioned_part(name) for name in names):
        return False
    others = {
        tuple(word for word in _meaningful(name) if word not in _PART_OF and len(word) > 1)
        for name in names
    }
    several = len({mentioned_part(name) for name in names}) > 1
    return others == {()} or (several and len(others) == 1)


def mentioned_part(name: str) -> str:
    """As ``part_of``, also where the name has other words: ``seg_train``; "" for none or two."""
    parts = {_PART_OF[word] for word in _meaningful(name) if word in _PART_OF}
    return parts.pop() if len(parts) == 1 else ""


def _meaningful(name: str) -> list[str]:
    return [word for word in _words(name) if word not in _FILLERS]


def why_left_out(path: Iterable[str], extensions: Collection[str]) -> str:
    """Why a file is no image of the data set, from the components of its path; "" if it is one."""
    *folders, file = path
    for folder in folders:
        if is_system_name(folder):
            return f"in {folder}"
    if is_system_name(file):
        return "hidden"
    dot = file.rfind(".")
    suffix = file[dot:].lower() if dot > 0 else ""
    return "" if suffix in extensions else "not images by their extension"


def is_system_name(name: str) -> bool:
    """Whether an operating system or a file server made a file or folder of this name.

    These are names that begin with a dot (``.AppleDouble``) or, as Synology's and QNAP's, with @
    (``@eaDir``, ``@Recycle``), and bins, snapshots and the like.
    """
    return name.startswith((".", "@")) or name.casefold() in _SYSTEM_FOLDERS
