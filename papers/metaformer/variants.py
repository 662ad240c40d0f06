"""The published MetaFormers: widths and depths of their stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Variant = Literal["0", "1", "2"]


class Plan(NamedTuple):
    """A tower.

    Attributes:
      widths: channels of the stem, of two stages of convolutions and of two of attention.
      depths: blocks of the four stages.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int]


PLANS: Mapping[Variant, Plan] = {
    "0": Plan((64, 96, 192, 384, 768), (2, 3, 5, 2)),
    "1": Plan((64, 96, 192, 384, 768), (2, 6, 14, 2)),
    "2": Plan((128, 128, 256, 512, 1024), (2, 6, 14, 2)),
}
