"""Tensors in files, read one by one: safetensors, in one file or shards, NumPy's npz, torch's.

Headers are checked in full before anything is read; no pickle is ever run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vision.config.files import replace_file
from vision.config.repeated import first_repeated
from vision.weights.mapping import WeightsError
from vision.weights.stored import Stored, Weights
from vision.weights.torch_files import TORCH_SUFFIXES, open_torch

# As in the format: 100 MB is more than any list of tensors needs.
_MAX_HEADER = 100_000_000
_DTYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# Of archives: zipfile on damaged ones (BadZipFile; zlib.error and EOFError within a member), on
# encrypted ones and kinds of compression that it does not have (both RuntimeError); NumPy on what
# is no array (ValueError).
_UNREADABLE = (
    *(OSError, ValueError, RuntimeError, EOFError, MemoryError),
    *(zlib.error, zipfile.BadZipFile),
)
# What timm, transformers and open_clip call the file in a folder, in the order of preference.
FILES = (
    *("model.safetensors.index.json", "model.safetensors", "open_clip_model.safetensors"),
    *("pytorch_model.bin.index.json", "pytorch_model.bin", "open_clip_pytorch_model.bin"),
)


def open_weights(path: Path | str) -> Weights:
    """The tensors of a file, or of a folder that holds one, or shards and their index.

    Args:
      path: a ``.safetensors`` or ``.npz`` file; one of torch (``.pth``, ``.pt``, ``.bin``,
        ``.ckpt``; see ``torch_files``); or a folder with a file of ``FILES``, or with one file of
        these kinds, safetensors before those of torch.

    Raises:
      WeightsError: there is no such file; it is damaged, lies about itself or holds more than
        tensors; or a link or the index leads out of the folder.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise WeightsError(f"there are no weights at {path}")
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    if path.suffix == ".npz":
        return _open_npz(path)
    if path.suffix in TORCH_SUFFIXES:
        return open_torch(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    known = ", ".join((".safetensors", ".npz", *TORCH_SUFFIXES))
    raise WeightsError(f"{path} is none of {known}")


def _open_folder(folder: Path) -> Weights:
    for name in FILES:
        if (folder / name).exists():
            return open_weights(inside(folder, name))
    for suffixes in ((".safetensors",), TORCH_SUFFIXES):
        others = sorted(file for file in folder.iterdir() if file.suffix in suffixes)
        if len(others) == 1:
            return open_weights(inside(folder, others[0].name))
        if others:
            listed = ", ".join(file.name for file in others)
            raise WeightsError(f"{folder} holds {listed}; name the one to read")
    known = ", ".join((".safetensors", *TORCH_SUFFIXES))
    raise WeightsError(f"{folder} holds no file of weights ({known})")


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, checked to be a file of that folder however links lead.

    The links of a Hugging Face cache, from ``snapshots/<revision>`` to ``blobs``, stay within
    the cache of their repository and are fine.

    Raises:
      WeightsError: the name has folders in it, or leads out of the folder.
    """
    file = folder / name
    home = folder.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    if Path(name).name != name or name in ("", "..") or "\\" in name:
        raise WeightsError(f"{folder} names a file {name!r}, which is not in this folder")
    if not file.resolve().is_relative_to(home):
        raise WeightsError(f"{file} is a link that leads out of its folder, to {file.resolve()}")
    if not file.is_file():
        raise WeightsError(f"{file} is missing")
    return file


def _open_safetensors(path: Path) -> Weights:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        # Its first eight bytes are a length, which may be like those of others, and a brace.
        if start.startswith((b"PK\x03\x04", b"\x80")) and file.read(1) != b"{":
            raise WeightsError(
                f"{path} is a file of torch with the name of a safetensors file; it is read under "
                "a name that ends in .pth"
            )
        file.seek(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise WeightsError(
                f"{path} is truncated or not safetensors: its {size} bytes cannot hold the header "
                f"of {length} bytes that it announces"
            )
        header = _json_object(file.read(length), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError(f"{path}: __metadata__ maps names to texts, but not here")
    places, tensors = [], {}
    for name, entry in header.items():
        tensor, end = _parse_entry(path, name, entry, 8 + length)
        if end > size:
            raise WeightsError(
                f"{path} is truncated: tensor {name} ends at byte {end} of a file of {size} bytes"
            )
        tensors[name] = tensor
        places.append((tensor.start, end, name))
    expected, previous = 8 + length, "the header"
    for start, end, name in sorted(places):
        if start < expected:
            raise WeightsError(f"{path}: tensor {name} overlaps {previous}")
        if start > expected:
            raise WeightsError(
                f"{path}: {start - expected} bytes before tensor {name} belong to none"
            )
        expected, previous = end, f"tensor {name}"
    if expected != size:
        raise WeightsError(f"{path}: {size - expected} bytes after {previous} belong to no tensor")
    return Weights(str(path), tensors, metadata)


def _parse_entry(path: Path, name: str, entry: Any, base: int) -> tuple[Stored, int]:
    """A tensor as the header describes it, and where it ends in the file."""
    where = f"{path}: tensor {name}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"{where} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise WeightsError(f"{where} has dtype {dtype!r}; known are {', '.join(_DTYPES)}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise WeightsError(f"{where} has shape {shape!r} and data_offsets {offsets!r}")
    start, end = offsets
    dtype = np.dtype(_DTYPES[dtype])
    needed = math.prod(shape) * dtype.itemsize
    if end - start != needed:
        raise WeightsError(
            f"{where} of shape {tuple(shape)} and dtype {dtype.name} takes {needed} bytes, but its "
            f"data_offsets {start} to {end} hold {end - start}"
        )
    return Stored(path, name, dtype, tuple(shape), base + start), base + end


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _json_object(text: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if (repeated := first_repeated(name for name, _ in pairs)) is not None:
            raise WeightsError(f"{path}: {repeated} is described twice")
        return dict(pairs)

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its header is not JSON; damaged or another format") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: its header is not a JSON object")
    return value


def _open_shards(index: Path) -> Weights:
    folder = index.parent
    file_of = _json_object(index.read_bytes(), index).get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(file, str) for file in file_of.values()):
        raise WeightsError(f"{index}: weight_map maps tensors to files, but not here")
    shards = {file: open_weights(inside(folder, file)) for file in sorted(set(file_of.values()))}
    for name, file in file_of.items():
        if name not in shards[file]:
            raise WeightsError(f"{index} says that {file} holds tensor {name}, but it does not")
    for file, shard in shards.items():
        if extra := next((name for name in shard if file_of.get(name) != file), None):
            raise WeightsError(f"{folder / file} holds tensor {extra}, which {index.name} does not")
    return Weights(str(index), {name: shards[file][name] for name, file in file_of.items()})


@dataclasses.dataclass(frozen=True)
class _Member:
    """An array in an npz file; indexing it reads the complete member."""

    path: Path
    member: str
    dtype: np.dtype
    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> np.ndarray:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except _UNREADABLE as error:
            raise WeightsError(f"{self.path}: {self.member} cannot be read: {error}") from error
        return array.view(self.dtype)[index]


def _open_npz(path: Path) -> Weights:
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            if (repeated := first_repeated(names)) is not None:
                raise WeightsError(f"{path}: {repeated} is there twice")
            for info in archive.infolist():
                tensors[info.filename.removesuffix(".npy")] = _member(path, archive, info)
    except _UNREADABLE as error:
        raise WeightsError(f"{path} is damaged or not an npz file: {error}") from error
    return Weights(str(path), tensors)


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    where = f"{path}: {info.filename}"
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        begin = file.tell()
    if dtype.hasobject:
        raise WeightsError(f"{where} holds Python objects, that is a pickle; it is not read")
    if math.prod(shape) * dtype.itemsize != info.file_size - begin:
        raise WeightsError(f"{where} does not hold the {dtype} array of shape {shape} it announces")
    # NumPy writes bfloat16 as two bytes without a meaning.
    dtype = np.dtype(ml_dtypes.bfloat16) if dtype.str == "|V2" else dtype
    return _Member(path, info.filename, dtype, shape)


def write_safetensors(
    path: Path | str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors by name, atomically: the file appears under its name when it is complete.

    Raises:
      WeightsError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    try:
        with replace_file(path) as temporary:
            save_file(
                {name: np.asarray(array, order="C") for name, array in tensors.items()},
                temporary,
                dict(metadata) if metadata else None,
            )
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error}") from error
