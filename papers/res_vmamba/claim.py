"""VMamba with and without the pooled input of its stages, early in training.

Both towers have three stages of one block, 16 channels at first and four states, and see digits of
8 px, four pixels per token; batches, and the weights that both have, are the same. After 40 steps
of 32 they are asked about 300 others. In the control the residual path carries the map of another
digit of the batch.

Undecided: 86.1 % with the path beside 87.9 without, from -5.9 to +2.2 points, and 79.1 with the
path of another digit: after 40 steps the path is no help of the size that was asked for.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from configs.parts.from_scratch import Task, digits, fitted, top1
from papers.res_vmamba.method import ResVMamba
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side

MARGIN = Margin(0.01, rule="the abstract says by no figure how far VMamba is surpassed: 1 point")
STEPS, RATE, ROWS = 40, 4e-3, 32


class OfAnother(ResVMamba):
    """The residual path of every example is its neighbour's in the batch."""

    def _passed_on(self, x: jax.Array, name: str) -> jax.Array:
        return super()._passed_on(jnp.roll(x, 1, 0), name)


def named(name: str, model: ResVMamba, given: Task) -> Side:
    def one(seed: int) -> float:
        return top1(model, fitted(model, given, seed, STEPS, RATE, ROWS), given)

    return Side(name, tuple(map(one, SEEDS)))


def test_stages_that_pass_their_input_on_learn_faster(record: Recorder):
    given, what = digits(), "top-1 of digits after 40 steps"
    fields = {"depths": (1, 1, 1), "width": 16, "patch": 2, "states": 4, "num_classes": 10}
    fields["sequential"] = True
    residual, plain, control = (
        named(name, tower(**fields, **more), given)  # pyright: ignore[reportArgumentType]
        for name, tower, more in (
            ("Res-VMamba", ResVMamba, {}),
            ("VMamba", ResVMamba, {"residual": False}),
            ("input of another digit", OfAnother, {}),
        )
    )
    record(
        claim="VMamba names more digits after 40 steps where stages pass their input on.",
        expected="undecided",
        compared=Measured(what, residual, plain),
        margin=MARGIN,
        scale=Scale(chance=0.1),
        control=Measured(what, control, plain),
    )
