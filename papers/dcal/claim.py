"""Emoji of one subgroup, drawn by a new house, told by a ViT that trains with distractors or not.

The ViT, 2 blocks of width 32, stands on maps of the zoo's classifier (the paper's best tower stands
on a ResNet-50) and learns 131 emoji from 1,000 of 1,500 drawings by two houses, 100 steps of 32.
It is asked about 1,000 of 2,000 drawings by the third; an answer counts among the emoji of the
right subgroup. Method and baseline have local queries (GLCA), one start and the same batches, and
answer by both heads; only the loss of images with a distractor (PWCA) is left out. In the control
every image is its own distractor, which changes nothing about its answer and leaves a loss of the
same weight.

Beside it stands where attention went: the share of the patches of GLCA's queries that lies on the
drawing, by its exact mask, beside the share of all patches.

Undecided: 25.7 % with distractors, 26.2 without, and 26.5 where each is its own. Attention goes
where it should: 58 % of the pixels of the local queries are on the drawing, of all pixels 16.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts import emoji_maps
from papers.dcal.attention import with_distractors
from papers.dcal.method import DCAL
from vision.models.vit import ViT
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side
from vision.train.objective import Context, Variables, apply

MARGIN = Margin(
    0.00625,
    rule="half of PWCA's part, one of two branches that add 2.5 points to DeiT-T on CUB",
)

COUNT, ASKED, STEPS, ROWS, RATE = 1500, 2000, 100, 32, 4e-3
MODEL = ViT(width=32, depth=2, heads=4, patch=1, pool="cls", scan=False, num_classes=131)


@dataclasses.dataclass(frozen=True)
class Twins(DCAL):
    """DCAL where the distractor of an image is the image."""

    def distracted(self, variables: Variables, image: jax.Array, ctx: Context) -> jax.Array:
        size, patches = self.model.resolved(), image.shape[1] * image.shape[2]
        tap = with_distractors(jnp.arange(len(image)), 1 + patches, size.depth)
        out, _ = apply(self.model, variables, image, ctx, tap=tap, key=ctx.rng("distracted"))
        return out["logits"].astype(jnp.float32)


ARMS = {
    "distracted": DCAL(MODEL, label_smoothing=0.1),
    "plain": DCAL(MODEL, distract=False, label_smoothing=0.1),
    "twins": Twins(MODEL, label_smoothing=0.1),
}


@functools.cache
def maps() -> tuple[emoji_maps.Drawn, emoji_maps.Drawn]:
    features = ("image", "label", "masks")
    parts = emoji_maps.fine(COUNT, ASKED, side=(0.5, 0.7), features=features)
    x = emoji_maps.standardised(*(emoji_maps.maps(part["image"]) for part in parts))
    learned, asked = ({"image": a, "label": b["label"]} for a, b in zip(x, parts, strict=True))
    mask = emoji_maps.in_patches(parts[1]["masks"][:, 0])
    return learned, {**asked, "mask": mask.reshape(len(mask), -1)}


def measure_seed(seed: int) -> dict[str, float]:
    rng, (learned, asked) = np.random.default_rng(seed), maps()
    part = rng.permutation(COUNT)[:1000]
    learned = {name: x[part] for name, x in learned.items()}
    part = rng.permutation(ASKED)[:1000]
    asked = {name: x[part] for name, x in asked.items()}
    row: dict[str, float] = {"mask": float(asked["mask"].mean())}
    for arm, objective in ARMS.items():
        variables = emoji_maps.fitted(objective, learned, seed, STEPS, ROWS, RATE)
        out = emoji_maps.predicted(objective, variables, {"image": asked["image"]})
        row[arm] = float(emoji_maps.right(out["logits"], asked["label"]).mean())
        chosen = np.argsort(-out["rollout"])[:, : round(0.1 * asked["mask"].shape[1])]
        row[f"{arm}_mask"] = float(np.take_along_axis(asked["mask"], chosen, 1).mean())
    return row


def test_distractors_help_to_tell_emoji_of_one_subgroup(record: Recorder):
    rows = [measure_seed(seed) for seed in SEEDS]

    def side(name: str, key: str) -> Side:
        return Side(name, tuple(row[key] for row in rows))

    what, plain = "top-1 within the subgroup, new house", side("without", "plain")
    looked = "share of pixels on the drawing"
    record(
        claim="A ViT that trains with distractors tells emoji of one subgroup by a new house "
        "better than one that trains without.",
        expected="undecided",
        compared=Measured(what, side("with distractors", "distracted"), plain),
        margin=MARGIN,
        scale=Scale(chance=emoji_maps.chance()),
        control=Measured(what, side("its own distractor", "twins"), plain),
        measured=[
            Measured(looked, side("local queries", "distracted_mask"), side("patches", "mask")),
            Measured(looked, side("local queries, without", "plain_mask"), side("patches", "mask")),
        ],
    )
