"""What a model says of data, computed once and kept on disk for every evaluator after it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
from absl import logging

from vision.checkpoint.checksum import checksum, total
from vision.checkpoint.stored import flatten
from vision.data.fingerprint import fingerprint, ops_identity
from vision.evaluate.evaluator import EvaluationData, Predict
from vision.parallel import cluster
from vision.run.restore import Run
from vision.run.workdir import CONFIG, WorkdirError
from vision.train.objective import Variables

_FORMAT = 1
_INDEX = "_index"
_ROOMS = ("core", "models", "blocks", "objectives", "methods")
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")

Rows = dict[str, np.ndarray]
Read = Callable[[tuple[str, ...], tuple[str, ...]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStore:
    """Arrays with one row per record, in one folder per model and data.

    The folder's name is a hash of the weights, the config of model and objective, our code that
    computes with them, the packages' versions, the ops with their code, and the content of the
    source: whatever of these changes, its arrays are made again. Nothing is ever deleted.

    Attributes:
      root: folder of the folders; made when something is kept.
      predict: whose outputs are kept. Of another function nothing is.
      identity: of weights and code, see ``identity``.
    """

    root: Path
    predict: Predict
    identity: str
    _sources: dict[int, tuple[Any, str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, run: Run, workdir: Path, root: Path) -> FeatureStore:
        """The store of a run that was read from ``workdir``."""
        config = json.loads((workdir / CONFIG).read_text(encoding="utf-8"))
        named = [config.get("model"), config.get("objective")]
        return cls(root, run.predict, identity(run.variables, named))

    def rows(
        self,
        predict: Predict,
        data: EvaluationData,
        required: tuple[str, ...],
        optional: tuple[str, ...],
        read: Read,
    ) -> Rows:
        """The arrays with these names and ``_index``, kept or read; kept ones are memory maps.

        All processes call it together. Only process 0 writes.

        Args:
          required: names of outputs and of features of the batch.
          optional: names of features of the batch that may not be there.
          read: ``read(required, optional)`` reads the data once and gives both and ``_index``.

        Raises:
          WorkdirError: the folder cannot be written.
        """
        folder = self.folder(predict, data)
        if folder is None:
            return dict(read(required, optional))
        absent = _absent(folder)
        wanted = (*required, *(name for name in optional if name not in absent), _INDEX)
        found = {name: x for name in wanted if (x := _load(folder, name)) is not None}
        # A folder of one machine may be missing on another, but all read or none.
        there = [set(names) for names in cluster.gather(sorted(found))]
        found = {name: x for name, x in found.items() if all(name in names for names in there)}
        missing = [name for name in wanted if name not in found]
        if not missing:
            logging.info("features of %s: all from %s", data.source.info.name, folder)
            return found
        new = dict(
            read(
                tuple(name for name in required if name in missing),
                tuple(name for name in optional if name in missing),
            )
        )
        if _INDEX in found and not np.array_equal(found[_INDEX], new[_INDEX]):
            # A record that could not be read is masked: which ones may change without a trace.
            new, found = dict(read(required, optional)), {}
        if cluster.is_main():
            _save(folder, new, absent | {name for name in optional if name not in {**found, **new}})
        return found | new

    def folder(self, predict: Predict, data: EvaluationData) -> Path | None:
        """Where files about the model and ``data`` are; None where nothing can be kept."""
        if predict is not self.predict:
            return None
        try:
            return self.root / self._key(data)
        except ValueError as error:
            logging.warning("features of %s are not kept: %s", data.source.info.name, error)
            return None

    def _key(self, data: EvaluationData) -> str:
        source = data.source
        known = self._sources.get(id(source))
        if known is None:
            known = self._sources[id(source)] = (source, fingerprint(source))
        reading = [ops_identity(getattr(data, "ops", ())), getattr(data, "on_error", "raise")]
        named = json.dumps([_FORMAT, self.identity, *reading, known[1]])
        return hashlib.sha256(named.encode()).hexdigest()[:32]


def identity(variables: Variables, config: Any) -> str:
    """A hash of weights, of the config of what they belong to, and of code and packages.

    All processes call it together.
    """
    arrays = sorted(flatten(variables).items())
    sums = {name: total(checksum(x)) for name, x in arrays}
    shapes = {name: [x.dtype.name, *x.shape] for name, x in arrays}
    digest = hashlib.sha256(json.dumps([_FORMAT, shapes, config], sort_keys=True).encode())
    # Of weights that are split between processes each knows its own parts.
    mine = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
    digest.update(json.dumps(cluster.gather(mine)).encode())
    root = Path(__file__).resolve().parents[1]
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    for package in _PACKAGES:
        digest.update(f"{package}=={metadata.version(package)}\0".encode())
    digest.update(jax.default_backend().encode())
    return digest.hexdigest()


def _file(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.npy"


def _absent(folder: Path) -> set[str]:
    """Optional names that the batches do not have."""
    try:
        return set(json.loads((folder / "absent.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def _load(folder: Path, name: str) -> np.ndarray | None:
    path = _file(folder, name)
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logging.warning("%s is damaged and made again: %s", path, error)
        return None


def _save(folder: Path, arrays: Rows, absent: set[str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, x in arrays.items():
            replace(_file(folder, name), lambda file, x=x: np.save(file, x, allow_pickle=False))
        text = json.dumps(sorted(absent)).encode()
        replace(folder / "absent.json", lambda file: file.write(text))
    except OSError as error:
        raise WorkdirError(
            f"features cannot be kept in {folder}: {error.strerror}; free some space, or leave "
            "--features out"
        ) from error


def replace(path: Path, write: Callable[[Any], Any]) -> None:
    """Makes a file in one step: a reader or a killed process never leaves half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
