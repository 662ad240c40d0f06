"""A page of every kind that is a file, from made-up results: nothing is trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from papers.dendromap.treemap import Images, write_dendromap
from tests.papers.example_tree import header, repository, result
from vision.config.specs import spec
from vision.data.pipeline import TrainData
from vision.data.sources.scenes import Scenes
from vision.evaluate.figures import (
    ConfusionMatrix,
    Curve,
    Gallery,
    Line,
    Picture,
    Reliability,
    Table,
    to_json,
)
from vision.evaluators.thumbnail import thumbnail
from vision.papers import discover, gallery
from vision.papers.results import write
from vision.predict.results import Prediction
from vision.probes.concepts import ConceptBottleneck
from vision.report.compare import write_comparison
from vision.report.dataset import write_dataset_report
from vision.report.explain_concepts import Concepts
from vision.report.explain_maps import METHODS, RANDOM, ClassMaps
from vision.report.explain_page import Explained, ExplainedImage
from vision.report.explain_page import render as render_explained
from vision.report.files import write_page
from vision.report.run import write_report
from vision.sweep.page import write_sweep_page
from vision.sweep.trials import Trial

LONG = "a_run_with_a_rather_long_name_of_its_own"
CLASSES = ("ant", "bee, queen", "a class with a long name, as they are", *map(str, range(17)))


def _picture(seed: int, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)


def workdir(folder: Path, evaluators: int = 2) -> Path:
    """The three files of a run; of ``evaluators`` the last one failed where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"step": i, "train/loss": 3 / (i + 1), "images_per_s": 900.0 + i, "seconds/step": float(i)}
        | ({"test/top1": i / 80, "test/examples": 60} if i % 20 == 0 else {})
        for i in range(1, 81)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"_constructor": "vision.models.vit.ViT", "width": 48, "pool": "mean"}
    config = {"_constructor": "vision.run.experiment.Experiment", "model": model, "total": "80"}
    (folder / "config.json").write_text(json.dumps(config))
    k = len(CLASSES)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 2, (k, k)) * rng.integers(0, 2, (k, k)) + 30 * np.eye(k, dtype=int)
    share = np.linspace(0.05, 0.95, 10)
    png = thumbnail({"image": _picture(0)})
    wrong = Picture(3, "data/photos/a_file_of_that_name.png", CLASSES[1], CLASSES[2], 0.98, png)
    figures = {
        "confusion": ConfusionMatrix(counts, CLASSES),
        "reliability": Reliability(
            np.linspace(0, 1, 11), np.full(10, 6), share, np.clip(share**2, 0, 1)
        ),
        "mistakes": Gallery((wrong, dataclasses.replace(wrong, index=4, label=CLASSES[0]))),
        "by_group": Table(("group", "top1", "examples"), (("left", 0.5, 30), ("right", 1.0, 30))),
        "risk": Curve((Line("risk", share, share**2),), "coverage", "risk"),
    }
    metrics = {"top1": 0.9, "top5": 1.0, "nll": 0.3, "ece": 0.02, "examples": 60.0, "auroc": 0.97}
    good = {"metrics": metrics, "figures": {name: to_json(f) for name, f in figures.items()}}
    results: dict[str, Any] = {"test": {**good, "seconds": 1.5}}
    if evaluators > 1:
        results |= {"probe": {"metrics": {"top1": 0.8, "decay": 1e-3, "examples": 60.0}}}
        results |= {"out of reach": {"error": "the folder of pictures is not there"}}
    evaluation = {
        "step": 80,
        "created": "2026-01-31T12:00:00+00:00",
        "checkpoint": f"{folder}/checkpoints/80",
        "command": f"python evaluate.py --workdir=workdirs/{LONG} --suite=full --out=/tmp/{LONG}",
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "evaluators": results,
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def report(root: Path) -> Path:
    return write_report(workdir(root / LONG), root / "report.html")


def dataset(root: Path) -> Path:
    features = ("image", "label", "boxes", "valid", "caption_long")
    scenes = spec(Scenes, num_examples=16, image_size=24, features=features, num_objects=(1, 2))
    config = spec(TrainData, source=scenes, batch_size=4)
    write_dataset_report(config, root / "dataset.html", command=f"python -m x --out={LONG}.html")
    return root / "dataset.html"


def comparison(root: Path, same: bool = True) -> Path:
    """Three runs, two of which cost and reach the ``same``."""
    runs = []
    for i, name in enumerate(("first", "second", LONG)):
        top1 = 0.9 if same and i < 2 else 0.7
        cost = {"parameters": 86410 * (1 + i // 2), "flops": 2.8e6, "throughput": 400.0}
        latency = {"latency_ms": 0.3 + i, "latency_ms_p90": 0.7 + i, "latency_ms_p99": 2.0 + i}
        runs.append(
            {
                "name": name,
                "workdir": str(workdir(root / name)),
                "step": 80,
                "metrics": {"test": {"top1": top1, "nll": 0.3, "examples": 60}},
                "intervals": {"test/top1": [top1 - 0.05, top1 + 0.05]},
                "cost": cost | latency,
                "config": {"model": {"width": 48 * (i + 1)}, "total": "80 steps"},
            }
        )
    pair = {"a": "first", "b": LONG, "evaluator": "test", "metric": "top1", "difference": -0.2}
    pair |= {"interval": [-0.3, -0.1], "mcnemar_p": 2e-5, "only_a_right": 14, "only_b_right": 2}
    change = {"a": "first", "b": LONG, "label": CLASSES[0], "before": CLASSES[0]}
    change |= {"after": CLASSES[2], "key": "data/photos/17.png", "png": None}
    found = {"runs": runs, "pairs": [pair], "changed": [change, change], "examples": 60}
    return write_comparison(found, root / "compare.html")


def sweep(root: Path) -> Path:
    def trial(i: int) -> Trial:
        varied = {"optimizer.learning_rate": f"{10**-i}", "model.width": str(32 * i), "seed": "0"}
        opened = Trial(workdir(root / f"{i:04}"), varied, seconds=7.0)
        if i == 3:
            return dataclasses.replace(opened, state="failed", error="no room on the disk")
        return dataclasses.replace(opened, state="complete", value=0.5 + i / 10)

    trials = [trial(i) for i in (1, 2, 3)]
    return write_sweep_page(root / "sweep.html", trials, metric="test/top1", mode="max", count=5)


CONCEPT_VECTORS = np.eye(3, dtype=np.float32)


def concepts() -> Concepts:
    """Of three concepts, of which the image is one: two speak for a class, one for another."""
    weight = np.asarray([[3.0, 0.0, 0.0], [1.0, 0.0, 0.5], [0.0, 2.0, 0.0]])
    texts = ("two wings", "a sting of which one had better take care", "six <b>legs")
    bias = np.asarray([0.0, 0.5, -1.0])
    model = ConceptBottleneck(texts, np.zeros(3), np.ones(3), weight, bias, 1e-2, 0.9)
    return Concepts(model, CLASSES[:3], CONCEPT_VECTORS, "3 concepts, fitted to 40 images")


def explained(root: Path) -> Path:
    def maps(seed: int, name: str) -> ClassMaps:
        heat = {method: _picture(seed)[..., 0] / np.float32(255) for method in METHODS}
        curve = np.linspace(0.9, 0.1, 5, dtype=np.float32)
        curves = dict.fromkeys((*METHODS, RANDOM), (curve, curve[::-1]))
        return ClassMaps(name, 0.6, heat, curves, {})

    images = [
        ExplainedImage(
            f"/data/photos/{LONG}_{i}.png",
            _picture(i),
            Prediction(f"{i}.png", {CLASSES[1]: 0.6, CLASSES[2]: 0.4}),
            (maps(i, CLASSES[1]), maps(i + 9, CLASSES[2])),
            [],
            CONCEPT_VECTORS[i],
        )
        for i in range(2)
    ]
    notes = ("cut.png: damaged",)
    found = Explained(f"workdirs/{LONG}", tuple(images), notes, "There are none.", concepts())
    return write_page(root / "explain.html", render_explained(found, LONG))


def treemap(root: Path) -> Path:
    labels = np.repeat(np.arange(3), 20)
    points = np.random.default_rng(0).normal(size=(60, 4)) + 9 * labels[:, None]
    predicted = np.where(np.arange(60) % 15, labels, 2)
    images = Images(points, None, labels, predicted, CLASSES[:3], _picture)
    return write_dendromap(images, root / "map.html", title=f"{LONG}: images by likeness")


def papers(root: Path) -> Path:
    folder = repository(root)
    write(result(), folder / "result.json")
    other = root / "papers" / "plain"
    other.mkdir()
    (other / "__init__.py").write_text(header(title="On plain things", card=None, tags=("x",)))
    return write_page(root / "papers.html", gallery.render(discover.all_papers(root), root))


PAGES: dict[str, Callable[[Path], Path]] = {
    each.__name__: each for each in (report, dataset, comparison, sweep, explained, treemap, papers)
}
