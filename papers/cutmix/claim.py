"""Digits after training with CutMix or with Cutout.

A small CNN learns 180 of the digits that ship, 300 steps of 64; the other 1,617 are asked. The
control pastes the same boxes and exchanges the two labels' weights, so that a label says the wrong
share of the image. The op itself is compared with timm's, given the same boxes, in
``tests/data/test_mixing_goldens.py``. (Of digits whose middle is covered Cutout, whose training
looks like that, names far more, 84 beside 44 %; it is not what the paper compares.)

The first control kept the label of the image that is pasted into, and was better than Cutout too,
by 2.7 points where CutMix was by 3.5: on so few digits most of the gain comes from pixels of other
images in the place of zeros, and not from their labels. It stands among what is measured.

Held: 96.0 % beside 92.5, and 92.9 with exchanged labels.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from papers.cutmix.config import small
from vision.config.specs import build, spec
from vision.data.batch_ops import CutMix, box_weight, mix
from vision.papers.claims import SEEDS, Margin, Measured, Parity, Recorder, Run, Scale, Side, train

MARGIN = Margin(0.0077, rule="half of 22.93 - 21.40 % error, Cutout and CutMix, on ImageNet")
TESTED = 0.9  # of the digits
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "mixing.npz"


def top1(run: Run, images: np.ndarray, labels: np.ndarray) -> float:
    logits = jax.jit(run.predict)(run.variables, {"image": images})["logits"]
    return float(np.mean(np.argmax(logits, -1) == labels))


def largest_error() -> Parity:
    """How far mixed images and labels are from timm's."""
    golden = np.load(GOLDEN)
    facts = json.loads(str(golden["facts"]))
    batch = {"image": jnp.asarray(golden["image"] / np.float32(255)), "label": golden["label"]}
    batch["label"] = jnp.asarray(batch["label"], jnp.int32)
    size, worst = golden["image"].shape[1:3], 0.0
    for i, case in enumerate(facts["cases"]):
        top, bottom, left, right = case["box"]
        weight = box_weight(jnp.array([top, left]), jnp.array([bottom, right]), size)
        mixed = mix(batch, weight, facts["classes"], "image", "label")
        for name in ("image", "label"):
            worst = max(worst, float(np.abs(mixed[name] - golden[f"cutmix/{i}/{name}"]).max()))
    return Parity("timm", facts["version"], worst)


@dataclasses.dataclass(frozen=True)
class Relabelled:
    """CutMix with other labels.

    Attributes:
      mixed: CutMix.
      kept: the label is that of the image that is pasted into; else the weights of both labels
        are exchanged.
    """

    mixed: CutMix
    kept: bool

    def __call__(self, batch: dict[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        own, mixed = jax.nn.one_hot(batch["label"], self.mixed.num_classes), self.mixed(batch, key)
        if self.kept:
            return {**mixed, "label": own}
        # own * w + other * (1 - w) becomes own * (1 - w) + other * w.
        weight = jnp.where(own > 0, mixed["label"], 0).sum(-1, keepdims=True)
        other = mixed["label"] - weight * own
        scale = weight / jnp.maximum(1 - weight, 1e-6)
        exchanged = (1 - weight) * own + scale * other
        return {**mixed, "label": jnp.where(weight < 1, exchanged, own)}


def test_pasted_boxes_teach_more_than_boxes_that_are_cut_out(record: Recorder):
    accuracies: dict[str, list[float]] = {}
    for name in ("CutMix", "Cutout", "labels exchanged", "label kept"):
        config: Any = small("cutout" if name == "Cutout" else "")
        if name.startswith("label"):
            *before, mixed = config.data.batch_ops
            config.data.batch_ops = [
                *before,
                spec(Relabelled, mixed=mixed, kept=name == "label kept"),
            ]
        config.total = "300 steps"
        for data in (config.data, config.evaluators["test"].data):
            data.source.test_fraction = TESTED
        batches = list(build(config.evaluators)["test"].data.loader())
        mask = np.concatenate([batch["_mask"] for batch in batches])
        images = np.concatenate([batch["image"] for batch in batches])[mask]
        labels = np.concatenate([batch["label"] for batch in batches])[mask]
        accuracies[name] = [top1(train(config, seed), images, labels) for seed in SEEDS]
    mixed, cut, exchanged, kept = (Side(name, tuple(x)) for name, x in accuracies.items())
    record(
        claim="A CNN that learns from few digits names more new ones after CutMix than after "
        "Cutout.",
        expected="held",
        compared=Measured("top-1", mixed, cut),
        margin=MARGIN,
        scale=Scale(chance=0.1),
        control=Measured("top-1", exchanged, cut),
        measured=[Measured("top-1", mixed, kept)],
        parity=largest_error(),
    )
