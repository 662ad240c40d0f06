"""Files here and elsewhere: a plain path is local, ``gs://``, ``s3://``, ``hf://``, ``memory://``
and the like go through fsspec, which needs the store's own package (gcsfs, s3fs, ...).

Every failure is a DataError that names the file.
"""

from __future__ import annotations

import contextlib
import glob
import os
import posixpath
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from vision.config.files import replace_file
from vision.config.repeated import first_repeated
from vision.data.source import DataError

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_EXPANSION = 1_000_000


def is_remote(path: str) -> bool:
    return "://" in path


def parent(path: str) -> str:
    """The folder that ``path`` is in."""
    return path.rpartition("/")[0] if is_remote(path) else os.path.dirname(path) or "."


def base_name(path: str) -> str:
    return path.rpartition("/")[2] if is_remote(path) else os.path.basename(path)


def inside(root: str, relative: str) -> str:
    """``root/relative``, where ``relative`` stays below ``root`` by its text.

    Raises:
      DataError: it is empty, absolute, a URL, or goes up.
    """
    normal = posixpath.normpath(relative.replace("\\", "/")) if relative else ""
    goes_up = normal == ".." or normal.startswith(("../", "/"))
    if not normal or normal == "." or goes_up or is_remote(relative) or "\0" in relative:
        raise DataError(f"{relative!r} is not a path below {root}; write it relative to that")
    if re.match(r"[A-Za-z]:", normal):
        raise DataError(f"{relative!r} has a drive letter; write it relative to {root}")
    return f"{root.rstrip('/')}/{normal}" if is_remote(root) else os.path.join(root, normal)


def read_below(root: str, path: str) -> bytes:
    """The file ``path``, whose links, resolved, may not leave ``root``."""
    if not is_remote(path):
        real, real_root = os.path.realpath(path), os.path.realpath(root)
        if os.path.commonpath([real, real_root]) != real_root:
            raise DataError(f"{path}: leads to {real}, outside {real_root}; copy the file instead")
    return read_bytes(path)


def read_bytes(path: str) -> bytes:
    with opened(path) as file:
        return file.read()


def read_range(path: str, offset: int, size: int) -> bytes:
    """``size`` bytes from ``offset`` on; DataError when the file is shorter."""
    with opened(path) as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise DataError(f"{path}: ends {size - len(data)} bytes early; was it replaced or cut?")
    return data


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A seekable binary file to read from. A pipe, socket or device is refused and never waited
    for."""
    with _named(path):
        if is_remote(path):
            file = _system(path).open(path, "rb")
        else:
            file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115
    with file, _named(path):
        if not is_remote(path) and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{path}: is a pipe, socket or device, and no regular file; remove it")
        yield file


def size_and_stamp(path: str) -> tuple[int, str]:
    """Size in bytes, and a text that changes when the file does (time, checksum or version)."""
    with _named(path):
        if not is_remote(path):
            status = os.stat(path)
            return status.st_size, str(status.st_mtime_ns)
        system = _system(path)
        return int(system.size(path)), str(system.ukey(path))


def expand(paths: str | tuple[str, ...]) -> tuple[str, ...]:
    """Paths with ``{000..146}``, ``*``, ``?`` and ``[...]`` expanded, each pattern sorted.

    Raises:
      DataError: a pattern matches nothing, or a file is named twice.
    """
    expanded: list[str] = []
    for pattern in (paths,) if isinstance(paths, str) else paths:
        for path in _braces(pattern):
            matches = _glob(path) if re.search(r"[*?\[]", path) else [path]
            if not matches:
                raise DataError(f"{path}: no such file")
            expanded += matches
    if not expanded:
        raise DataError("no files are given")
    if (repeated := first_repeated(expanded)) is not None:
        raise DataError(f"{repeated}: is given twice; its records would be there twice")
    return tuple(expanded)


def write_whole(path: str, data: bytes) -> None:
    """Writes a local file so that readers see all of it or nothing, also beside other writers.

    Raises:
      OSError: the folder cannot be written.
    """
    with replace_file(Path(path), unique=True) as temporary:
        temporary.write_bytes(data)


def _open_at_once(path: str, flags: int) -> int:
    """Opening a pipe would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # fsspec raises FileNotFoundError with only the path in it.
        reason = error.strerror or f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: cannot be read: {reason}") from error


def _system(path: str) -> Any:
    try:
        import fsspec

        return fsspec.core.url_to_fs(path)[0]
    except ImportError as error:
        raise DataError(f"{path}: {error}; install the package of this store") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _glob(pattern: str) -> list[str]:
    if not is_remote(pattern):
        return sorted(glob.glob(pattern))
    system = _system(pattern)
    with _named(pattern):
        return sorted(system.unstrip_protocol(path) for path in system.glob(pattern))


def _braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    if not 0 <= int(last) - int(first) < _MAX_EXPANSION:
        raise DataError(f"{pattern}: {{{first}..{last}}} must count up")
    head, tail = pattern[: match.start()], pattern[match.end() :]
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    return [path for number in numbers for path in _braces(f"{head}{number}{tail}")]
