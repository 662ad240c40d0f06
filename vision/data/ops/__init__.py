"""Per-example ops on the host, in numpy, under one name: ``ops.Decode``, ``ops.RandomFlip``."""

from vision.data.ops.auto import RandAugment
from vision.data.ops.captions import ShortenCaption
from vision.data.ops.classes import LabelToCaption
from vision.data.ops.colour import (
    ColorJitter,
    GaussianBlur,
    JpegCompression,
    RandomGrayscale,
    RandomSolarize,
)
from vision.data.ops.corruptions import Corruption
from vision.data.ops.fit import CenterPad, ResizeInto
from vision.data.ops.fused import DecodeCrop
from vision.data.ops.geometry import CenterCrop, RandomCrop, RandomFlip, RandomResizedCrop, Resize
from vision.data.ops.mask import BlockPatchMask, BlockPatchMasks, PatchMask, RandomErasing
from vision.data.ops.patchify import Patchify, ResizeToPatches
from vision.data.ops.policies import AugMix, AutoAugment, ThreeAugment, TrivialAugment
from vision.data.ops.text import SubCaptions, Tokenize
from vision.data.ops.values import (
    Decode,
    Drop,
    Keep,
    Normalize,
    ToRgb,
    UniformNoise,
    ValueRange,
)
from vision.data.ops.views import MultiCrop, Views, dino_views, simclr_views

__all__ = [
    "AugMix",
    "AutoAugment",
    "BlockPatchMask",
    "BlockPatchMasks",
    "CenterCrop",
    "CenterPad",
    "ColorJitter",
    "Corruption",
    "Decode",
    "DecodeCrop",
    "Drop",
    "GaussianBlur",
    "JpegCompression",
    "Keep",
    "LabelToCaption",
    "MultiCrop",
    "Normalize",
    "PatchMask",
    "Patchify",
    "RandAugment",
    "RandomCrop",
    "RandomErasing",
    "RandomFlip",
    "RandomGrayscale",
    "RandomResizedCrop",
    "RandomSolarize",
    "Resize",
    "ResizeInto",
    "ResizeToPatches",
    "ShortenCaption",
    "SubCaptions",
    "ThreeAugment",
    "ToRgb",
    "Tokenize",
    "TrivialAugment",
    "UniformNoise",
    "ValueRange",
    "Views",
    "dino_views",
    "simclr_views",
]
