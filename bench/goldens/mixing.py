"""Writes tests/golden/mixing.npz: timm's mixup and CutMix of two images, given what they draw.

    .venv-peers/bin/python bench/goldens/mixing.py

Needs timm and torch; see bench/requirements-peers.txt.
"""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import torch

# torchvision's compiled operators are for CUDA builds of torch; importing it asks for their names.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
from timm.data import mixup  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "mixing.npz"
HEIGHT, WIDTH, CLASSES = 10, 14, 4
# Own share, centre of the box (row, column): inside, over a corner, all, nothing, odd sides.
DRAWN = (
    (0.64, 5, 7),
    (0.36, 1, 12),
    (0.0, 5, 7),
    (0.995, 4, 4),
    (0.5, 9, 0),
    (0.75, 3, 6),
)


class Drawn:
    """numpy.random that says what it is told, in order."""

    def __init__(self, share: float, *centre: int) -> None:
        self.share, self.centre = share, list(centre)

    def rand(self) -> float:
        return 0.0

    def beta(self, a: float, b: float) -> float:
        return self.share

    def randint(self, low: int, high: int, size: None = None) -> int:
        return self.centre.pop(0)


if __name__ == "__main__":
    rng = np.random.RandomState(0)
    image = rng.randint(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    label = np.array([1, 3])
    arrays = {"image": image, "label": label}
    cases = []
    for i, (share, *centre) in enumerate(DRAWN):
        said = Drawn(share, *centre)
        mixup.np = types.SimpleNamespace(**{**vars(np), "random": said})
        box = [int(edge) for edge in mixup.rand_bbox((HEIGHT, WIDTH), share)]
        cases.append({"share": share, "centre": centre, "box": box})
        for kind, alphas in (("cutmix", (0.0, 1.0)), ("mixup", (1.0, 0.0))):
            said.centre = list(centre)
            op = mixup.Mixup(*alphas, label_smoothing=0.0, num_classes=CLASSES)
            pixels = torch.from_numpy(image / np.float32(255)).permute(0, 3, 1, 2).contiguous()
            mixed, target = op(pixels, torch.from_numpy(label))
            arrays[f"{kind}/{i}/image"] = mixed.permute(0, 2, 3, 1).numpy()
            arrays[f"{kind}/{i}/label"] = target.numpy()
    facts = {"version": timm.__version__, "classes": CLASSES, "cases": cases}
    np.savez_compressed(OUT, facts=np.array(json.dumps(facts)), **arrays)
    print(f"{OUT}: {len(arrays)} arrays, {OUT.stat().st_size} bytes")
