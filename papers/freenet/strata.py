"""Global stratified sampling: the whole scene in every record, and which pixels count in it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from papers.freenet.scene import Scene
from vision.config.ranges import Positive, checked
from vision.data.fingerprint import content
from vision.data.source import DataError, SourceInfo
from vision.data.table import fields_only

NO_CLASS = -1


def split(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """bool (H, W): the pixels to learn from, ``per_class`` of every class, drawn at random.

    Args:
      labels: int (H, W), classes from 1 on, 0 for none.
      per_class: of these; a class that has no more leaves none to test on.
      seed: of the draw.
    """
    rng, flat = np.random.default_rng(seed), labels.reshape(-1)
    learned = np.zeros(flat.shape, bool)
    for kind in range(1, int(flat.max()) + 1):
        learned[rng.permutation(np.flatnonzero(flat == kind))[:per_class]] = True
    return learned.reshape(labels.shape)


def strata(labels: np.ndarray, learned: np.ndarray, size: int, seed: Any) -> list[np.ndarray]:
    """One pass: bool (H, W) masks that have every learned pixel once.

    A mask has ``size`` pixels of every class; classes that are used up drop out, and the last
    pixels of one may be fewer.

    Args:
      labels: int (H, W), classes from 1 on.
      learned: bool (H, W), of ``split``.
      size: pixels of a class in a stratum.
      seed: of the order in which pixels of a class are taken.
    """
    rng, flat = np.random.default_rng(seed), labels.reshape(-1)
    orders = [
        rng.permutation(np.flatnonzero((flat == kind) & learned.reshape(-1)))
        for kind in range(1, int(flat.max()) + 1)
    ]
    masks = []
    for start in range(0, max(map(len, orders), default=0), size):
        mask = np.zeros(flat.shape, bool)
        for order in orders:
            mask[order[start : start + size]] = True
        masks.append(mask.reshape(labels.shape))
    return masks


@dataclasses.dataclass(frozen=True)
@checked
class LabelledPixels:
    """Records of one scene: ``image`` float32 (H, W, bands), ``label_map`` int32 (H, W), -1 for no
    class, and ``counted`` bool (H, W), the pixels of this record's loss.

    Height and width are padded by zeros at the lower right to a multiple; bands have mean 0 and
    deviation 1 over the scene. Training records are the strata of one pass after another, to be
    read ``InOrder``; the order within a pass is random. The one test record counts all labelled
    pixels that were not learned from.

    Attributes:
      scene: cube and classes.
      part: ``train`` or ``test``.
      per_class: pixels of every class that are learned from.
      stratum: pixels of every class in a record.
      passes: over all of them; the source begins anew after these.
      multiple: of the sides.
      seed: of everything that is drawn.
    """

    scene: Scene
    part: Literal["train", "test"]
    per_class: Positive[int] = 200
    stratum: Positive[int] = 20
    passes: Positive[int] = 100
    multiple: Positive[int] = 16
    seed: int = 0

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cube, labels from 1 on and learned pixels, all padded."""
        cube, labels = self.scene.cube.astype(np.float32), self.scene.labels
        deviation = cube.std((0, 1))
        if not deviation.all():
            band = int(np.flatnonzero(deviation == 0)[0])
            raise DataError(f"{self.info.name}: band {band} is constant; leave it out of the cube")
        cube = (cube - cube.mean((0, 1))) / deviation
        learned = split(labels, self.per_class, self.seed)
        sides = [(0, -side % self.multiple) for side in labels.shape]
        return np.pad(cube, (*sides, (0, 0))), np.pad(labels, sides), np.pad(learned, sides)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - of one pass and the next
    def _pass(self, number: int) -> list[np.ndarray]:
        _, labels, learned = self._arrays
        masks = strata(labels, learned, self.stratum, (self.seed, number, 1))
        order = np.random.default_rng((self.seed, number, 2)).permutation(len(masks))
        return [masks[i] for i in order]

    @property
    def info(self) -> SourceInfo:
        names = self.scene.class_names
        features = {
            "image": "float32[H,W,bands], mean 0 and deviation 1",
            "label_map": f"int32[H,W], 0..{len(names) - 1}, -1 for no class",
            "counted": "bool[H,W], pixels of the loss",
        }
        name = f"{type(self.scene).__name__}/{self.part}"
        return SourceInfo(name, len(self), names, features)

    @functools.cached_property
    def _strata(self) -> int:
        most = max(
            min(int(np.sum(self.scene.labels == kind)), self.per_class)
            for kind in range(1, len(self.scene.class_names) + 1)
        )
        return -(-most // self.stratum)

    def __len__(self) -> int:
        return self._strata * self.passes if self.part == "train" else 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        cube, labels, learned = self._arrays
        if self.part == "train":
            counted = self._pass(index // self._strata)[index % self._strata]
        else:
            counted = (labels > 0) & ~learned
        label_map = (labels - 1).astype(np.int32)  # 0, no class, becomes NO_CLASS
        return {"image": cube.copy(), "label_map": label_map, "counted": counted.copy()}

    def key(self, index: int) -> str:
        return f"{self.info.name}/{index}"

    def fingerprint(self) -> str:
        return content(self, self.scene.paths)
