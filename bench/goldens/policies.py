"""Writes tests/golden/policies.npz: strengths and pixels of timm's and torchvision's policies.

    .venv-peers/bin/python bench/goldens/policies.py

Needs timm, torchvision and torch; see bench/requirements-peers.txt.
"""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image

# torchvision's compiled operators are for CUDA builds of torch; augmentation needs none of them,
# but importing it asks for their names.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402
from timm.data import auto_augment as timm_ops  # noqa: E402
from torchvision.transforms import InterpolationMode, autoaugment  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "policies.npz"
SIZE = (16, 22)  # height, width
GREY = (128, 128, 128)


def photo() -> Image.Image:
    """Colour, texture, edges, and a value range that AutoContrast and Equalize change."""
    rng = np.random.RandomState(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    planes = [40 + 5 * x, 220 - 6 * y, 90 + 60 * np.sin(x / 3) * np.cos(y / 4)]
    image = np.stack(planes, -1) + rng.randint(0, 20, (*SIZE, 3))
    image[4:10, 6:14] = (250, 30, 60)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def timm_goldens(image: Image.Image) -> tuple[dict, dict[str, np.ndarray]]:
    policy = timm_ops.rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": GREY})
    levels, pixels = {}, {}
    hparams = {"img_mean": GREY, "interpolation": Image.BILINEAR, "magnitude_std": 0}
    for op in policy.ops:
        for negative in (False, True):
            timm_ops.random = types.SimpleNamespace(random=lambda n=negative: float(n))
            for magnitude in np.arange(0, 10.5, 0.5).tolist():
                if op.level_fn is not None:
                    level = op.level_fn(magnitude, hparams)[0]
                    levels[f"{op.name}/{magnitude}/{int(negative)}"] = level
            for magnitude in (3.5, 9.0):
                one = timm_ops.AugmentOp(op.name, 1.0, magnitude, hparams)
                out = np.asarray(one(image))
                pixels[f"timm/{op.name}/{magnitude}/{int(negative)}"] = out
    facts = {
        "ops": [[op.name, op.prob, op.magnitude, op.magnitude_std] for op in policy.ops],
        "num_layers": policy.num_layers,
        "levels": levels,
    }
    return facts, pixels


def torchvision_goldens(image: Image.Image) -> tuple[dict, dict[str, np.ndarray]]:
    auto, wide, mix = (
        autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.IMAGENET),
        autoaugment.TrivialAugmentWide(),
        autoaugment.AugMix(),
    )
    cifar10 = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.CIFAR10)
    spaces = {
        "auto": auto._augmentation_space(10, SIZE),
        "wide": wide._augmentation_space(31),
        "mix": mix._augmentation_space(11, SIZE),
    }
    facts = {
        "policies": {"imagenet": auto.policies, "cifar10": cifar10.policies},
        "spaces": {
            name: {
                op: [np.atleast_1d(values).tolist(), signed] for op, (values, signed) in s.items()
            }
            for name, s in spaces.items()
        },
        "mix_fill": mix.fill,
        "wide_fill": wide.fill,
    }
    pixels = {}
    for name, places in (("auto", (3, 8)), ("wide", (7, 25))):
        for op, (values, signed) in spaces[name].items():
            for place in places if values.ndim else (0,):
                for sign in (1, -1) if signed else (1,):
                    strength = sign * float(values[place] if values.ndim else 0.0)
                    out = autoaugment._apply_op(
                        image, op, strength, InterpolationMode.BILINEAR, list(GREY)
                    )
                    pixels[f"{name}/{op}/{place}/{sign}"] = np.asarray(out)
    return facts, pixels


if __name__ == "__main__":
    image = photo()
    timm_facts, timm_pixels = timm_goldens(image)
    torch_facts, torch_pixels = torchvision_goldens(image)
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__}
    facts = {"versions": versions, "timm": timm_facts, "torchvision": torch_facts}
    arrays = {"photo": np.asarray(image), **timm_pixels, **torch_pixels}
    np.savez_compressed(OUT, facts=np.array(json.dumps(facts)), **arrays)
    print(f"{OUT}: {len(arrays)} images, {OUT.stat().st_size} bytes")
