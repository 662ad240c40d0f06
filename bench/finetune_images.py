"""Fifty drawings of each of four classes: what a folder of that size gives, with real weights.

    python -m bench.finetune_images --out=/tmp/finetune_images [--rows head scratch]

Animals, food, places and objects from the emoji that ship (vision.data.sources.emoji): of each 50
signs to learn from and 50 others to be asked about, each drawn by one of three houses. ``head`` is
configs/finetune_folder.py as it is without more, ``all`` the same with ``tune=all``, ``scratch``
configs/folder_vit.py, from nothing. Accuracy is on the 200 others; seconds are those of a
processor, of the whole program. Written to bench/results/finetune_images.csv; rows that are not
asked for stay.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bench.common import RESULTS, record
from vision.data.sources.emoji import packed

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("animals-nature", "food-drink", "travel-places", "objects")
COUNT = 50
ROWS = {
    "head": "configs/finetune_folder.py:{}",
    "all": "configs/finetune_folder.py:{},tune=all",
    "scratch": "configs/folder_vit.py:{}",
}


def draw(folder: Path) -> None:
    """Writes ``train`` and ``test``, a folder per class in each, on white."""
    index = packed.index()
    drawn: dict[int, dict[int, packed.Drawing]] = {}
    for drawing in index.drawings:
        if drawing.tone == 0:
            drawn.setdefault(drawing.emoji, {})[drawing.house] = drawing
    rng = random.Random(0)
    for name in CLASSES:
        signs = [
            number
            for number, sign in enumerate(index.emoji)
            if packed.GROUPS[sign.group] == name and len(drawn.get(number, {})) == 3
        ]
        rng.shuffle(signs)
        for part, chosen in (("train", signs[:COUNT]), ("test", signs[COUNT : 2 * COUNT])):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i, number in enumerate(chosen):
                pixels = packed.pixels(drawn[number][i % 3]).astype(float)
                alpha = pixels[..., 3:] / 255
                colours = (pixels[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
                Image.fromarray(colours).save(folder / part / name / f"{number}.png")


def run(name: str, out: Path) -> dict[str, object]:
    images, workdir = out / "img", out / f"w_{name}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    every = "data.source.part=all", "data.source.fraction=0"
    command = [
        *(sys.executable, "train.py", f"--workdir={workdir}"),
        f"--config={ROWS[name].format(images / 'train')}",
        *(f"--config.{flag}" for flag in every),
        *(f"--config.evaluators.val.{flag}" for flag in every),
        f"--config.evaluators.val.data.source.root={images / 'test'}",
        "--config.evaluate_every=10 epochs",
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = sum(getattr(after, key) - getattr(before, key) for key in ("ru_utime", "ru_stime"))
    return {"row": name, "top1": round(top1(workdir), 3), "cpu_seconds": round(seconds)}


def top1(workdir: Path) -> float:
    """The last accuracy that a run measured."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row["val/top1"] for row in rows if "val/top1" in row][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    flags = parser.parse_args()
    draw(flags.out / "img")
    file = RESULTS / "finetune_images.csv"
    rows = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8") as lines:
            rows = {row["row"]: row for row in csv.DictReader(lines)}
    for name in flags.rows:
        rows[name] = run(name, flags.out)
        record("finetune_images", [rows[other] for other in ROWS if other in rows])


if __name__ == "__main__":
    main()
