"""Writes tests/golden/self_distillation.npz: lightly's losses of DINO, iBOT, KoLeo, and Sinkhorn.

    .venv-peers/bin/python bench/goldens/self_distillation.py

Needs lightly and torch; see bench/requirements-peers.txt. Scores are cosines: unit vectors, whose
prototypes are the axes. Centres are those of the first call, zero, so that targets are softmaxes.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import torch

# torchvision's compiled operators are for CUDA builds of torch; importing it asks for their names.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lightly.loss.dino_loss import DINOLoss  # noqa: E402
from lightly.loss.ibot_loss import IBOTPatchLoss  # noqa: E402
from lightly.loss.koleo_loss import KoLeoLoss  # noqa: E402
from lightly.loss.swav_loss import sinkhorn  # noqa: E402

OUT = Path(__file__).resolve().parents[2] / "tests" / "golden" / "self_distillation.npz"
ROWS, LARGE, SMALL, GRID, K = 6, 2, 3, 4, 8
TEACHER, STUDENT = 0.07, 0.1


def unit(rng: np.random.RandomState, *shape: int) -> np.ndarray:
    x = rng.normal(size=(*shape, K))
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    rng = np.random.RandomState(0)
    mask = rng.random_sample((ROWS, LARGE, GRID, GRID)) < 0.3
    mask[2, 1] = False
    arrays = {
        "teacher/view": unit(rng, ROWS, LARGE),
        "student/view": unit(rng, ROWS, LARGE + SMALL),
        "teacher/patch": unit(rng, ROWS, LARGE, GRID * GRID),
        "student/patch": unit(rng, ROWS, LARGE, GRID * GRID),
        "embedding": unit(rng, ROWS, LARGE),
        "mask": mask,
    }
    given = {name: torch.from_numpy(x) for name, x in arrays.items()}
    dino = DINOLoss(output_dim=K, teacher_temp=TEACHER, student_temp=STUDENT)
    arrays["view_loss"] = dino(
        [given["teacher/view"][:, t] for t in range(LARGE)],
        [given["student/view"][:, s] for s in range(LARGE + SMALL)],
        teacher_temp=TEACHER,
    ).numpy()
    crops = given["mask"].reshape(-1, GRID, GRID)
    flat = crops.reshape(-1)
    arrays["patch_loss"] = IBOTPatchLoss(K, teacher_temp=TEACHER, student_temp=STUDENT)(
        given["teacher/patch"].reshape(-1, K)[flat],
        given["student/patch"].reshape(-1, K)[flat],
        crops,
    ).numpy()
    koleo = [KoLeoLoss()(given["embedding"][:, g]).numpy() for g in range(LARGE)]
    arrays["koleo"] = np.sum(koleo)
    arrays["sinkhorn"] = sinkhorn(given["teacher/view"].reshape(-1, K), 3, TEACHER).numpy()
    arrays["version"] = np.array(importlib.metadata.version("lightly"))
    np.savez_compressed(OUT, **arrays)
    print({name: arrays[name] for name in ("view_loss", "patch_loss", "koleo")})
