"""Where the members of a tar shard are, without extracting any.

Headers are parsed here and not by ``tarfile``: that takes a damaged header in the middle of an
archive, and an archive cut off between two members, for its end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO

from vision.data import files
from vision.data.cells import from_json
from vision.data.source import DataError

log = logging.getLogger(__name__)

_VERSION = 1
_BLOCK = 512
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_MAX_NAME_BYTES = 1 << 16
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """The samples of a shard: members in a row whose names agree up to the first dot.

    Attributes:
      size: of the shard in bytes.
      stamp: changes when the shard does.
      keys: the samples' names, ``folder/000123``.
      members: per sample, extension (``jpg``, ``seg.png``; lower case) to offset and size.
    """

    size: int
    stamp: str
    keys: tuple[str, ...]
    members: tuple[dict[str, tuple[int, int]], ...]


def load_index(shard: str, folder: str) -> ShardIndex:
    """The index of ``shard``, from its file if that is up to date, or else built and stored.

    Args:
      shard: path of the tar file.
      folder: where index files are kept; empty for beside each shard. Nothing else is written;
        where writing is not possible, the index is kept in memory, with a warning.

    Raises:
      DataError: the shard is damaged, compressed or unsafe; names the member.
    """
    size, stamp = files.size_and_stamp(shard)
    path = _index_path(shard, folder)
    if path and os.path.exists(path):
        cached = _parse(path)
        if cached is not None and (cached.size, cached.stamp) == (size, stamp):
            return cached
    with files.opened(shard) as file:
        index = _build(file, shard, size, stamp)
    if files.size_and_stamp(shard) != (size, stamp):
        raise DataError(f"{shard}: changed while it was indexed; start again when it is complete")
    if path:
        content = {"version": _VERSION, **dataclasses.asdict(index)}
        try:
            files.write_whole(path, json.dumps(content, separators=(",", ":")).encode())
        except OSError as error:
            log.warning(
                "%s cannot be written (%s), so %s is indexed again every time; set index_dir to a "
                "folder that can be written",
                *(path, error.strerror, shard),
            )
    return index


def _index_path(shard: str, folder: str) -> str:
    if folder:
        # Shards of the same name in different folders share the index folder.
        full_path = shard if files.is_remote(shard) else os.path.abspath(shard)
        digest = hashlib.sha256(full_path.encode()).hexdigest()[:16]
        return os.path.join(folder, f"{files.base_name(shard)}.{digest}.index.json")
    return "" if files.is_remote(shard) else f"{shard}.index.json"


def _parse(path: str) -> ShardIndex | None:
    """None when the file is not an index of ours: it is then made anew."""
    try:
        content = from_json(files.read_bytes(path))
        if content.pop("version") != _VERSION:
            return None
        size, members = content["size"], []
        for sample in content["members"]:
            places = {str(name): (int(at), int(length)) for name, (at, length) in sample.items()}
            if any(at < 0 or length < 0 or at + length > size for at, length in places.values()):
                return None
            members.append(places)
        keys = tuple(map(str, content["keys"]))
        if len(keys) != len(members):
            return None
        return ShardIndex(int(size), str(content["stamp"]), keys, tuple(members))
    except (DataError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _build(file: IO[bytes], shard: str, size: int, stamp: str) -> ShardIndex:
    keys: list[str] = []
    members: list[dict[str, tuple[int, int]]] = []
    earlier_keys: set[str] = set()
    for name, offset, length in _members(file, shard, size):
        folder, base = posixpath.split(name)
        stem, dot, extension = base.partition(".")
        key = posixpath.join(folder, stem)
        if not stem or not dot:
            raise DataError(f"{shard}: member {name!r} is not called KEY.EXTENSION")
        if not keys or keys[-1] != key:
            if key in earlier_keys:
                raise DataError(
                    f"{shard}: key {key!r} occurs twice, with other members between; the members "
                    "of a sample belong together"
                )
            earlier_keys.add(key)
            keys.append(key)
            members.append({})
        if extension.lower() in members[-1]:
            raise DataError(f"{shard}: member {name!r} occurs twice")
        members[-1][extension.lower()] = (offset, length)
    if not keys:
        raise DataError(f"{shard}: the archive holds no file")
    return ShardIndex(size, stamp, tuple(keys), tuple(members))


def _members(file: IO[bytes], shard: str, size: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of every regular file; refuses everything that is not one."""
    at, long_name, extended = 0, "", {}
    while True:
        file.seek(at)
        header = file.read(_BLOCK)
        if 0 < len(header) < _BLOCK and at == 0:
            raise DataError(f"{shard}: {_not_a_tar(header)}")
        if len(header) < _BLOCK:
            raise DataError(
                f"{shard}: ends at byte {size} without an end-of-archive mark; it was cut off, "
                "copy it again"
            )
        if not header.strip(b"\0"):
            if long_name or extended:
                raise DataError(f"{shard}: ends at byte {at} in the middle of a member's header")
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.TarError, ValueError) as error:
            if at == 0:
                reason = _not_a_tar(header)
            else:
                reason = f"has a damaged header at byte {at}: {error}"
            raise DataError(f"{shard}: {reason}") from None
        length = info.size
        if info.type == tarfile.XHDTYPE or info.type == tarfile.XGLTYPE:
            pax = _pax(_text(file, shard, info, at), shard, at)
            extended = {**extended, **pax} if info.type == tarfile.XHDTYPE else extended
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _name(_text(file, shard, info, at).rstrip(b"\0"), shard, at)
        else:
            name = extended.get("path") or long_name or info.name
            if "size" in extended:
                length = int(extended["size"]) if extended["size"].isdecimal() else -1
            if any(record.startswith("GNU.sparse") for record in extended):
                raise DataError(f"{shard}: member {name!r} is a sparse file; pack it plainly")
            long_name, extended = "", {}
            if info.type == tarfile.DIRTYPE:
                _checked_name(name, shard)
                length = 0
            elif info.type not in _REGULAR:
                kind = _KINDS.get(info.type, f"of type {info.type!r}")
                raise DataError(
                    f"{shard}: member {name!r} is {kind}; only files belong into a shard, pack it "
                    "again with links followed (tar --dereference --hard-dereference)"
                )
            else:
                if length < 0 or at + _BLOCK + length > size:
                    raise DataError(
                        f"{shard}: member {name!r} at byte {at} reaches beyond the archive's "
                        f"{size} bytes; it was cut off or damaged, copy it again"
                    )
                yield _checked_name(name, shard), at + _BLOCK, length
        at += _BLOCK + -(-length // _BLOCK) * _BLOCK


def _checked_name(name: str, shard: str) -> str:
    plain = posixpath.normpath(name) if name else ""
    if not plain or name.startswith("/") or plain == ".." or plain.startswith("../"):
        raise DataError(
            f"{shard}: member {name!r} would lie outside the archive; such archives are not used"
        )
    return plain


def _text(file: IO[bytes], shard: str, info: tarfile.TarInfo, at: int) -> bytes:
    """The body of a header that extends the next one."""
    if not 0 <= info.size <= _MAX_NAME_BYTES:
        raise DataError(f"{shard}: the extended header at byte {at} has {info.size} bytes")
    data = file.read(info.size)
    if len(data) < info.size:
        raise DataError(f"{shard}: ends in the extended header at byte {at}; copy it again")
    return data


def _pax(data: bytes, shard: str, at: int) -> dict[str, str]:
    """Records ``LENGTH name=value\\n``."""
    records: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, space, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        record = data[len(digits) + 1 : length]
        name, equals, value = record.partition(b"=")
        if not space or not equals or not record.endswith(b"\n"):
            raise DataError(f"{shard}: the extended header at byte {at} is damaged")
        if name in (b"path", b"size") or name.startswith(b"GNU.sparse"):
            records[name.decode("ascii", "replace")] = _name(value[:-1], shard, at)
        data = data[length:]
    return records


def _name(data: bytes, shard: str, at: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DataError(f"{shard}: the name in the header at byte {at} is not UTF-8") from None


def _not_a_tar(header: bytes) -> str:
    packed = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7z": "xz"}
    for magic, name in packed.items():
        if header.startswith(magic):
            return f"is compressed with {name}; images do not shrink further: decompress it"
    return f"is not a tar archive (starts with {header[:16]!r})"
