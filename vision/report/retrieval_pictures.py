"""Query pictures: from a file's bytes to a record of the source, and the model's input as PNG."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vision.data import files
from vision.data.batches import ExampleRng
from vision.data.decode import DecodeError, decode
from vision.data.ops.base import Op
from vision.data.source import DataError, Source, SourceInfo
from vision.evaluators.thumbnail import thumbnail

MAX_PIXELS = 40_000_000
SEEN_PX = 320
_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
_SUFFIXES = (".jpg", ".jpeg", ".png")
_TRIED = 64


def kind_of(encoded: bytes) -> str | None:
    """``image/jpeg``, ``image/png``, or None, told from the first bytes."""
    return next((kind for start, kind in _KINDS.items() if encoded.startswith(start)), None)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepare:
    """Makes records of pictures, to which the ops of a source apply.

    Attributes:
      record_of: a record of the source; a new picture takes the place of its image.
      ops: of the data, per example.
      feature: the image's name in a record.
      shape: of ``image`` after the ops.
    """

    record_of: dict[str, Any]
    ops: tuple[Op, ...]
    feature: str
    shape: tuple[int, ...]

    @classmethod
    def like(cls, source: Source, ops: tuple[Op, ...], feature: str) -> Prepare:
        """Takes the first record that can be read.

        Raises:
          DataError: there is none among the first, or it has no such image.
        """
        problem: DataError | None = None
        for index in range(min(_TRIED, len(source))):
            try:
                record = source[index]
                if feature not in record:
                    raise DataError(
                        f"{source.key(index)}: the record has no {feature!r}; it has "
                        f"{', '.join(sorted(record))}"
                    )
                return cls(record, ops, feature, _applied(record, ops, index)["image"].shape)
            except DataError as error:
                problem = problem or error
        raise problem or DataError(f"{source.info.name}: the source has no records")

    def record(self, encoded: bytes, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
        """A record with the picture in ``encoded``, a JPEG or PNG.

        A source of files gets the file. A source of arrays gets pixels, and where its ops do not
        bring them to size, they are scaled to cover the size of its arrays and cut at the centre.

        Raises:
          DecodeError: not cleanly decodable, or the source's arrays are not uint8.
        """
        if kind_of(encoded) is None:
            raise DecodeError(f"neither JPEG nor PNG: it starts with {encoded[:8]!r}")
        own = self.record_of[self.feature]
        if isinstance(own, bytes | bytearray):
            decode(encoded, max_pixels=max_pixels)
            return {**self.record_of, self.feature: encoded}
        own = np.asarray(own)
        if own.dtype != np.uint8 or own.ndim not in (2, 3) or own.shape[2:] not in ((), (1,), (3,)):
            raise DecodeError(
                f"images of this gallery are {own.dtype}{list(own.shape)}; files can only stand "
                "beside uint8 pictures, grey or RGB"
            )
        grey = own.shape[2:] != (3,)
        pixels = decode(encoded, mode="grey" if grey else "rgb", max_pixels=max_pixels)

        def given(pixels: np.ndarray) -> dict[str, Any]:
            pixels = pixels.reshape(*pixels.shape[:2], *own.shape[2:])
            return {**self.record_of, self.feature: pixels}

        if _applied(given(pixels), self.ops)["image"].shape == self.shape:
            return given(pixels)
        image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
        fitted = ImageOps.fit(image, own.shape[1::-1], Image.Resampling.LANCZOS)
        return given(np.asarray(fitted))

    def seen(self, record: dict[str, Any], index: int = 0) -> bytes:
        """PNG of what the model gets: the last 8-bit picture on the way, of the final size."""
        rng = ExampleRng(0).at(index)
        example, seen = record, None
        for op in (None, *self.ops):
            example = example if op is None else op(example, rng)
            now = example.get("image", example.get(self.feature))
            if isinstance(now, np.ndarray) and now.dtype == np.uint8 and now.ndim in (2, 3):
                seen = now
        final = example["image"]
        if seen is None or seen.shape[:2] != final.shape[:2]:
            seen = final
        return thumbnail({"image": seen}, size_px=SEEN_PX)


def _applied(record: dict[str, Any], ops: tuple[Op, ...], index: int = 0) -> dict[str, Any]:
    rng = ExampleRng(0).at(index)
    for op in ops:
        record = op(record, rng)
    return record


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """Records that are there.

    Attributes:
      records: examples.
      name: of the collection.
    """

    records: tuple[dict[str, Any], ...]
    name: str = "upload"

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(self.name, len(self.records))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.records[index])

    def key(self, index: int) -> str:
        return f"{self.name}/{index}"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
    """JPEG and PNG files below a folder, in the order of their paths, as records of a source.

    Hidden files are left out. Links that lead out of the folder are not followed.

    Attributes:
      root: the folder.
      paths: of the files, relative to it.
      prepare: makes the records.
    """

    root: Path
    paths: tuple[str, ...]
    prepare: Prepare

    @classmethod
    def below(cls, root: Path, prepare: Prepare) -> ImageFolder:
        found = []
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder) / name
                inside = path.resolve().is_relative_to(root.resolve())
                if path.suffix.lower() in _SUFFIXES and not name.startswith(".") and inside:
                    found.append(str(path.relative_to(root)))
        if not found:
            raise DataError(f"{root}: no .jpg, .jpeg or .png file in this folder or below")
        return cls(root, tuple(found), prepare)

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(self.root.resolve().name, len(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.root / self.paths[index]
        try:
            return self.prepare.record(files.read_bytes(str(path)))
        except DecodeError as error:
            raise DecodeError(f"{path}: {error}") from error

    def key(self, index: int) -> str:
        return self.paths[index]
