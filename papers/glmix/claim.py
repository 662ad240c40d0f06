"""Whether slots that learn from the names of emoji gather the pixels of the drawings.

Two of the paper's blocks with 9 slots stand on maps of the zoo's classifier, 6 x 6, and learn
groups of emoji on grounds, 150 steps of 32. Every place belongs to the slot that has the largest
share of it in the last block, and a slot to the drawing if at least half of its places do: the
union of such slots is the best mask that the slots allow, and its overlap with the exact mask is
measured on 500 of 1,000 new drawings (superpixels are rated so). In the baseline places belong to
the 3 x 3 windows whose means the slots start from. In the control they belong to the slots of the
next picture. The overlap before training stands beside.

The first run, with 16 slots on maps of 12 x 12 and asked about unseen families, was undecided: the
overlaps were 0.57 and 0.46, but within 150 steps the network had not learned its task from such
early maps, 31 % of groups where the most frequent gets 30. Deeper maps, where it learns, and other
seeds are the second; the margin is the same.

Undecided: 0.35 beside 0.30, and 0.28 with the slots of the next picture, but again the network has
not learned its task as the premise wants. Slots group by what the maps say, trained or not: before
training the overlap is 0.37.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from configs.parts import emoji_maps, emoji_tower
from papers.glmix.block import MixBlock, Mixing
from vision.models.conv_layers import conv
from vision.models.layers import classify, layer_norm, pooled_map, spatial_sites
from vision.objectives.classify import Classify
from vision.papers.claims import Margin, Measured, Premise, Recorder, Scale, Side
from vision.train.objective import Context, apply
from vision.train.precision import Precision
from vision.train.tower import Tap

MARGIN = Margin(0.02, rule="the authors show maps and report no number: 0.02 of overlap")

COUNT, ASKED, STEPS, ROWS, RATE, SLOTS = 1500, 1000, 150, 32, 3e-3, 9
NEW = tuple(range(5, 10))
MIXING = Mixing(slots=SLOTS, local=5, position=3, mlp_ratio=2, head=16)


class OnMaps(nn.Module):
    """Two blocks and a head on maps (B, 6, 6, 48)."""

    num_classes: int | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        precision, out = Precision(), {}
        x = conv(32, 1, use_bias=True, precision=precision, name="stem")(x)
        for i in range(2):
            x, entries = MixBlock(MIXING, False, precision, name=f"block{i:02d}")(x, None, 0.0)
            out[f"block{i:02d}/assignment"] = entries["assignment"]
        x, out = spatial_sites(layer_norm(x, precision, "norm"), out, tap)
        out["pooled"] = pooled_map(x, tap, precision)
        return classify(out["pooled"], out, tap, self.num_classes, True, precision)


@dataclasses.dataclass(frozen=True)
class Assigning(Classify):
    """Classification that predicts the last block's shares, too."""

    def predict(self, variables: Any, batch: Any, ctx: Context) -> dict[str, jax.Array]:
        out, _ = apply(self.model, variables, batch["image"], ctx)
        return {"logits": out["logits"], "assignment": out["block01/assignment"]}


OBJECTIVE = Assigning(OnMaps(len(emoji_tower.KINDS)), label_smoothing=0.1)


@functools.cache
def maps() -> tuple[emoji_maps.Drawn, emoji_maps.Drawn]:
    parts = [
        emoji_tower.drawings(split, 0, count, side=(0.4, 0.7), features=("image", "label", "masks"))
        for split, count in (("train", COUNT), ("test", ASKED))
    ]
    x = emoji_maps.standardised(*(emoji_maps.maps(each["image"]) for each in parts))
    learned, asked = (
        {"image": a, "label": b["label"], "mask": b["masks"][:, 0]}
        for a, b in zip(x, parts, strict=True)
    )
    return learned, asked


def overlap(slots: np.ndarray, masks: np.ndarray) -> float:
    """Mean IoU of masks (N, 48, 48) and the best unions of slots; ``slots`` int (N, 6, 6)."""
    values = []
    for places, part in zip(slots, emoji_maps.in_patches(masks), strict=True):
        sizes = np.bincount(places.ravel(), minlength=SLOTS)
        held = np.bincount(places.ravel(), weights=part.ravel(), minlength=SLOTS)
        ours = held >= 0.5 * np.maximum(sizes, 1)
        both, union = held[ours].sum(), sizes[ours].sum() + held[~ours].sum()
        values.append(both / union)
    return float(np.mean(values))


def measure_seed(seed: int) -> dict[str, float]:
    rng, (learned, asked) = np.random.default_rng(seed), maps()
    part = rng.permutation(COUNT)[:1000]
    data = {name: learned[name][part] for name in ("image", "label")}
    part = rng.permutation(ASKED)[:500]
    asked = {name: x[part] for name, x in asked.items()}
    windows = np.kron(np.arange(SLOTS).reshape(3, 3), np.ones((2, 2), int))
    row = {
        "windows": overlap(np.repeat(windows[None], len(part), 0), asked["mask"]),
        "frequent": float(np.bincount(asked["label"]).max() / len(part)),
    }
    variables = {
        "trained": emoji_maps.fitted(OBJECTIVE, data, seed, STEPS, ROWS, RATE),
        "start": emoji_maps.start(OBJECTIVE, data, seed),
    }
    for arm in variables:
        out = emoji_maps.predicted(OBJECTIVE, variables[arm], {"image": asked["image"]}, 100)
        slots = out["assignment"].argmax(-1)
        row[arm] = overlap(slots, asked["mask"])
        if arm == "trained":
            row["other"] = overlap(np.roll(slots, 1, 0), asked["mask"])
            row["used"] = float(np.mean([len(np.unique(each)) for each in slots]))
            row["top1"] = float(np.mean(out["logits"].argmax(1) == asked["label"]))
    return row


def test_slots_gather_the_pixels_of_things(record: Recorder):
    rows = [measure_seed(seed) for seed in NEW]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, windows = "overlap of the best union", side("windows", "windows")
    named = tuple(row["top1"] / row["frequent"] for row in rows)
    record(
        claim="Unions of slots that learned from the names of groups overlap more with the masks "
        "of new drawings than unions of the windows they start from.",
        expected="undecided",
        compared=Measured(what, side("slots", "trained"), windows),
        margin=MARGIN,
        seeds=NEW,
        scale=Scale(chance=None),
        premises=[Premise("top-1 of groups over the most frequent", named, at_least=1.3)],
        control=Measured(what, side("slots of the next picture", "other"), windows),
        measured=[
            Measured(what, side("slots", "trained"), side("before training", "start")),
            Measured("top-1 of groups", side("GLMix", "top1"), side("most frequent", "frequent")),
            Measured("slots in use, of 9", side("slots", "used")),
        ],
    )
