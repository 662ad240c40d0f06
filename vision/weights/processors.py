"""Image processors of transformers: their defaults, and the keys of their cards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclasses.dataclass(frozen=True)
class Processor:
    """The defaults of an image processor class of transformers.

    Attributes:
      method: by which it resizes.
      statistics: mean and deviation of each channel.
      size: before the crop, as its cards have it.
      crop: side of the crop; None for none.
      shortest: a single number in a card is the shorter side.
    """

    method: str
    statistics: tuple[tuple[float, ...], ...]
    size: Any
    crop: int | None = None
    shortest: bool = False


CLIP_LIKE = Processor("bicubic", CLIP, {"shortest_edge": 224}, 224, shortest=True)
PROCESSORS: Mapping[str, Processor] = {
    "Beit": Processor("bicubic", HALF, {"height": 224, "width": 224}),
    "Bit": CLIP_LIKE,
    "CLIP": CLIP_LIKE,
    "ConvNext": Processor("bicubic", HALF, {"shortest_edge": 384}, shortest=True),
    "DeiT": Processor("bicubic", HALF, {"height": 256, "width": 256}, 224),
    "DINOv3ViT": Processor("bilinear", IMAGENET, {"height": 224, "width": 224}),
    "Siglip": Processor("bicubic", HALF, {"height": 224, "width": 224}),
    "ViT": Processor("bilinear", HALF, {"height": 224, "width": 224}),
}
SUFFIXES = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
KEYS = (
    *("feature_extractor_type", "image_processor_type", "processor_class", "do_convert_rgb"),
    *("size", "crop_size", "crop_pct", "resample", "image_mean", "image_std", "rescale_factor"),
    *("do_resize", "do_center_crop", "do_rescale", "do_normalize", "default_to_square"),
    *("do_reduce_labels", "reduce_labels"),  # of segmentation maps
    *("data_format", "input_data_format", "device", "return_tensors", "disable_grouping"),
)
