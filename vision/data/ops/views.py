"""Several views of one example: two-view and multi-crop policies of self-supervised learning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vision.config.ranges import NonEmpty, checked
from vision.data.ops.base import Example, Op, image_of
from vision.data.ops.colour import ColorJitter, GaussianBlur, RandomGrayscale, RandomSolarize
from vision.data.ops.geometry import RandomFlip, RandomResizedCrop
from vision.data.ops.resizing import Method


@dataclasses.dataclass(frozen=True)
@checked
class Views:
    """Runs each list of ops on the same example and stacks the images to [V, H, W, C].

    View v is the result of ``pipelines[v]``, each with its own draws, one after the other from the
    example's generator. What the ops noted is under ``_draws`` as ``{out}/{v}``, so that one can
    tell which part of the image each view shows. Annotations stay those of the whole image.

    Attributes:
      pipelines: a list of ops per view; all must give the same shape and dtype.
      out: the feature that is made; the same as ``key`` replaces the image.
      key: the image feature that is read.
    """

    pipelines: NonEmpty[tuple[tuple[Op, ...], ...]]
    out: str = "image"
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = image_of(example, self.key, "Views")
        draws: dict[str, Any] = dict(example.get("_draws", {}))
        views = []
        for v, pipeline in enumerate(self.pipelines):
            view: Example = {"image": image}
            for op in pipeline:
                view = op(view, rng)
            draws[f"{self.out}/{v}"] = view.get("_draws", {})
            views.append(image_of(view, "image", "Views"))
        if len({(view.shape, view.dtype) for view in views}) > 1:
            layouts = ", ".join(f"{view.dtype}{list(view.shape)}" for view in views)
            raise ValueError(f"Views: the views differ ({layouts}); give {self.out!r} one shape")
        return {**example, self.out: np.stack(views), "_draws": draws}


@dataclasses.dataclass(frozen=True)
@checked
class MultiCrop:
    """Global views to ``image/global`` [G, ...] and local ones to ``image/local`` [L, ...].

    Source: Caron et al., SwAV, 2020.

    Attributes:
      global_views: a list of ops per global view.
      local_views: a list of ops per local view; empty for none.
      key: the image feature; it is removed.
    """

    global_views: NonEmpty[tuple[tuple[Op, ...], ...]]
    local_views: tuple[tuple[Op, ...], ...] = ()
    key: str = "image"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        out = Views(self.global_views, f"{self.key}/global", self.key)(example, rng)
        if self.local_views:
            out = Views(self.local_views, f"{self.key}/local", self.key)(out, rng)
        del out[self.key]
        return out


def simclr_views(
    size: int = 224, strength: float = 1.0, blur: bool = True, method: Method = "bicubic"
) -> Views:
    """Two views ``image`` [2, size, size, 3] by SimCLR's policy: Chen et al., 2020, appendix A.

    Args:
      size: side of the views.
      strength: of the colour jitter: 0.8 s for three factors, 0.2 s for the hue.
      blur: with probability 0.5; SimCLR leaves it out on CIFAR.
      method: of resizing.
    """
    s = strength
    pipeline: tuple[Op, ...] = (
        RandomResizedCrop(size, method=method),
        RandomFlip(),
        ColorJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, probability=0.8),
        RandomGrayscale(0.2),
        *((GaussianBlur(0.5, (0.1, 2.0)),) if blur else ()),
    )
    return Views((pipeline, pipeline))


def dino_views(
    size: int = 224,
    local_size: int = 96,
    num_local: int = 8,
    split_scale: float = 0.4,
    method: Method = "bicubic",
) -> MultiCrop:
    """Two global and ``num_local`` local views by DINO's policy: Caron et al., 2021.

    Args:
      size: side of the global views.
      local_size: side of the local views.
      num_local: how many local views.
      split_scale: global views cover at least, local ones at most this share of the image.
      method: of resizing.
    """

    def view(side: int, scale: tuple[float, float], *last: Op) -> tuple[Op, ...]:
        return (
            RandomResizedCrop(side, scale, method=method),
            RandomFlip(),
            ColorJitter(0.4, 0.4, 0.2, 0.1, probability=0.8),
            RandomGrayscale(0.2),
            *last,
        )

    wide, narrow = (split_scale, 1.0), (0.05, split_scale)
    first = view(size, wide, GaussianBlur(1.0))
    second = view(size, wide, GaussianBlur(0.1), RandomSolarize(0.2))
    local = view(local_size, narrow, GaussianBlur(0.5))
    return MultiCrop((first, second), (local,) * num_local)
