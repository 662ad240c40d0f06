"""What many evaluators say of one model, over the devices of all processes.

    python -m vision.programs.launch --processes 2 --devices 2 -- evaluators_process.py FILE

writes every number into FILE, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision.parallel import cluster

if __name__ == "__main__":
    cluster.join(detect=False)

import jax
import jax.numpy as jnp
import numpy as np

from tests.evaluators.linear_dual import WIDTH, data
from vision.evaluate.evaluator import Evaluator, evaluate
from vision.evaluators.accuracy.calibration import Calibration
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.accuracy.groups import GroupedAccuracy
from vision.evaluators.accuracy.multilabel import MultiLabelClassification
from vision.evaluators.features.few_shot import FewShot
from vision.evaluators.features.instances import InstanceRetrieval
from vision.evaluators.features.probe import LinearProbe, NearestNeighbours, RidgeProbe, SgdProbe
from vision.evaluators.features.representation import Representation
from vision.evaluators.image_text.retrieval import ImageRetrieval
from vision.evaluators.robustness.out_of_distribution import OutOfDistribution
from vision.parallel.mesh import Mesh
from vision.train.objective import Variables

# No multiple of the batch size, 16, so that the last batch is filled up.
TRAIN, TEST, STRANGERS = 101, 83, 37
CLASSES = 6
NOISE = 0.3 * np.random.default_rng(5).normal(size=(WIDTH, CLASSES))
HEAD = {
    "kernel": (NOISE + np.eye(WIDTH, CLASSES)).astype(np.float32),
    "bias": np.linspace(-0.2, 0.2, CLASSES).astype(np.float32),
}


def predict(variables: Variables, batch: Mapping[str, Any]) -> dict[str, Any]:
    x = jnp.tanh(batch["image"].reshape(len(batch["image"]), -1))
    logits = x @ variables.params["head"]["kernel"] + variables.params["head"]["bias"]
    return {
        "logits": logits,
        "log_probabilities": jax.nn.log_softmax(logits),
        "embedding": x,
    }


def examples(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % CLASSES).astype(np.int32)
    image = 0.6 * rng.normal(size=(count, WIDTH)) + 0.8 * np.eye(CLASSES, WIDTH)[label]
    return {"image": image.astype(np.float32), "label": label}


def evaluators() -> dict[str, Evaluator]:
    train, test = data(**examples(TRAIN, 0)), data(**examples(TEST, 1))
    strangers = data(image=examples(STRANGERS, 2)["image"] * 0.3)
    rng = np.random.default_rng(3)
    extra = data(
        **examples(TEST, 1),
        group=rng.integers(0, 3, TEST).astype(np.int32),
        labels=rng.integers(0, 2, (TEST, CLASSES)).astype(np.int32),
        easy=rng.integers(0, 40, (TEST, 3)).astype(np.int32),
        hard=rng.integers(40, 60, (TEST, 2)).astype(np.int32),
        junk=rng.integers(60, TEST, (TEST, 2)).astype(np.int32),
    )
    scores = ("msp", "max_logit", "energy", "odin", "mahalanobis", "knn", "vim")
    return {
        "classification": Classification(test, mistakes=0),
        "calibration": Calibration(test, fit_on=train),
        "ood": OutOfDistribution(
            test, {"far": strangers}, train, scores, neighbours=5, head="head"
        ),
        "groups": GroupedAccuracy(extra),
        "multilabel": MultiLabelClassification(extra),
        "linear": LinearProbe(train, test),
        "ridge": RidgeProbe(train, test),
        "sgd": SgdProbe(train, test, rates=(0.03, 0.1), epochs=2),
        "neighbours": NearestNeighbours(train, test),
        "few_shot": FewShot(test, ways=4, queries=5, shots=(1, 3), episodes=20),
        "representation": Representation(test, test, ("embedding", "logits")),
        "images": ImageRetrieval(test, examples=0),
        "instances": InstanceRetrieval(extra),
    }


def numbers(devices: int | None) -> dict[str, dict[str, float]]:
    """Evaluator to its numbers, on the first devices or on all of all processes."""
    mesh = Mesh().build(jax.devices()[:devices])
    variables = Variables({"head": HEAD}, {}, {})
    return {
        name: evaluate(evaluator, predict, variables, 1, mesh)[0]
        for name, evaluator in evaluators().items()
    }


def main(path: str) -> None:
    metrics = numbers(None)
    assert jax.process_count() == 2
    if cluster.is_main():
        Path(path).write_text(json.dumps(metrics))
    cluster.leave()


if __name__ == "__main__":
    main(sys.argv[1])
