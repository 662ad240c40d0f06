"""Files of predictions, written a batch at a time and there as a whole or not at all.

A file grows under a temporary name beside it, so that memory does not grow with the number of
images, and gets its name when the last row is in it. Text is UTF-8; bytes of a file's name that are
no UTF-8 are written as ``\\udcXX``.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vision.config.cli import UsageError
from vision.config.files import replace_file
from vision.predict.results import Prediction, Predictions

Write = Callable[[Predictions], None]
# Rows of a row group in a parquet file.
_GROUP = 8192


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A binary file that gets its name at the end; where something fails nothing is left.

    Raises:
      UsageError: the folder is missing or cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    try:
        with replace_file(path, unique=True) as temporary, temporary.open("xb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def writer(
    path: Path, classes: Sequence[str], top: int | None, numbers: int = 0
) -> AbstractContextManager[Write]:
    """What writes rows to a ``.csv``, ``.jsonl`` or ``.parquet`` file.

    Args:
      path: of the file; the folder exists.
      classes: of the model.
      top: how many of the likeliest classes of a row are written; None for all, in their order.
      numbers: that a regression says, in the place of classes.

    Raises:
      UsageError: another ending, or a file that cannot be written.
    """
    return _writers()[path.suffix.lower()](path, columns(classes, top, numbers), top)


def check(predictions: str | None, embeddings: str | None) -> None:
    """Raises UsageError where no kind of file has this ending, or its folder is missing."""
    if predictions is not None and Path(predictions).suffix.lower() not in _writers():
        raise UsageError(
            f"--out={predictions}: a file of predictions ends in {', '.join(_writers())}, which "
            "says what it is"
        )
    if embeddings is not None and Path(embeddings).suffix.lower() != ".npz":
        raise UsageError(f"--embeddings={embeddings}: a file of embeddings ends in .npz")
    for path in (predictions, embeddings):
        if path is not None and not Path(path).parent.is_dir():
            raise UsageError(
                f"{path} cannot be written: there is no folder {Path(path).parent}; make it first"
            )


def _writers() -> Mapping[str, Callable[..., AbstractContextManager[Write]]]:
    return {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def columns(classes: Sequence[str], top: int | None, numbers: int = 0) -> tuple[str, ...]:
    """Of a table: ``file``, then ``class_1``, ``probability_1``, ... or, of all classes,
    ``probability/NAME``, or of a regression ``prediction``, ``prediction_1``, ..., and ``error``.
    """
    if numbers:
        said = ("prediction",) if numbers == 1 else [f"prediction_{k + 1}" for k in range(numbers)]
        return ("file", *said, "error")
    if top is None:
        return ("file", *(f"probability/{name}" for name in classes), "error")
    ranks = range(1, min(top, len(classes)) + 1)
    return ("file", *(f"{what}_{k}" for k in ranks for what in ("class", "probability")), "error")


@contextlib.contextmanager
def _csv(path: Path, names: Sequence[str], top: int | None) -> Iterator[Write]:
    with whole(path) as file:

        def put(lines: Iterable[Iterable[str]]) -> None:
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(lines)
            file.write(shown(text.getvalue()).encode())

        def line(row: Prediction) -> list[str]:
            values = [_number(x) for x in _values(row, top)]
            return [row.file, *values, *[""] * (len(names) - 2 - len(values)), row.error or ""]

        put([names])
        yield lambda rows: put(map(line, rows))


@contextlib.contextmanager
def _jsonl(path: Path, names: Sequence[str], top: int | None) -> Iterator[Write]:
    said = names[1:-1]
    regression = bool(said) and all(name.startswith("prediction") for name in said)

    with whole(path) as file:

        def write(rows: Predictions) -> None:
            for row in rows:
                answer = _numbers(row, len(said)) if regression else _likeliest(row, top)
                line = {"file": row.file, **answer, "error": row.error}
                file.write(shown(json.dumps(line, ensure_ascii=False)).encode() + b"\n")

        yield write


@contextlib.contextmanager
def _parquet(path: Path, columns: Sequence[str], top: int | None) -> Iterator[Write]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(f"--out={path} needs pyarrow: pip install 'pyarrow>=18'") from None
    names = [shown(name) for name in columns]
    numbers = ("probability", "prediction")
    kinds = [pyarrow.float32() if n.startswith(numbers) else pyarrow.string() for n in names]
    schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
    kept: list[list[Any]] = []
    with whole(path) as file, parquet.ParquetWriter(file, schema) as table:

        def flush() -> None:
            given = [list(column) for column in zip(*kept, strict=True)] or [[] for _ in names]
            arrays = [pyarrow.array(x, kind) for x, kind in zip(given, kinds, strict=True)]
            table.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            kept.clear()

        def write(rows: Predictions) -> None:
            for row in rows:
                values = [shown(x) if isinstance(x, str) else x for x in _values(row, top)]
                values += [None] * (len(names) - 2 - len(values))
                error = None if row.error is None else shown(row.error)
                kept.append([shown(row.file), *values, error])
            if len(kept) >= _GROUP:
                flush()

        yield write
        flush()


def _likeliest(row: Prediction, top: int | None) -> dict[str, Any]:
    chosen = row.probabilities if top is None else row.top(top)
    return {"probabilities": {name: float(_number(p)) for name, p in chosen.items()}}


def _numbers(row: Prediction, count: int) -> dict[str, Any]:
    """``prediction``: a number, or a list of several; null where there is an error."""
    numbers = [float(_number(x)) for x in row.numbers]
    return {"prediction": None if not numbers else numbers[0] if count == 1 else numbers}


def _values(row: Prediction, top: int | None) -> list[Any]:
    if row.numbers:
        return list(row.numbers)
    if top is None:
        return list(row.probabilities.values())
    return [value for pair in row.top(top).items() for value in pair]


def _number(value: Any) -> str:
    """The shortest text that is this float32 again; texts as they are."""
    return value if isinstance(value, str) else str(np.float32(value))


def shown(text: str) -> str:
    """Text that can be written as UTF-8: other bytes of a file's name as ``\\udcXX``."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def embeddings_writer(path: Path, count: int) -> Iterator[Write]:
    """What writes ``embeddings`` float32 (N, D), ``files`` and ``errors``, texts (N,), to an npz.

    Rows of images with an error are NaN; the error of the others is an empty text.

    Args:
      path: of the file, which ends in ``.npz``.
      count: N.
    """
    files: list[str] = []
    errors: list[str] = []
    with whole(path) as binary, zipfile.ZipFile(binary, "w", allowZip64=True) as archive:
        with archive.open("embeddings.npy", "w", force_zip64=True) as array:

            def write(rows: Predictions) -> None:
                if not files:
                    shape = (count, rows.embeddings.shape[1])
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(array, header)  # pyright: ignore
                array.write(rows.embeddings.astype("<f4").tobytes())
                files.extend(map(shown, rows.files))
                errors.extend(shown(error or "") for error in rows.errors)

            yield write
        for name, texts in (("files", files), ("errors", errors)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as array:
                np.lib.format.write_array(array, np.asarray(texts), allow_pickle=False)
