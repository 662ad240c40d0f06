"""Pictures of one product, some with a small thing on it that does not belong there."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal

import numpy as np

from vision.config.ranges import Fraction, NonNegative, Positive, PositiveRange, checked
from vision.data.fingerprint import content
from vision.data.source import SourceInfo
from vision.data.sources.emoji import Emoji, packed
from vision.data.sources.emoji.compose import Placed, compose
from vision.data.sources.emoji.packed import Drawing

GROUPS = ("animals-nature", "food-drink", "objects", "travel-places", "activities")


@dataclasses.dataclass(frozen=True, kw_only=True)
@checked
class Defects:
    """One emoji as a product, photographed again and again; defects are pieces of other emoji.

    The product lies a little elsewhere, larger or smaller, and turned by up to 5 degrees on a
    ground of ``scenes`` in every picture. A defect is another emoji, reduced to a fifth of the
    side, on top of it. Features: ``image`` uint8[H, W, 3]; ``label`` int32, 1 for a defect;
    ``masks`` bool[H, W], of the defect.

    Attributes:
      seed: chooses product, ground and defects.
      num_examples: of pictures.
      image_size: side in pixels.
      rate: share of pictures with a defect, each by itself.
      kinds: ``each`` defect is another emoji, or one and the ``same`` emoji, turned alike.
      side: smallest and largest side of a defect, shares of the image's.
    """

    seed: NonNegative[int] = 0
    num_examples: Positive[int] = 60
    image_size: Positive[int] = 48
    rate: Fraction = 1 / 3
    kinds: Literal["each", "same"] = "each"
    side: PositiveRange = (0.16, 0.24)

    @functools.cached_property
    def _emoji(self) -> Emoji:
        kinds = ("paper", "brick", "stone", "night")
        return Emoji(
            seed=self.seed,
            split="defects",
            image_size=self.image_size,
            houses=("noto",),
            groups=GROUPS,
            backgrounds=(kinds[self.seed % len(kinds)],),
        )

    def _drawing(self, u: float) -> Drawing:
        return self._emoji.drawings[int(u * len(self._emoji.drawings))]

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(
            name=f"defects/{self.seed}",
            num_examples=len(self),
            class_names=("normal", "defect"),
            features={
                "image": f"uint8[{self.image_size},{self.image_size},3], 0..255",
                "label": "int32, 0..1",
                "masks": f"bool[{self.image_size},{self.image_size}]",
            },
            licence=self._emoji.info.licence,
        )

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        first = np.random.default_rng([self.seed, 1]).random(2)
        u = np.random.default_rng([self.seed, 2, index]).random(12)
        y, x = 0.5 + 0.1 * (u[0:2] - 0.5)
        half = 0.38 + 0.06 * u[2]
        things = [Placed(self._drawing(first[0]), half, y, x, 10 * u[3] - 5)]
        if u[4] < self.rate:
            low, high = self.side
            size = low + (high - low) * u[5]
            at_y, at_x = (y, x) + half * (u[6:8] - 0.5)
            same = self.kinds == "same"
            other = self._drawing(first[1] if same else u[8])
            things.append(Placed(other, size / 2, at_y, at_x, 0.0 if same else 360 * u[9]))
        made = compose(self._emoji.ground(index), things, (self.image_size, self.image_size))
        mask = made.instances == 2
        return {"image": made.image, "label": np.int32(mask.any()), "masks": mask}

    def key(self, index: int) -> str:
        return f"{self.info.name}/{index}"

    def fingerprint(self) -> str:
        """Changes with the arguments, the drawings and this file."""
        return content(self, paths=(str(packed.PATH),))
