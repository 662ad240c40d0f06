"""Hyperspectral scenes: a cube of bands and a map of classes, from MATLAB files or made up."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import numpy as np

from vision.config.ranges import NonNegative, Positive, checked
from vision.data import files
from vision.data.source import DataError
from vision.data.table import fields_only


class Scene(Protocol):
    """What ``strata.LabelledPixels`` reads.

    Attributes:
      cube: (H, W, bands), numbers.
      labels: int (H, W), classes from 1 on, 0 where there is none.
      class_names: of 1, 2 and so on.
      paths: of the files that it comes from.
    """

    @property
    def cube(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def paths(self) -> tuple[str, ...]: ...


@dataclasses.dataclass(frozen=True)
@checked
class MatScene:
    """Two MATLAB files (version 5, as those of Pavia and Salinas), read on first use.

    Attributes:
      path: of the cube.
      variable: its name in the file.
      labels_path: of the map of classes.
      labels_variable: its name in the file.
      class_names: of classes 1, 2 and so on.
      bands: that a cube has to have, those that a network was trained on.

    Raises:
      DataError: on first use: a file or a variable is not there, the cube has other bands or is not
        finite, the map has another size, or more classes than names.
    """

    path: str
    variable: str
    labels_path: str
    labels_variable: str
    class_names: tuple[str, ...]
    bands: Positive[int]

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path, self.labels_path)

    @functools.cached_property
    def cube(self) -> np.ndarray:
        cube = _variable(self.path, self.variable)
        if cube.ndim != 3 or cube.shape[-1] != self.bands:
            raise DataError(
                f"{self.path}: {self.variable} is {cube.shape}, wanted (height, width, "
                f"{self.bands}): other bands need a network of their own (bands={cube.shape[-1]})"
            )
        if not np.isfinite(cube).all():
            raise DataError(f"{self.path}: {self.variable} has values that are not finite")
        return cube

    @functools.cached_property
    def labels(self) -> np.ndarray:
        labels = _variable(self.labels_path, self.labels_variable)
        if labels.shape != self.cube.shape[:2]:
            raise DataError(
                f"{self.labels_path}: {self.labels_variable} is {labels.shape}, but the cube has "
                f"{self.cube.shape[:2]} pixels"
            )
        if labels.min() < 0 or labels.max() > len(self.class_names):
            raise DataError(
                f"{self.labels_path}: classes are {labels.min()} to {labels.max()}, but there are "
                f"{len(self.class_names)} names, from 1 on; 0 is no class"
            )
        return labels.astype(np.int32)


def _variable(path: str, name: str) -> np.ndarray:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        with files.opened(path) as opened:
            found = loadmat(opened)
    except (OSError, ValueError, NotImplementedError, TypeError, MatReadError) as error:
        raise DataError(f"{path}: no readable MATLAB file of version 5: {error}") from error
    if name not in found:
        there = ", ".join(key for key in found if not key.startswith("__"))
        raise DataError(f"{path} has no variable {name!r}; it has {there}")
    return np.asarray(found[name])


@dataclasses.dataclass(frozen=True)
@checked
class DrawnScene:
    """A made-up scene: the class of a pixel is the largest of smooth random fields.

    The spectrum of a class is the sum of three bumps over the bands; every pixel has it with noise
    of its own in every band. A pixel's spectrum alone says less about its class than those of its
    surroundings.

    Attributes:
      side: height and width in pixels.
      bands: number of bands.
      classes: number of classes.
      blur: standard deviation in pixels of the Gaussian that smooths the fields.
      noise: standard deviation in every band, where a spectrum has one of 1.
      shuffled: pixels change their places, with their classes: nothing is left of surroundings.
      seed: of everything.
    """

    side: Positive[int] = 48
    bands: Positive[int] = 32
    classes: Positive[int] = 6
    blur: Positive[float] = 4.0
    noise: NonNegative[float] = 2.0
    shuffled: bool = False
    seed: int = 0

    def __getstate__(self) -> dict[str, Any]:
        return fields_only(self)

    @property
    def paths(self) -> tuple[str, ...]:
        return ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"material {i}" for i in range(1, self.classes + 1))

    @functools.cached_property
    def _drawn(self) -> tuple[np.ndarray, np.ndarray]:
        from scipy.ndimage import gaussian_filter

        rng = np.random.default_rng(self.seed)
        fields = rng.normal(size=(self.classes, self.side, self.side))
        smooth = np.stack([gaussian_filter(each, self.blur, mode="wrap") for each in fields])
        labels = smooth.argmax(0)
        middle, width = rng.random((2, self.classes, 3, 1))
        band = np.linspace(0, 1, self.bands)
        bumps = np.exp(-np.square((band - middle) / (0.05 + 0.15 * width)) / 2).sum(1)
        spectra = (bumps - bumps.mean(1, keepdims=True)) / bumps.std(1, keepdims=True)
        cube = spectra[labels] + self.noise * rng.normal(size=(*labels.shape, self.bands))
        if self.shuffled:
            order = rng.permutation(labels.size)
            labels = labels.reshape(-1)[order].reshape(labels.shape)
            cube = cube.reshape(labels.size, -1)[order].reshape(cube.shape)
        return cube.astype(np.float32), labels.astype(np.int32) + 1

    @property
    def cube(self) -> np.ndarray:
        return self._drawn[0]

    @property
    def labels(self) -> np.ndarray:
        return self._drawn[1]
