"""Tensors in files, read one by one: safetensors, in one file or shards, and NumPy's npz.

Headers are checked in full before anything is read; no pickle is ever opened.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vision.config.repeated import first_repeated
from vision.weights.mapping import Tensor, WeightsError

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
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_INDEX = "model.safetensors.index.json"
# What timm, transformers and open_clip call the file in a folder, in the order of preference.
_FILES = (_INDEX, "model.safetensors", "open_clip_model.safetensors")


@dataclasses.dataclass(frozen=True)
class Weights(Mapping[str, Tensor]):
    """Tensors of a file or a folder by name; data is read when a tensor is indexed.

    Attributes:
      source: the file or folder, for messages.
      tensors: name to tensor.
      metadata: texts that the file carries about itself.
    """

    source: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_weights(path: Path | str) -> Weights:
    """The tensors of a ``.safetensors`` or ``.npz`` file, or of a folder with safetensors.

    A folder holds ``model.safetensors``, ``open_clip_model.safetensors``, one other safetensors
    file, or shards with their ``model.safetensors.index.json``.

    Raises:
      WeightsError: there is no such file; it is damaged, lies about itself or is a pickle; or a
        link or the index leads out of the folder.
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
    _refuse_pickles(path)
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    raise WeightsError(f"{path} is neither .safetensors nor .npz")


def _open_folder(folder: Path) -> Weights:
    for name in _FILES:
        if (folder / name).exists():
            return open_weights(inside(folder, name))
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return open_weights(inside(folder, others[0].name))
    if others:
        listed = ", ".join(file.name for file in others)
        raise WeightsError(f"{folder} holds {listed}; name the one to read")
    for file in sorted(folder.iterdir()):
        _refuse_pickles(file)
    raise WeightsError(f"{folder} holds no .safetensors file")


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


def _refuse_pickles(path: Path) -> None:
    start = b""
    if path.suffix == ".safetensors" and path.is_file():
        with path.open("rb") as file:
            start = file.read(9)
    # A safetensors file starts with eight bytes of length, which may be like these, and a brace.
    disguised = start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{"
    if path.suffix in _PICKLES or disguised:
        new = path.with_suffix("").name + ".converted.safetensors"
        what = "a pickle with the name of a safetensors file" if disguised else "a pickle"
        raise WeightsError(
            f"{path} is {what}, which can run any code when it is loaded; convert it where torch "
            'is installed: python -c "import torch; from safetensors.torch import save_file; '
            f"save_file({{k: v.contiguous().clone() for k, v in torch.load('{path.name}', "
            f"map_location='cpu', weights_only=True).items()}}, '{new}')\""
        )


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A tensor in a file, by the offset of its bytes."""

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int

    def __getitem__(self, index: Any) -> np.ndarray:
        """Reads the rows that the first of the slices asks for, and cuts the others out."""
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if not self.shape or not isinstance(first, slice) or first.step not in (None, 1):
            return self._rows(0, self.shape[0] if self.shape else 1).reshape(self.shape)[index]
        begin, end, _ = first.indices(self.shape[0])
        return self._rows(begin, max(begin, end))[(slice(None), *rest)]

    def _rows(self, begin: int, end: int) -> np.ndarray:
        row = math.prod(self.shape[1:])
        count = (end - begin) * row
        offset = self.start + begin * row * self.dtype.itemsize
        try:
            flat = np.fromfile(self.path, np.uint8, count * self.dtype.itemsize, offset=offset)
        except OSError as error:
            raise WeightsError(f"{self.path} cannot be read: {error}") from error
        if flat.size != count * self.dtype.itemsize:
            raise WeightsError(f"{self.path} ends inside tensor {self.name}: it has been changed")
        return flat.view(self.dtype).reshape(end - begin, *self.shape[1:])


def _open_safetensors(path: Path) -> Weights:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
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


def _parse_entry(path: Path, name: str, entry: Any, base: int) -> tuple[_Stored, int]:
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
    return _Stored(path, name, dtype, tuple(shape), base + start), base + end


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
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file(
            {name: np.asarray(array, order="C") for name, array in tensors.items()},
            temporary,
            dict(metadata) if metadata else None,
        )
        os.replace(temporary, path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {error}") from error
