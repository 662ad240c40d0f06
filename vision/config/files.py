"""Files that are there whole or not at all, also after a kill or a power cut."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replace_file(path: Path, *, sync: bool = True, unique: bool = False) -> Iterator[Path]:
    """A path to write to; what lies there at the end takes the place of ``path`` in one step.

    After an error it is deleted and ``path`` is as it was.

    Args:
      path: of the file, in a folder that exists.
      sync: put the file and its new name on the disk before returning. Without it a power cut may
        leave an older file, or an empty one.
      unique: write under a name of its own, for a file that several processes may write at once.
        Otherwise what a killed writer left behind is overwritten by the next one.

    Raises:
      OSError: the file cannot be written.
    """
    middle = f".{uuid.uuid4().hex}" if unique else ""
    temporary = path.with_name(f"{path.name}{middle}.tmp")
    try:
        yield temporary
        if sync:
            _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
