"""RAD-DINO: self-distillation goes on with images of one domain, without their reports.

An encoder that has learned general images by DINOv2 (``vision.objectives.self_distill``) goes on
with chest X-rays alone, at high resolution, and is then as good as or better than those that
learned from radiologists' texts. What changes is what the crops may do: grey levels mean something
in a film, so none is solarised, inverted or turned in colour, brightness and contrast vary little,
and crops are wider than those of DINO.

Judged with the backbone frozen: a linear head for every finding, mean AUPRC, and a linear head on
patches, Dice (``vision.evaluators.features.linear_heads``).

Perez-Garcia et al., Exploring scalable medical image encoders beyond text supervision, 2025.
Headline: 882,775 films; at or above BioViL-T, BiomedCLIP and MRM in AUPRC on VinDr-CXR; hidden
patches and resolution matter most for segmentation. The exact list of augmentations is
unconfirmed; reports by a language model are not here. ``Film`` and ``Findings`` make films of
procedural scenes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

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
    """Two large and ``num_local`` small crops of a film: see the module.

    Args:
      size: side of the large crops.
      local_size: side of the small ones.
      num_local: how many.
      scales: the share of a film that large crops show at least, up to all; and small ones, up to
        the least of the large.
      jitter: brightness and contrast change by at most this share.
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
class Film:
    """A picture as a film: grey, of little contrast, with grain. uint8 [H, W, 3] stays that.

    Attributes:
      contrast: what distances from middle grey are multiplied by.
      grain: standard deviation of normal noise, in grey levels of 255.
      key: the image feature.
    """

    contrast: float = 0.3
    grain: float = 8.0
    key: str = "image"

    def __post_init__(self) -> None:
        if not (0 < self.contrast <= 1 and self.grain >= 0):
            raise ValueError("contrast: in (0, 1]; grain: not negative")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Film").astype(np.float32)
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        noise = self.grain * rng.standard_normal(grey.shape, np.float32)
        film = np.rint(np.clip(128 + self.contrast * (grey - 128) + noise, 0, 255))
        return {**example, self.key: np.repeat(film.astype(np.uint8)[:, :, None], 3, 2)}


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a segmentation shows of some kinds.

    ``segmentation`` uint8 [H, W] becomes 0 for the ground and 1 + the place of a pixel's code in
    ``codes``; other codes are ground. ``findings`` int32 [K] is 1 for those that are there.

    Attributes:
      codes: of the kinds, K of them.
      key: feature of the segmentation.
    """

    codes: tuple[int, ...]
    key: str = "segmentation"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        places = np.zeros(256, np.uint8)
        places[list(self.codes)] = 1 + np.arange(len(self.codes))
        shown = places[example[self.key]]
        there = np.isin(1 + np.arange(len(self.codes)), shown).astype(np.int32)
        return {**example, self.key: shown, "findings": there}
