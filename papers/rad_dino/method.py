"""RAD-DINO: continued DINOv2 pretraining on chest X-rays, without reports.

An encoder pretrained on natural images by DINOv2 (``vision.objectives.self_distill``) is trained
further on chest X-rays alone, at high resolution, and is on a par with or better than encoders
trained with radiology reports. The augmentations differ from DINOv2's: grey levels have a meaning
in radiographs, so there is no solarisation, inversion or hue change, brightness and contrast vary
little, and crops are larger.

Evaluation with a frozen backbone: a linear head for every finding, mean AUPRC, and a linear head on
patches, Dice (``vision.evaluators.features.linear_heads``).

Perez-Garcia et al., Exploring scalable medical image encoders beyond text supervision, 2025.
Headline: 882,775 radiographs; at or above BioViL-T, BiomedCLIP and MRM in AUPRC on VinDr-CXR;
masked image modelling and resolution matter most for segmentation. The exact list of augmentations
is unconfirmed. Not here: report generation by a language model. ``Film`` and ``Findings`` turn
procedural scenes into synthetic radiographs.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np

from vision.config.ranges import Gt, Le, NonNegative, checked
from vision.data.ops.base import Example, Op, image_of
from vision.data.ops.colour import ColorJitter, GaussianBlur
from vision.data.ops.geometry import RandomFlip, RandomResizedCrop
from vision.data.ops.resizing import Method
from vision.data.ops.views import MultiCrop


def film_views(
    size: int = 518,
    local_size: int = 196,
    num_local: int = 8,
    scales: tuple[float, float] = (0.5, 0.2),
    jitter: float = 0.2,
    method: Method = "bicubic",
) -> MultiCrop:
    """Two global and ``num_local`` local crops of a radiograph: see the module.

    Args:
      size: side of the global crops, px.
      local_size: side of the local crops, px.
      num_local: number of local crops.
      scales: least share of the area of global crops, which go up to 1, and of local crops, which
        go up to the least of the global ones.
      jitter: largest relative change of brightness and contrast.
      method: of resizing.
    """

    def view(side: int, scale: tuple[float, float], blur: float) -> tuple[Op, ...]:
        return (
            RandomResizedCrop(side, scale, method=method),
            RandomFlip(),
            ColorJitter(jitter, jitter, 0.0, 0.0, probability=0.8),
            GaussianBlur(blur),
        )

    wide, narrow = (scales[0], 1.0), (scales[1], scales[0])
    large = (view(size, wide, 1.0), view(size, wide, 0.1))
    return MultiCrop(large, (view(local_size, narrow, 0.5),) * num_local)


@dataclasses.dataclass(frozen=True)
@checked
class Film:
    """An image as a synthetic radiograph: grey, low contrast, with noise; uint8 [H, W, 3] to same.

    Attributes:
      contrast: factor of the differences from middle grey.
      grain: standard deviation of normal noise, in grey levels of 255.
      key: name of the image.
    """

    contrast: Annotated[float, Gt(0), Le(1)] = 0.3
    grain: NonNegative[float] = 8.0
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Film").astype(np.float32)
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        noise = self.grain * rng.standard_normal(grey.shape, np.float32)
        film = np.rint(np.clip(128 + self.contrast * (grey - 128) + noise, 0, 255))
        return {**example, self.key: np.repeat(film.astype(np.uint8)[:, :, None], 3, 2)}


@dataclasses.dataclass(frozen=True)
class Findings:
    """Findings from a segmentation: which of some classes it shows.

    ``segmentation`` uint8 [H, W] becomes 0 for background and 1 + the index in ``codes`` of a
    pixel's code; other codes are background. ``findings`` int32 [K] is 1 for those that occur.

    Attributes:
      codes: codes of the K findings in the segmentation.
      key: name of the segmentation.
    """

    codes: tuple[int, ...]
    key: str = "segmentation"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        lookup = np.zeros(256, np.uint8)
        lookup[list(self.codes)] = 1 + np.arange(len(self.codes))
        segmentation = lookup[example[self.key]]
        findings = np.isin(1 + np.arange(len(self.codes)), segmentation).astype(np.int32)
        return {**example, self.key: segmentation, "findings": findings}
