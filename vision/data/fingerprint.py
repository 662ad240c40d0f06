"""Hashes of a source's content and of the ops applied to it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vision.data import files
from vision.data.source import DataError, Source

if TYPE_CHECKING:
    from vision.data.ops.base import Op

_FORMAT = 2
_HERE = Path(__file__).parent
_PACKAGES = ("numpy", "pillow", "simplejpeg", "opencv-python-headless")
_READING = (
    "cells",
    "columns",
    "decode",
    "descriptions",
    "files",
    "labels",
    "pixel_formats",
    "regions",
    "table",
)


def fingerprint(source: Source) -> str:
    """A hash of a source's content: its ``fingerprint()``, or one of all its records."""
    method = getattr(source, "fingerprint", None)
    if callable(method):
        return f"{len(source)}/{method()}"
    digest = hashlib.sha256()
    for index in range(len(source)):
        try:
            example = source[index]
        except DataError as error:
            example = {"error": str(error)}
        digest.update(f"{index}/{source.key(index)}".encode())
        for name in sorted(example):
            hash_value(digest, name, example[name])
    return f"{len(source)}/{digest.hexdigest()}"


def content(source: Any, paths: Iterable[str] = (), code: Iterable[Path] = ()) -> str:
    """A hash of what a source's records are made from, without opening one.

    For the ``fingerprint`` of sources whose records depend on nothing else than their arguments
    (dataclass fields, sources among them), on files, and on code. A file that is written anew
    counts as changed, also where its bytes are the same; one that keeps path, size and time of
    change counts as unchanged.

    Args:
      source: a dataclass.
      paths: of all files that the records come from; one that is not there is noted as missing.
      code: modules that make the records, beside the source's own and those that all share.

    Raises:
      ValueError: an argument has no lasting name, as a ``functools.partial`` has none.
    """
    modules = {_HERE / f"{name}.py" for name in _READING} | set(code)
    description = json.dumps([_FORMAT, _named(source, modules, outermost=True)])
    digest = hashlib.sha256(f"{description}/{_code(modules)}".encode())
    for path in paths:
        try:
            stamp = str(files.size_and_stamp(path))
        except DataError:
            stamp = "missing"
        digest.update(f"{path}\0{stamp}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _named(value: Any, code: set[Path], outermost: bool = False) -> Any:
    """``value`` as lists and texts; modules whose code it calls are added to ``code``."""
    if isinstance(value, type) or inspect.isroutine(value):
        if file := inspect.getsourcefile(value):
            code.add(Path(file))
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Source) and not outermost:
        return fingerprint(value)
    if dataclasses.is_dataclass(value):
        fields = [(f.name, _named(getattr(value, f.name), code)) for f in dataclasses.fields(value)]
        return [_named(type(value), code), fields]
    if isinstance(value, Mapping):
        return [[_named(k, code), _named(v, code)] for k, v in value.items()]
    if isinstance(value, tuple | list):
        return [_named(item, code) for item in value]
    if " at 0x" in repr(value):
        raise ValueError(f"{value!r} prints as an address; a cache needs an argument with a name")
    return repr(value)


def _code(modules: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(modules))).hexdigest()


def hash_value(digest: Any, name: str, value: Any) -> None:
    """Adds a named value to a digest: bytes, text, or what numpy makes an array of."""
    if isinstance(value, bytes | bytearray | memoryview):
        data, kind = bytes(value), "bytes"
    elif isinstance(value, str):
        data, kind = value.encode(), "str"
    else:
        array = np.asarray(value)
        kind = f"{array.dtype.str}{array.shape}"
        if array.dtype.hasobject:  # lists of unequal length and the like
            plain = value.tolist() if isinstance(value, np.ndarray) else value
            data = json.dumps(plain, sort_keys=True, default=repr).encode()
        else:
            data = np.ascontiguousarray(array).tobytes()
    digest.update(f"/{name}/{kind}/{len(data)}/".encode())
    digest.update(data)


def ops_identity(ops: tuple[Op, ...]) -> str:
    """Arguments and code of the ops, and versions of what they call."""
    modules = {_HERE / "decode.py", _HERE / "pixel_formats.py", *(_HERE / "ops").rglob("*.py")}
    modules |= {Path(inspect.getfile(type(op))) for op in ops}
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    descriptions = [f"{type(op).__module__}.{op!r}" for op in ops]
    return json.dumps([_FORMAT, descriptions, _code(modules), versions])
