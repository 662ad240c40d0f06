"""Per-example ops on the host, in numpy, under one name: ``ops.Decode``, ``ops.RandomFlip``."""

from vision.data.ops.auto import RandAugment
from vision.data.ops.fused import DecodeCrop
from vision.data.ops.geometry import CenterCrop, RandomCrop, RandomFlip, RandomResizedCrop, Resize
from vision.data.ops.mask import RandomErasing
from vision.data.ops.values import Decode, Drop, Keep, Normalize, ToRgb, ValueRange

__all__ = [
    "CenterCrop",
    "Decode",
    "DecodeCrop",
    "Drop",
    "Keep",
    "Normalize",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomResizedCrop",
    "Resize",
    "ToRgb",
    "ValueRange",
]
