"""A logger that keeps what it gets, and an evaluator that draws every kind of figure."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import (
    ConfusionMatrix,
    Curve,
    Figure,
    Gallery,
    Line,
    Picture,
    Reliability,
    Table,
)


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


FIGURES: dict[str, Figure] = {
    "mistakes": Gallery((Picture(3, "a/3.png", "cat", "dog: small", 0.5, png(9)),)),
    "confusion": ConfusionMatrix(np.array([[4, 1], [0, 2]]), ("cat", "dog")),
    "by_group": Table(("group", "top1"), (("day", 0.5), ("night", None))),
    "curve": Curve((Line("all", np.arange(2.0), np.arange(2.0)),), "cost", "gain"),
    "bins": Reliability(np.array([0.0, 1.0]), np.ones(1), np.ones(1), np.array([3])),
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Yields its step, and pictures and tables."""

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        yield "step", float(ctx.step)
        yield from FIGURES.items()


@dataclasses.dataclass(frozen=True)
class Kept:
    """Keeps what it gets in lists by run.

    Attributes:
      fails_at: step whose values are refused.
    """

    fails_at: int = -1

    got: ClassVar[dict[str, list[Any]]] = {}

    def check(self) -> None:
        pass

    def open(self, workdir: Path, config: Mapping[str, Any], run_id: str | None):
        run_id = run_id or f"run{len(self.got)}"
        rows = self.got.setdefault(run_id, [])
        return _Rows(rows, self.fails_at), run_id


class _Rows:
    def __init__(self, rows: list[Any], fails_at: int):
        self.rows, self.fails_at = rows, fails_at

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.fails_at:
            raise ConnectionError("no route to host\nand more")
        self.rows.append((step, dict(values)))

    def figures(self, step: int, evaluator: str, figures: Mapping[str, Figure]) -> None:
        self.rows.append((step, evaluator, sorted(figures)))

    def close(self, finished: bool) -> None:
        self.rows.append(finished)
