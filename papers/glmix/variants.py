"""The published GLNets: widths and depths of stages, where attention is among all tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from papers.glmix.block import Mixing

Variant = Literal["4g", "9g", "16g", "stl", "stl_learned"]
Attended = Literal["none", "half", "all"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A published tower.

    Attributes:
      widths: channels of its stages.
      depths: blocks of its stages.
      attended: blocks of each stage that attend among all tokens in the place of slots: none, the
        second, fourth and so on, or all.
      swin: Swin's layout: patches that do not overlap.
      mixing: what all blocks have in common.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...] = (4, 4, 18, 4)
    attended: tuple[Attended, ...] = ("none", "none", "half", "all")
    swin: bool = False
    mixing: Mixing = Mixing(position=3, mlp_ratio=3, mlp_local=True)  # noqa: RUF009 - frozen


_SWIN = Plan((96, 192, 384, 768), (2, 2, 6, 2), ("none", "none", "none", "all"), True, Mixing())
_LARGE = Plan((128, 256, 512, 1024))
PLANS: Mapping[Variant, Plan] = {
    "4g": Plan((64, 128, 256, 512)),
    "9g": Plan((96, 192, 384, 768)),
    "16g": dataclasses.replace(_LARGE, mixing=dataclasses.replace(_LARGE.mixing, layer_scale=1e-4)),
    "stl": _SWIN,
    "stl_learned": dataclasses.replace(_SWIN, mixing=Mixing(learned_slots=True)),
}
