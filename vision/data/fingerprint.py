"""Names of content: what a source holds, and what ops do to it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np

from vision.data import decode
from vision.data import ops as ops_package
from vision.data.ops.base import Op
from vision.data.source import DataError, Source

_FORMAT = 1
_PACKAGES = ("numpy", "pillow", "simplejpeg", "opencv-python-headless")


def fingerprint(source: Source) -> str:
    """A hash of a source's content: its ``fingerprint()``, or one of all its records."""
    own = getattr(source, "fingerprint", None)
    if callable(own):
        return f"{len(source)}/{own()}"
    digest = hashlib.sha256()
    for index in range(len(source)):
        try:
            example = source[index]
        except DataError as error:
            example = {"error": str(error)}
        digest.update(f"{index}/{source.key(index)}".encode())
        for name in sorted(example):
            _hash_value(digest, name, example[name])
    return f"{len(source)}/{digest.hexdigest()}"


def _hash_value(digest: Any, name: str, value: Any) -> None:
    if isinstance(value, bytes | bytearray | memoryview):
        data, kind = bytes(value), "bytes"
    elif isinstance(value, str):
        data, kind = value.encode(), "str"
    else:
        array = np.asarray(value)
        kind = f"{array.dtype.str}{array.shape}"
        if array.dtype.hasobject:  # lists of unequal length and the like
            data = json.dumps(value, sort_keys=True, default=repr).encode()
        else:
            data = np.ascontiguousarray(array).tobytes()
    digest.update(f"/{name}/{kind}/{len(data)}/".encode())
    digest.update(data)


def ops_identity(ops: tuple[Op, ...]) -> str:
    """Arguments and code of the ops, and versions of what they call."""
    files = sorted(Path(inspect.getfile(ops_package)).parent.rglob("*.py"))
    files += [Path(inspect.getfile(decode)), *(Path(inspect.getfile(type(op))) for op in ops)]
    code = hashlib.sha256()
    for file in dict.fromkeys(files):
        code.update(file.read_bytes())
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    named = [f"{type(op).__module__}.{op!r}" for op in ops]
    return json.dumps([_FORMAT, named, code.hexdigest(), versions])
