"""What a model said of images: one row per image, in their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model said of one image.

    Attributes:
      file: its path, or ``image 3`` for the fourth one that is none.
      probabilities: class to probability, in the order of the model's classes; empty where there
        is an error, and of a regression.
      error: why the image could not be used; None where it could.
      numbers: what a regression says, in the unit of its target; empty where there is an error, and
        of a model with classes.
    """

    file: str
    probabilities: Mapping[str, float]
    error: str | None = None
    numbers: tuple[float, ...] = ()

    def top(self, count: int) -> dict[str, float]:
        """The likeliest classes first; of equal ones the earlier."""
        ordered = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        return dict(ordered[:count])

    @property
    def label(self) -> str | None:
        """The likeliest class; None where there is an error."""
        return next(iter(self.top(1)), None)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictions(Sequence[Prediction]):
    """A sequence of ``Prediction``, kept as arrays.

    Attributes:
      files: N paths or names.
      classes: K names, each once.
      probabilities: float32 (N, K), NaN where there is an error; (N, 0) where none were asked for.
      embeddings: float32 (N, D), NaN where there is an error; (N, 0) where none were asked for.
      errors: N reasons, None for images that were read.
      numbers: float32 (N, T) of a regression of T numbers, NaN where there is an error; None of a
        model with classes, or where they were not asked for.
    """

    files: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    embeddings: np.ndarray
    errors: tuple[str | None, ...]
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Prediction:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(index, slice):
            raise TypeError("take one prediction at a time, or slice the arrays")
        error = self.errors[index]
        row = () if error is not None else self.probabilities[index].tolist()
        said = dict(zip(self.classes, row, strict=False))
        numbers = () if error is not None or self.numbers is None else self.numbers[index].tolist()
        return Prediction(self.files[index], said, error, tuple(numbers))

    def __iter__(self) -> Iterator[Prediction]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        bad = sum(error is not None for error in self.errors)
        unreadable = f", {bad} with an error" if bad else ""
        return f"Predictions({len(self)} images, {len(self.classes)} classes{unreadable})"


def joined(parts: Sequence[Predictions]) -> Predictions:
    """One after the other; at least one."""
    numbers = [part.numbers for part in parts if part.numbers is not None]
    return Predictions(
        files=tuple(file for part in parts for file in part.files),
        classes=parts[0].classes,
        probabilities=np.concatenate([part.probabilities for part in parts]),
        embeddings=np.concatenate([part.embeddings for part in parts]),
        errors=tuple(error for part in parts for error in part.errors),
        numbers=np.concatenate(numbers) if len(numbers) == len(parts) else None,
    )


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names, those that stand twice with their numbers: ``crane (134)``, ``crane (517)``.

    ImageNet has two classes called crane, and a table that is keyed by names would lose one.
    """
    taken = {name for name in names if names.count(name) == 1}
    found = []
    for number, name in enumerate(names):
        unique = name
        if name not in taken:
            unique = f"{name} ({number})"
            while unique in taken:
                unique += "'"
            taken.add(unique)
        found.append(unique)
    return tuple(found)
