"""Writes tests/golden/measures/torchmetrics.npz: torchmetrics on random scores and labels.

    .venv-peers/bin/python bench/goldens/measures.py

Needs torch and torchmetrics, which has no Brier score of several classes.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import torch

# torchmetrics imports torchvision where it finds it, whose compiled operators are for other builds.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchmetrics.functional import classification as tm  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "measures" / "torchmetrics.npz"
CALIBRATION = ((200, 5, 15, 1.0), (60, 3, 10, 4.0), (300, 20, 30, 0.3))
MULTILABEL = ((80, 6, False), (60, 9, True))


def calibration(number: int, rows: int, classes: int, bins: int, scale: float) -> dict:
    generator = torch.Generator().manual_seed(number)
    logits = scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (rows,), generator=generator)
    logits[torch.arange(rows), labels] += scale
    labels[::7] = -1
    found = {
        norm: tm.multiclass_calibration_error(
            logits.softmax(1), labels, classes, n_bins=bins, norm=norm, ignore_index=-1
        ).numpy()
        for norm in ("l1", "max")
    }
    inputs = {"logits": logits.numpy(), "labels": labels.numpy(), "bins": np.asarray(bins)}
    return {f"calibration/{number}/{key}": value for key, value in (inputs | found).items()}


def multilabel(number: int, rows: int, classes: int, ties: bool) -> dict:
    generator = torch.Generator().manual_seed(100 + number)
    targets = (torch.rand(rows, classes, generator=generator) < 0.3).long()
    scores = torch.rand(rows, classes, generator=generator, dtype=torch.float64)
    scores = 0.7 * scores + 0.3 * targets * torch.rand(rows, classes, generator=generator)
    if ties:
        scores = (scores * 10).round() / 10
    complete = targets.clone()
    targets[torch.rand(rows, classes, generator=generator) < 0.25] = -1
    assert bool((targets == 1).any(0).all()), "a class without positives is a convention"
    both = {"num_labels": classes, "ignore_index": -1}
    found = {
        "ap": tm.multilabel_average_precision(scores, targets, average="none", **both),
        "ap_macro": tm.multilabel_average_precision(scores, targets, average="macro", **both),
        "ap_micro": tm.multilabel_average_precision(scores, targets, average="micro", **both),
        # torchmetrics predicts a label strictly above its threshold: no score is 0.55.
        "f1_macro": tm.multilabel_f1_score(
            scores, targets, average="macro", threshold=0.55, **both
        ),
        "f1_micro": tm.multilabel_f1_score(
            scores, targets, average="micro", threshold=0.55, **both
        ),
        "coverage": tm.multilabel_coverage_error(scores, complete, classes),
        "ranking_loss": tm.multilabel_ranking_loss(scores, complete, classes),
        "lrap": tm.multilabel_ranking_average_precision(scores, complete, classes),
    }
    inputs = {"scores": scores, "targets": targets, "complete": complete}
    return {f"multilabel/{number}/{key}": value.numpy() for key, value in (inputs | found).items()}


def main() -> None:
    arrays: dict[str, np.ndarray] = {}
    for number, case in enumerate(CALIBRATION):
        arrays |= calibration(number, *case)
    for number, case in enumerate(MULTILABEL):
        arrays |= multilabel(number, *case)
    names = ("torchmetrics", "torch")
    arrays["versions"] = np.array([f"{p} {importlib.metadata.version(p)}" for p in names])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, allow_pickle=False, **arrays)
    print(f"{OUT}: {len(arrays)} arrays, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
