"""What an op is, and the two helpers that all image ops share.

An op is a frozen dataclass called as ``op(example, rng) -> example``. It returns a new dict and
never changes the arrays it was given. Randomness comes from ``rng`` only, which the pipeline
derives from the seed and the position in the stream; an op must not keep it.

Ops note what they did to the geometry, and what they drew, in ``example["_draws"]``: a dict
from the op's name (``RandomFlip``; the second one of an example ``RandomFlip#2``) to its
parameters, in the order of application, so that boxes, masks and stored views can follow:

    ``size``   (height, width) of the image before
    ``box``    (top, left, height, width) cut out, in pixels of the image before; it may reach
               outside the image, where padding was put
    ``to``     (height, width) after
    ``flip``   whether the image was mirrored, and ``axis``
    ``pad``    (top, bottom, left, right) added before cropping

A record at fault (not an image, damaged) raises ``DataError``. A wrong order of ops or wrong
arguments raise ``ValueError``: no policy for bad records hides those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

Example = dict[str, Any]


class Op(Protocol):
    """Changes one example, on the host, in numpy."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example: ...


class DeviceOp(Protocol):
    """Changes a whole batch inside the compiled step: traced, on ``jax.Array``."""

    def __call__(self, batch: Mapping[str, Any], key: Any) -> dict[str, Any]: ...


def image_of(example: Mapping[str, Any], key: str, op: str) -> np.ndarray:
    """``example[key]`` as an array [H, W, C], or a ValueError that says what is missing."""
    if key not in example:
        raise ValueError(f"{op}: no feature {key!r} among {_names(example)}; set {op}.key")
    image = example[key]
    if isinstance(image, bytes | str):
        raise ValueError(f"{op}: {key!r} is still encoded; put Decode before {op}")
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(
            f"{op}: {key!r} has shape {image.shape}, expected [H, W, C]; put ToRgb before {op}"
        )
    return image


def noted(example: Mapping[str, Any], op: str, **drawn: Any) -> Example:
    """A copy of ``example`` with ``drawn`` under the op's name in ``_draws``."""
    draws = dict(example.get("_draws", {}))
    name, count = op, 1
    while name in draws:
        count += 1
        name = f"{op}#{count}"
    draws[name] = drawn
    return {**example, "_draws": draws}


def _names(example: Mapping[str, Any]) -> str:
    return ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
