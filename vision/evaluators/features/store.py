"""Outputs of a model for a data set, computed once and stored on disk for later evaluators."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np

from vision.checkpoint.checksum import checksum, total
from vision.checkpoint.reading import flatten
from vision.config.files import replace_file
from vision.config.hints import CONSTRUCTOR
from vision.config.schema import locate
from vision.data.fingerprint import fingerprint, ops_identity
from vision.evaluate.evaluator import EvaluationData, Predict
from vision.parallel import cluster
from vision.run.restore import Run
from vision.run.workdir import CONFIG, WorkdirError
from vision.train.objective import Variables

log = logging.getLogger(__name__)

_FORMAT = 1
_INDEX = "_index"
_ROOMS = ("train", "models", "blocks", "objectives")
_PACKAGES = ("jax", "jaxlib", "flax", "numpy")

Rows = dict[str, np.ndarray]
Read = Callable[[tuple[str, ...], tuple[str, ...]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureStore:
    """Arrays with one row per record, in one folder per model and data.

    The folder's name is a hash of the weights, the config of model and objective, our code that
    computes with them, the packages' versions, the ops with their code, and the content of the
    source: when any of these changes, the arrays are computed again. Nothing is ever deleted.

    Attributes:
      root: folder of the folders; made when something is stored.
      predict: the function whose outputs are stored; those of others are not.
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
        """The arrays with these names and ``_index``; stored ones are memory maps, others read.

        All processes call it together. Only process 0 writes.

        Args:
          required: names of outputs and of features of the batch.
          optional: names of features of the batch that may be missing.
          read: ``read(required, optional)`` reads the data once and gives both and ``_index``.

        Raises:
          WorkdirError: the folder cannot be written.
        """
        folder = self.folder(predict, data)
        if folder is None:
            return dict(read(required, optional))
        absent = _absent(folder)
        names = (*required, *(name for name in optional if name not in absent), _INDEX)
        stored = {name: x for name in names if (x := _load(folder, name)) is not None}
        # A folder of one machine may be missing on another, but all read or none.
        stored_everywhere = [set(process_names) for process_names in cluster.gather(sorted(stored))]
        stored = {
            name: x
            for name, x in stored.items()
            if all(name in process_names for process_names in stored_everywhere)
        }
        missing = [name for name in names if name not in stored]
        if not missing:
            log.info("features of %s: all from %s", data.source.info.name, folder)
            return stored
        fresh = dict(
            read(
                tuple(name for name in required if name in missing),
                tuple(name for name in optional if name in missing),
            )
        )
        if _INDEX in stored and not np.array_equal(stored[_INDEX], fresh[_INDEX]):
            # Unreadable records are masked, and which ones these are may change between runs.
            fresh, stored = dict(read(required, optional)), {}
        if cluster.is_main():
            _save(
                folder,
                fresh,
                absent | {name for name in optional if name not in {**stored, **fresh}},
            )
        return stored | fresh

    def folder(self, predict: Predict, data: EvaluationData) -> Path | None:
        """The folder of the model and ``data``; None where nothing can be stored."""
        if predict is not self.predict:
            return None
        try:
            return self.root / self._key(data)
        except ValueError as error:
            log.warning("features of %s are not stored: %s", data.source.info.name, error)
            return None

    def _key(self, data: EvaluationData) -> str:
        source = data.source
        cached = self._sources.get(id(source))
        if cached is None:
            cached = self._sources[id(source)] = (source, fingerprint(source))
        reading = [ops_identity(getattr(data, "ops", ())), getattr(data, "on_error", "raise")]
        named = json.dumps([_FORMAT, self.identity, *reading, cached[1]])
        return hashlib.sha256(named.encode()).hexdigest()[:32]


def identity(variables: Variables, config: Any) -> str:
    """A hash of weights, of the config of what they belong to, and of code and packages.

    All processes call it together.
    """
    arrays = sorted(flatten(variables).items())
    sums = {name: total(checksum(x)) for name, x in arrays}
    shapes = {name: [x.dtype.name, *x.shape] for name, x in arrays}
    digest = hashlib.sha256(json.dumps([_FORMAT, shapes, config], sort_keys=True).encode())
    # Where weights are sharded over processes, each process has its own parts.
    local = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
    digest.update(json.dumps(cluster.gather(local)).encode())
    root = Path(__file__).resolve().parents[1]
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    for path in _outside_files(config):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    for package in _PACKAGES:
        digest.update(f"{package}=={metadata.version(package)}\0".encode())
    digest.update(jax.default_backend().encode())
    return digest.hexdigest()


def _outside_files(config: Any) -> list[Path]:
    """Source files beside those of constructors outside ``vision``: papers' and users' own."""
    folders: set[Path] = set()
    nodes = [config]
    while nodes:
        node = nodes.pop()
        nodes += node.values() if isinstance(node, Mapping) else node if type(node) is list else []
        path = node.get(CONSTRUCTOR, "") if isinstance(node, Mapping) else ""
        if path and not path.startswith("vision."):
            folders.add(Path(inspect.getfile(locate(path))).resolve().parent)
    return sorted(file for folder in folders for file in folder.glob("*.py"))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.npy"


def _absent(folder: Path) -> set[str]:
    """Optional names that the batches lack."""
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
        log.warning("%s is damaged and computed again: %s", path, error)
        return None


def _save(folder: Path, arrays: Rows, absent: set[str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, x in arrays.items():
            with replace_file(_file(folder, name), unique=True) as part, part.open("wb") as file:
                np.save(file, x, allow_pickle=False)
        with replace_file(folder / "absent.json", unique=True) as part:
            part.write_text(json.dumps(sorted(absent)), encoding="utf-8")
    except OSError as error:
        raise WorkdirError(
            f"features cannot be stored in {folder}: {error.strerror}; free some space, or leave "
            "--features out"
        ) from error
