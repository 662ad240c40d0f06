"""A workdir like that of a real run: a small network trained on scikit-learn's digits."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
import sklearn.neural_network

from tests.report.browser import Browser, browser_in
from vision.evaluate import metrics
from vision.evaluate.figures import ConfusionMatrix, Figure, Gallery, Picture, to_json
from vision.evaluators.thumbnail import thumbnail

CONFIG = {
    "_constructor": "vision.run.experiment.Experiment",
    "data": {
        "_constructor": "vision.data.pipeline.TrainData",
        "source": {"_constructor": "vision.data.sources.digits.Digits", "split": "train"},
        "ops": [
            {"_constructor": "vision.data.ops.image.Resize", "size": [8, 8], "method": "lanczos"},
            {"_constructor": "vision.data.ops.image.ValueRange", "low": -1.0, "high": 1.0},
        ],
        "batch_size": 32,
    },
    "model": {"_constructor": "vision.models.vit.ViT", "width": 64, "depth": 4, "pool": "mean"},
    "optimizer": {
        "_constructor": "vision.train.optim.Optimizer",
        "schedule": {"_constructor": "vision.train.schedule.Cosine", "warmup": "2 epochs"},
        "weight_decay": 0.0001,
        "clip_norm": None,
        "rules": [],
    },
    "total": "30 epochs",
    "ema": None,
    "seed": 0,
}


def figures_of(
    probabilities: np.ndarray, labels: np.ndarray, images: np.ndarray, names: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, Figure]]:
    """What ``Classification`` yields, from finished probabilities."""
    log_probabilities = jnp.log(jnp.asarray(probabilities, jnp.float32) + 1e-12)
    labels_ = jnp.asarray(labels, jnp.int32)
    ece = metrics.ExpectedCalibrationError.from_model_output(log_probabilities, labels_)
    counts = metrics.ConfusionCounts.from_model_output(log_probabilities, labels_).compute()
    top = {
        f"top{k}": metrics.TopKAccuracy.from_model_output(log_probabilities, labels_, k=k)
        for k in (1, 5)
    }
    nll = metrics.NegativeLogLikelihood.from_model_output(log_probabilities, labels_)
    predictions, confidence = probabilities.argmax(-1), probabilities.max(-1)
    wrong = np.flatnonzero(predictions != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:24].tolist()
    pictures = tuple(
        Picture(
            index=i,
            key=f"digits/test/{i}",
            label=names[labels[i]],
            prediction=names[predictions[i]],
            score=float(confidence[i]),
            png=thumbnail({"image": images[i]}),
        )
        for i in wrong
    )
    numbers = {
        **{name: metric.compute() for name, metric in top.items()},
        "nll": nll.compute(),
        "ece": ece.compute(),
        "examples": float(len(labels)),
    }
    return numbers, {
        "confusion": ConfusionMatrix(counts, names),
        "reliability": ece.reliability(),
        "mistakes": Gallery(pictures),
    }


def write_sample(workdir: Path) -> Path:
    """Trains for some seconds and writes the three files of a run."""
    digits: Any = sklearn.datasets.load_digits()
    pixels, labels = digits.images / 16, digits.target
    images = (digits.images * 255 / 16).astype(np.uint8)
    train, test = np.arange(0, 1200), np.arange(1200, 1797)
    model = sklearn.neural_network.MLPClassifier((24,), learning_rate_init=2e-3, random_state=0)
    rng = np.random.default_rng(0)
    rows, total = [], 1200
    flat = pixels.reshape(len(pixels), -1)
    for step in range(1, total + 1):
        started = time.perf_counter()
        batch = rng.choice(train, 32)
        model.partial_fit(flat[batch], labels[batch], classes=range(10))
        row: dict[str, Any] = {"step": step, "train/loss": float(model.loss_)}
        row["train/learning_rate"] = 0.5 * (1 + np.cos(np.pi * step / total)) * 2e-3
        row["images_per_s"] = 32 / (time.perf_counter() - started)
        row["data_wait"] = float(rng.beta(1, 30))
        row["train/grad_norm"] = float(np.linalg.norm(model.coefs_[0]) * rng.uniform(0.9, 1.1))
        if step % 100 == 0:
            guess: Any = model.predict_proba(flat[test])
            true_probability = guess[np.arange(len(test)), labels[test]]
            row["eval/test/top1"] = float((guess.argmax(-1) == labels[test]).mean())
            row["eval/test/nll"] = float(-np.log(true_probability + 1e-12).mean())
        rows.append(row)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workdir / "config.json").write_text(json.dumps(CONFIG, indent=2))
    probabilities: Any = model.predict_proba(flat[test])
    numbers, figures = figures_of(probabilities, labels[test], images[test], tuple("0123456789"))
    evaluation = {
        "step": total,
        "checkpoint": str(workdir / "checkpoints" / str(total)),
        "command": f"python evaluate.py --workdir={workdir}",
        "created": "2026-01-31T12:00:00+00:00",
        "versions": {"python": "3.11.7", "jax": "0.10.2", "flax": "0.12.8", "numpy": "2.4.6"},
        "evaluators": {
            "test": {
                "metrics": numbers,
                "figures": {name: to_json(figure) for name, figure in figures.items()},
            }
        },
    }
    (workdir / "evaluation.json").write_text(json.dumps(evaluation))
    return workdir


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("runs") / "digits_sample")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_in(tmp_path_factory.mktemp("browser")) as running:
        yield running


if __name__ == "__main__":
    print(write_sample(Path(sys.argv[1])))
