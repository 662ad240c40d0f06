"""What is known of an image besides its pixels, as numbers: where, when, and attributes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vision.config.ranges import Fraction, Positive, checked
from vision.data.ops.base import Example

PLACE, TIME = 3, 4
"""Numbers of a place and of a time."""


def place_vector(latitude: float, longitude: float) -> np.ndarray:
    """The point of the unit sphere at degrees -90..90 and -180..180, float32 (3,); zeros where
    either is NaN: there is no point in the middle of the sphere."""
    _check("latitude", latitude, -90, 90)
    _check("longitude", longitude, -180, 180)
    if np.isnan(latitude) or np.isnan(longitude):
        return np.zeros(PLACE, np.float32)
    up, round_ = np.radians((latitude, longitude))
    point = (np.cos(up) * np.cos(round_), np.cos(up) * np.sin(round_), np.sin(up))
    return np.array(point, np.float32)


def time_vector(month: float, hour: float) -> np.ndarray:
    """Sine and cosine of a month 1..12 and of an hour 0..24 on their circles, float32 (4,); zeros
    for the one that is NaN."""
    _check("month", month, 1, 12)
    _check("hour", hour, 0, 24)
    turns = 2 * np.pi * np.array([month / 12, hour / 24])
    circles = np.stack([np.sin(turns), np.cos(turns)], 1).ravel()
    return np.nan_to_num(circles, nan=0.0).astype(np.float32)


def _check(what: str, value: float, low: float, high: float) -> None:
    if not (np.isnan(value) or low <= value <= high):
        raise ValueError(f"{what} {value} is outside {low}..{high}; NaN says that it is not known")


@dataclasses.dataclass(frozen=True)
@checked
class EncodeMeta:
    """``meta`` float32 (M,) from features of an example: time, place and attributes, in that order.

    What is not known is NaN, or no feature at all, and becomes zeros: the paper's answer.

    Attributes:
      time: feature of month and hour, float (2,); None for no time.
      place: feature of latitude and longitude in degrees, float (2,); None for no place.
      attributes: feature of any numbers (A,), such as a sentence's vector; None for none.
      num_attributes: A, for examples without them.

    Raises:
      ValueError: a value outside its range, or another number of values.
    """

    time: str | None = "time"
    place: str | None = "place"
    attributes: str | None = None
    num_attributes: Positive[int] = 1

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        parts = []
        if self.time is not None:
            parts.append(time_vector(*self._values(example, self.time, 2)))
        if self.place is not None:
            parts.append(place_vector(*self._values(example, self.place, 2)))
        if self.attributes is not None:
            known = self._values(example, self.attributes, self.num_attributes)
            parts.append(np.nan_to_num(known, nan=0.0).astype(np.float32))
        names = {self.time, self.place, self.attributes}
        kept = {name: x for name, x in example.items() if name not in names}
        return {**kept, "meta": np.concatenate(parts)}

    def _values(self, example: Any, name: str, count: int) -> np.ndarray:
        values = np.asarray(example.get(name, np.full(count, np.nan)), np.float64)
        if values.shape != (count,):
            raise ValueError(f"{name!r} has shape {values.shape}, {count} numbers were expected")
        return values


@dataclasses.dataclass(frozen=True)
@checked
class Sightings:
    """Simulated ``place`` and ``time`` of an example by its class, for drawings that have neither.

    Every class has one of ``sites`` places and a season, always the same; sightings scatter about
    them. Classes share places, so that neither image nor place says everything.

    Attributes:
      sites: number of places.
      scatter_deg: deviation of latitude and longitude; months scatter by a tenth of it.
      missing: share of examples of which nothing is known: NaN.
    """

    sites: Positive[int] = 8
    scatter_deg: Positive[float] = 20.0
    missing: Fraction = 0.0

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        home = np.random.default_rng([int(example["label"]), 5])
        site = np.random.default_rng([int(home.integers(self.sites)), 6])
        latitude, longitude = site.uniform(-60, 60), site.uniform(-180, 180)
        season, hour = home.uniform(0, 12), home.uniform(0, 24)
        noise = self.scatter_deg * rng.standard_normal(4)
        latitude = np.clip(latitude + noise[0], -90, 90)
        longitude = (longitude + noise[1] + 180) % 360 - 180
        month = 1 + int(season + 0.1 * noise[2]) % 12
        place, time = (latitude, longitude), (month, (hour + 0.1 * noise[3]) % 24)
        if rng.random() < self.missing:
            place = time = (np.nan, np.nan)
        return {
            **example,
            "place": np.asarray(place, np.float32),
            "time": np.asarray(time, np.float32),
        }
