"""Ops on what the pixels are: decoding, channels, value range; and which features to keep."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.decode import MAX_PIXELS, DecodeError, PixelLimit, decode
from vision.data.ops.base import Example, image_of


@dataclasses.dataclass(frozen=True)
@checked
class Decode:
    """Encoded bytes to uint8 [H, W, 3] (or [H, W, 1]); see ``vision.data.decode.decode``.

    Arrays pass through unchanged, so that sources in memory can share a config with files.

    Attributes:
      key: the image feature.
      mode: ``rgb`` or ``grey``.
      max_pixels: larger images are refused by their header.
      strict: refuse JPEGs that decode only with warnings.
    """

    key: str = "image"
    mode: Literal["rgb", "grey"] = "rgb"
    max_pixels: PixelLimit = MAX_PIXELS
    strict: bool = True

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.key not in example:
            raise ValueError(f"Decode: no feature {self.key!r} among {sorted(example)}")
        data = example[self.key]
        if isinstance(data, np.ndarray) and data.dtype.kind in "biuf":
            return example
        if not isinstance(data, bytes | bytearray | memoryview):
            raise DecodeError(f"{self.key!r} is a {type(data).__name__}, not encoded bytes")
        image = decode(bytes(data), mode=self.mode, max_pixels=self.max_pixels, strict=self.strict)
        return {**example, self.key: image}


@dataclasses.dataclass(frozen=True)
class ToRgb:
    """Any uint8 or float image array to three channels.

    [H, W] and [H, W, 1] are repeated; [H, W, 4] is composited on white (uint8 only);
    [H, W, 3] stays as it is.

    Attributes:
      key: feature of the image.
    """

    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = example.get(self.key)
        if isinstance(image, np.ndarray) and image.ndim == 2:
            example = {**example, self.key: image[:, :, None]}
        image = image_of(example, self.key, "ToRgb")
        channels = image.shape[2]
        if channels == 3:
            return example
        if channels == 1:
            return {**example, self.key: np.repeat(image, 3, axis=2)}
        if channels == 4 and image.dtype == np.uint8:
            alpha = image[:, :, 3:].astype(np.uint32)
            # Integer division by 255 rounded to nearest, as in Porter and Duff's "over".
            mixed = (image[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255
            return {**example, self.key: mixed.astype(np.uint8)}
        raise ValueError(
            f"ToRgb: {self.key!r} is {image.dtype}{list(image.shape)}; "
            "expected 1, 3 or (uint8 only) 4 channels"
        )


@dataclasses.dataclass(frozen=True)
class ValueRange:
    """uint8 0..255 to float32: 0 becomes ``low``, 255 becomes ``high``, linear between.

    Attributes:
      low: what 0 becomes.
      high: what 255 becomes, above ``low``.
      key: feature of the image.
    """

    low: float = 0.0
    high: float = 1.0
    key: str = "image"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low={self.low}, high={self.high}: low must be less than high")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "ValueRange")
        if image.dtype != np.uint8:
            raise ValueError(
                f"ValueRange: {self.key!r} is {image.dtype}, expected uint8; use it once, after "
                "Decode and before Normalize"
            )
        scaled = np.divide(image, np.float32(255), dtype=np.float32)
        scaled *= np.float32(self.high - self.low)
        scaled += np.float32(self.low)
        return {**example, self.key: scaled}


@dataclasses.dataclass(frozen=True)
@checked
class Normalize:
    """float32 (x - mean) / std per channel; in the value range the image has at this point.

    The defaults are ImageNet's statistics for RGB in 0..1.

    Attributes:
      mean: one number per channel.
      std: one positive number per channel.
      key: feature of the image.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Positive[float], ...] = (0.229, 0.224, 0.225)
    key: str = "image"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean={self.mean}, std={self.std}: one of each per channel")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Normalize")
        if image.dtype != np.float32:
            raise ValueError(
                f"Normalize: {self.key!r} is {image.dtype}, expected float32; put ValueRange first"
            )
        if image.shape[2] != len(self.mean):
            raise ValueError(
                f"Normalize: {self.key!r} has {image.shape[2]} channels, mean has {len(self.mean)}"
            )
        # By whole rows: numpy is slow where the last axis is short.
        height, width, channels = image.shape
        rows = image.reshape(height, width * channels)
        rows = rows - np.tile(np.asarray(self.mean, np.float32), width)
        rows /= np.tile(np.asarray(self.std, np.float32), width)
        return {**example, self.key: rows.reshape(image.shape)}


@dataclasses.dataclass(frozen=True)
class Keep:
    """Leaves only these features (and private ones, whose names start with ``_``).

    Attributes:
      features: names.
    """

    features: tuple[str, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        _require(example, self.features, "Keep")
        return {k: v for k, v in example.items() if k in self.features or k.startswith("_")}


@dataclasses.dataclass(frozen=True)
class Drop:
    """Removes these features, which must be there.

    Attributes:
      features: names.
    """

    features: tuple[str, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        _require(example, self.features, "Drop")
        return {k: v for k, v in example.items() if k not in self.features}


def _require(example: Example, features: tuple[str, ...], op: str) -> None:
    for name in features:
        if name not in example:
            raise ValueError(f"{op}: no feature {name!r} among {sorted(example)}")


@dataclasses.dataclass(frozen=True)
class UniformNoise:
    """Every value of a uint8 image drawn anew, 0..255: an out-of-distribution input.

    Attributes:
      key: feature of the image.
    """

    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "UniformNoise")
        if image.dtype != np.uint8:
            raise ValueError(
                f"UniformNoise: {self.key!r} is {image.dtype}; put it before ValueRange"
            )
        return {**example, self.key: rng.integers(0, 256, image.shape, np.uint8)}
