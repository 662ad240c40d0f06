"""Files of ``torch.save``, without torch: tensors of a state dict, by their places in the file.

Since torch 1.6 such a file is an uncompressed zip archive: ``data.pkl``, which says what the
tensors are, and one member of plain numbers per storage. Older files are pickles one after another,
with the numbers behind them. Both pickles are read by ``pickles.read_pickle``, which runs nothing.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vision.config.repeated import first_repeated
from vision.weights.mapping import Tensor, WeightsError
from vision.weights.pickles import PickleRefused, Storage, UnknownName, View, read_pickle
from vision.weights.stored import Stored, Strided, Weights, extent, is_contiguous

log = logging.getLogger(__name__)
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# A tensor takes about 200 bytes of a pickle and of a list of members.
_MAX_PICKLE, _MAX_DIRECTORY = 16 << 20, 32 << 20
_ZIP, _LOCAL = b"PK\x03\x04", struct.Struct("<4s5H3I2H")
# zipfile on damaged archives; RuntimeError where it does not know a version.
_UNREADABLE = (
    *(zipfile.BadZipFile, ValueError, OSError, RuntimeError, EOFError, IndexError),
    *(OverflowError, MemoryError, struct.error),
)
# What the first of the pickles of an older file says.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Under what name a training checkpoint keeps its state dict, and copies of it that are others'.
_WRAPPERS = ("state_dict", "model")
_AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict")
# Before every name, of a model that torch wraps: on several devices, or compiled.
_AROUND = ("module.", "_orig_mod.")


def open_torch(path: Path) -> Weights:
    """The tensors of a state dict that torch wrote, in either of its formats.

    The file holds the state dict itself, or a dictionary with it under ``state_dict`` or
    ``model``. Tensors may be views of shared storages. What stands before every name of a model
    that torch wraps, ``module.`` or ``_orig_mod.``, is left out.

    Raises:
      WeightsError: it is damaged, lies about itself, holds anything beside tensors and plain
        values, or more than one state dict.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
            root, places = _archive(path, file) if start == _ZIP else _pickles(path, file)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    found = _state_dict(path, root)
    return Weights(str(path), {n: _tensor(path, n, view, places) for n, view in found.items()})


def _tensor(path: Path, name: str, view: View, places: Mapping[str, tuple[int, int]]) -> Tensor:
    """A view of numbers in the file, which begin at a place and have so many bytes."""
    where, storage = f"{path}: tensor {name}", view.storage
    if storage.key not in places:
        raise WeightsError(
            f"{where} lies in storage {storage.key[:80]!r}, which the file has not: it is damaged "
            f"or was put together by hand; {_again(path)}"
        )
    start, size = places[storage.key]
    if size != storage.size:
        raise WeightsError(
            f"{where} lies in storage {storage.key} of {storage.size} bytes, but the file holds "
            f"{size} bytes of it; {_again(path)}"
        )
    end = view.offset + extent(view.shape, view.strides)
    if end * view.dtype.itemsize > size:
        raise WeightsError(
            f"{where} of shape {view.shape} reaches beyond its storage {storage.key}: to element "
            f"{end} of {size // view.dtype.itemsize}; {_again(path)}"
        )
    start += view.offset * view.dtype.itemsize
    if is_contiguous(view.shape, view.strides):
        return Stored(path, name, view.dtype, view.shape, start)
    return Strided(path, name, view.dtype, view.shape, view.strides, start)


def _state_dict(path: Path, root: Any) -> dict[str, View]:
    if type(root) is not dict:
        kind = "tensor" if isinstance(root, View) else type(root).__name__
        raise WeightsError(
            f"{path} holds a {kind}, not a state dict; {_saving('model.state_dict()')}"
        )
    within, found = "", root
    wrappers = [key for key in _WRAPPERS if type(root.get(key)) is dict]
    averages = [key for key in _AVERAGES if type(root.get(key)) is dict]
    if len(wrappers) + len(averages) > 1:
        keys = (*wrappers, *averages)
        raise WeightsError(
            f"{path} holds several state dicts, {' and '.join(keys)}; write the one that is meant "
            f"to a file of its own: {_command(path, f'[{keys[-1]!r}]')}"
        )
    if wrappers:
        within, found = f"{wrappers[0]}: ", root[wrappers[0]]
        if others := [str(key) for key in root if key != wrappers[0]]:
            listed = ", ".join(others[:20])
            log.info("%s: %d entries beside %s are not read: %s", path, len(others), within, listed)
    if not found:
        raise WeightsError(f"{path}: {within}an empty dictionary holds no tensors")
    for name, value in found.items():
        if not isinstance(value, View):
            raise WeightsError(
                f"{path}: {within}{str(name)[:80]} is no tensor but a {type(value).__name__}; a "
                f"state dict stands alone, or under {' or '.join(_WRAPPERS)}: "
                f"{_command(path, '[KEY]')}"
            )
    named = {str(name): view for name, view in found.items()}
    while around := [x for x in _AROUND if named and all(name.startswith(x) for name in named)]:
        log.info("%s: the %s before all of its names is left out", path, around[0])
        named = {name.removeprefix(around[0]): view for name, view in named.items()}
    return named


def _archive(path: Path, file: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    """What ``data.pkl`` describes, and every storage's first byte in the file and length."""
    try:
        archive = zipfile.ZipFile(_Bounded(path, file))
    except _UNREADABLE as error:
        raise WeightsError(
            f"{path} is truncated or damaged: the list at its end that says where its tensors lie "
            f"cannot be read ({error}); {_again(path)}"
        ) from error
    members = archive.infolist()
    if (repeated := first_repeated(info.filename for info in members)) is not None:
        raise WeightsError(f"{path}: member {repeated[:80]!r} is there twice; {_again(path)}")
    described = [i.filename for i in members if re.fullmatch(r"[^/]+/data\.pkl", i.filename)]
    if len(described) != 1:
        raise WeightsError(f"{path} is a zip archive, but none of torch: it has no data.pkl")
    folder = described[0].removesuffix("data.pkl")
    if any(info.filename == f"{folder}constants.pkl" for info in members):
        raise WeightsError(
            f"{path} is a program (TorchScript), not a state dict; write the tensors alone: "
            f'python -c "import torch; torch.save(torch.jit.load({path.name!r}, '
            f"map_location='cpu').state_dict(), {_renamed(path)!r})\""
        )
    places = _places(path, file, archive)
    if b"big" in _member(file, places.get(f"{folder}byteorder", (0, 0))):
        raise WeightsError(f"{path}: byteorder is big; {_again(path)}")
    pickled = places[described[0]]
    if pickled[1] > _MAX_PICKLE:
        raise WeightsError(
            f"{path}: {described[0]} has {pickled[1]} bytes, more than any list of tensors needs; "
            f"{_saving('model.state_dict()')}"
        )
    description = _member(file, pickled)
    # Zero where whoever wrote the file left checksums out, which torch can.
    if archive.getinfo(described[0]).CRC not in (0, zlib.crc32(description)):
        raise WeightsError(f"{path}: {described[0]} has been changed or damaged; {_again(path)}")
    root, _ = _read(path, described[0], io.BytesIO(description))
    storages = {
        name.removeprefix(f"{folder}data/"): place
        for name, place in places.items()
        if name.startswith(f"{folder}data/")
    }
    return root, storages


class _Bounded(io.RawIOBase):
    """A file of which nobody reads more at once than a list of members has."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise WeightsError(
                f"{self._path}: the list of its members has {size} bytes, more than any list of "
                f"tensors needs; {_saving('model.state_dict()')}"
            )
        # Without a size zipfile reads the end of the archive, of which 64 KB may be a comment.
        return self._file.read(size if size >= 0 else 1 << 17)


def _places(path: Path, file: BinaryIO, archive: zipfile.ZipFile) -> dict[str, tuple[int, int]]:
    """Every member's first byte in the file, and its length; none overlaps another."""
    places = {}
    end, previous = 0, "the start"
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        name = info.filename
        where = f"{path}: member {name[:80]!r}"
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise WeightsError(
                f"{where} is compressed or encrypted, which torch never does: someone packed the "
                f"file anew; {_again(path)}"
            )
        file.seek(max(info.header_offset, 0))
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or info.header_offset < end:
            raise WeightsError(f"{where} overlaps {previous}; {_again(path)}")
        magic, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack(header)
        stored_name = file.read(name_length)
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        same = stored_name == info.orig_filename.encode(encoding, "replace")
        if magic != _ZIP or method != zipfile.ZIP_STORED or flags & 1 or not same:
            raise WeightsError(f"{where} is described in two ways that differ; {_again(path)}")
        start = info.header_offset + _LOCAL.size + name_length + extra_length
        end, previous = start + info.file_size, f"member {name[:80]!r}"
        if info.compress_size != info.file_size or end > archive.start_dir:
            raise WeightsError(
                f"{where} of {info.file_size} bytes does not fit into the file; {_again(path)}"
            )
        places[name] = (start, info.file_size)
    return places


def _member(file: BinaryIO, place: tuple[int, int]) -> bytes:
    file.seek(place[0])
    return file.read(min(place[1], _MAX_PICKLE))


def _pickles(path: Path, file: BinaryIO) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The same of a file of before torch 1.6."""
    file.seek(0)
    start = io.BytesIO(file.read(_MAX_PICKLE))
    try:
        magic, _ = read_pickle(start) if start.getvalue()[:1] == b"\x80" else (None, {})
    except PickleRefused:
        magic = None
    if magic != _MAGIC:
        raise WeightsError(f"{path} is {_kind(path, start.getvalue())}; {_again(path)}")
    protocol, _ = _read(path, "version", start)
    system, _ = _read(path, "system", start)
    root, storages = _read(path, "description", start)
    keys, _ = _read(path, "list of storages", start)
    if protocol != _PROTOCOL or type(system) is not dict or system.get("little_endian") is not True:
        raise WeightsError(f"{path} is of an unknown version or byte order; {_again(path)}")
    if type(keys) is not list or set(map(type, keys)) - {str} or set(keys) != storages.keys():
        raise WeightsError(
            f"{path}: its list of storages and its tensors do not agree; {_again(path)}"
        )
    places, offset = {}, start.tell()
    size = path.stat().st_size
    for key in keys:
        file.seek(offset)
        count = int.from_bytes(file.read(8), "little")
        if count != storages[key].count or offset + 8 + storages[key].size > size:
            raise WeightsError(
                f"{path}: storage {key[:80]!r} of {storages[key].size} bytes is truncated; "
                f"{_again(path)}"
            )
        places[key] = (offset + 8, storages[key].size)
        offset += 8 + storages[key].size
    if offset != size:
        raise WeightsError(f"{path}: {size - offset} bytes belong to no tensor; {_again(path)}")
    return root, places


def _read(path: Path, part: str, file: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    try:
        return read_pickle(file)
    except UnknownName as error:
        raise WeightsError(
            f"{path}: its {part} {error}, which is no part of a state dict and is never run here; "
            f"{_saving('model.state_dict()')}, where the model's own code is at home"
        ) from error
    except PickleRefused as error:
        raise WeightsError(f"{path}: its {part} {error}; {_again(path)}") from error


def _kind(path: Path, start: bytes) -> str:
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the file"
    if start.lstrip()[:1] == b"<":
        return "a web page in place of the file"
    if start[:1] == b"\x80":
        return "a pickle, but none of a state dict that torch wrote"
    if tarfile.is_tarfile(path):
        return "in torch's oldest format, a tar archive"
    return "no file that torch wrote, or a damaged one"


def _renamed(path: Path) -> str:
    return path.with_suffix("").name + ".converted.pth"


def _command(path: Path, key: str = "") -> str:
    return (
        f"python -c \"import torch; torch.save(torch.load({path.name!r}, map_location='cpu', "
        f'weights_only=True){key}, {_renamed(path)!r})"'
    )


def _again(path: Path) -> str:
    return f"get it anew from its origin, or write it anew with torch: {_command(path)}"


def _saving(what: str) -> str:
    return f"write tensors alone, torch.save({what}, 'weights.pth')"
