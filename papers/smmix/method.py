"""SMMix: the model that is being trained says what to paste where.

Mixing images pastes background as happily as things. Here the model looks first, without gradient:
from its last attention map, patch to patch, averaged over heads and queries, the square of side k
that is least attended in an image makes room for the square that is most attended in its partner.
Both groups of tokens are then named by a second linear head, and the answer for the mixture should
be the mixture of the answers:

    x'  = x with the patches of its least region replaced by the partner's most attended ones
    lam = 1 - k^2 / n^2,  k uniform in int(n / 4) .. int(3 n / 4) of n patches a side
    L   = CE(f(x'), lam y + (1 - lam) y_p)
          + 1/2 (CE(g(mean of own tokens), y) + CE(g(mean of pasted tokens), y_p))
          + KL(softmax(lam z + (1 - lam) z_p) || softmax(f(x')))

with z the logits of the look, y_p and z_p the partner's, and label smoothing in every CE. Half of
the batches get mixup and plain CE instead. Only f answers in the end.

Chen et al., SMMix: Self-Motivated Image Mixing for Vision Transformers, 2023. Headline: ImageNet
73.6 with DeiT-T, 81.1 with DeiT-S. Partners lie half a batch apart, where the paper reverses the
batch: so micro-batches keep pairs together where their number divides half the batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vision.data.batch_ops import Mixup
from vision.objectives.classify import cross_entropy, to_targets
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    output_shapes,
)
from vision.train.tower import Tap

Tree = Any


@dataclasses.dataclass(frozen=True)
class SMMix(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, B even; ``batch["label"]`` int (B,).

    Attributes:
      model: a tower with a head whose ``out`` has ``map``; filled in from ``config.model``.
      attention: regular expression of the sites of its attention weights (B, heads, N, N), patches
        last; the mean of several. None for those of the last block.
      sides: least and most side of the square, as shares of the side in patches.
      probability: that a batch is mixed so; else it gets mixup.
      mixup_alpha: of mixup's Beta distribution.
      label_smoothing: of every cross-entropy.
    """

    attention: str | None = None
    sides: tuple[float, float] = (0.25, 0.75)
    probability: float = 0.5
    mixup_alpha: float = 0.8
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.sides[0] <= self.sides[1] < 1:
            raise ValueError(f"sides={self.sides}: two shares in [0, 1), the least first")
        if not (0 <= self.probability <= 1 and 0 <= self.label_smoothing < 1):
            raise ValueError("probability and label_smoothing: in [0, 1] and [0, 1)")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_head = jax.random.split(key)
        variables = super().init(k_model, batch)
        out = output_shapes(self.model, variables, batch["image"])
        shape = (out["map"].shape[-1], out["logits"].shape[-1])
        kernel = 0.02 * jax.random.truncated_normal(k_head, -2, 2, shape)
        head = {"kernel": kernel, "bias": jnp.zeros(shape[1])}
        return variables.merge(params={"token_head": head})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        if len(batch["image"]) % 2:
            raise ValueError(f"a batch of {len(batch['image'])} has no pairs: an even batch_size")
        draw = ctx.rng("draw")
        chosen = jax.random.bernoulli(ctx.rng("coin"), self.probability)
        losses, right, state, valid = jax.lax.cond(
            chosen,
            lambda: self._pasted(variables, batch, draw, ctx),
            lambda: self._blended(variables, batch, draw, ctx),
        )
        pasting = chosen.astype(jnp.float32)
        return averaged(losses, valid, state, top1=right, pasting=pasting)

    def _pasted(
        self, variables: Variables, batch: Batch, key: jax.Array, ctx: Context
    ) -> tuple[jax.Array, jax.Array, dict[str, Tree], jax.Array]:
        """Losses (B,), whether the answer is right, the model's new state, and which rows count."""
        image, half = batch["image"], len(batch["image"]) // 2

        def partner(x: jax.Array) -> jax.Array:
            return jnp.roll(x, half, axis=0)

        z, seen = self.look(variables, image, ctx)
        soft, labelled = to_targets(batch["label"], z.shape[-1])
        valid = labelled & batch["_mask"]
        both = valid & partner(valid)
        low, high = (int(share * min(seen.shape[1:])) for share in self.sides)
        side = jax.random.randint(key, (), low, high + 1)
        least, most = regions(seen, side)
        mixed, there = paste(image, partner(image), least, partner(most), side, seen.shape[1:])
        mixed = jnp.where(both[:, None, None, None], mixed, image)
        there = there & both[:, None, None]
        own = 1 - there.mean((1, 2))[:, None]
        out, state = apply(self.model, variables, mixed, ctx)
        logits, head = out["logits"].astype(jnp.float32), variables.params["token_head"]

        def entropy(said: jax.Array, target: jax.Array) -> jax.Array:
            return cross_entropy(said, target, "softmax", self.label_smoothing)

        def of(part: jax.Array) -> jax.Array:
            tokens = out["map"].astype(jnp.float32) * part[..., None]
            mean = tokens.sum((1, 2)) / jnp.maximum(part.sum((1, 2)), 1)[:, None]
            return mean @ head["kernel"] + head["bias"]

        targets = own * soft + (1 - own) * partner(soft)
        groups = entropy(of(~there), soft)
        groups = groups + jnp.where(there.any((1, 2)), entropy(of(there), partner(soft)), 0.0)
        expected = jax.nn.log_softmax(own * z + (1 - own) * partner(z))
        gap = jnp.sum(jnp.exp(expected) * (expected - jax.nn.log_softmax(logits)), -1)
        losses = entropy(logits, targets) + 0.5 * groups + gap
        return losses, jnp.argmax(logits, -1) == jnp.argmax(targets, -1), state, valid

    def _blended(
        self, variables: Variables, batch: Batch, key: jax.Array, ctx: Context
    ) -> tuple[jax.Array, jax.Array, dict[str, Tree], jax.Array]:
        classes = variables.params["token_head"]["bias"].shape[0]
        valid = batch["_mask"] & to_targets(batch["label"], classes)[1]
        given = {"image": batch["image"], "label": batch["label"], "_mask": valid}
        mixed = Mixup(classes, self.mixup_alpha)(given, key)
        out, state = apply(self.model, variables, mixed["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        losses = cross_entropy(logits, mixed["label"], "softmax", self.label_smoothing)
        right = jnp.argmax(logits, -1) == jnp.argmax(mixed["label"], -1)
        return losses, right, state, valid

    def look(
        self, variables: Variables, image: jax.Array, ctx: Context
    ) -> tuple[jax.Array, jax.Array]:
        """Logits (B, K) and attention (B, h, w), float32, of the model as it would answer."""
        where = self.attention
        if where is None:
            names = output_shapes(self.model, variables, image)
            blocks = [name.partition("/")[0] for name in names if name.startswith("block")]
            where = f"{max(blocks)}/attention"
        params = jax.lax.stop_gradient(variables.params["model"])
        tap = Tap(lambda _, x: x, sites=where)
        out, _ = apply(self.model, variables, image, ctx, params=params, train=False, tap=tap)
        sites = [name for name in out if tap.wants(name)]
        if not sites:
            raise ValueError(f"attention: {where!r} matches none of {sorted(out)}")
        grid = out["map"].shape[1:3]
        patches = grid[0] * grid[1]
        # Patches stand last, after class token and registers.
        maps = [out[name][..., -patches:, -patches:].mean((1, 2)) for name in sites]
        attention = jnp.mean(jnp.stack(maps), 0).reshape(-1, *grid)
        return out["logits"].astype(jnp.float32), attention


def regions(attention: jax.Array, side: jax.Array | int) -> tuple[jax.Array, jax.Array]:
    """First (row, column) (B, 2) of the least and of the most attended square of ``side`` patches.

    ``attention`` is (B, h, w); ``side`` an integer scalar, which may be traced.
    """
    _, rows, columns = attention.shape
    sums = jnp.pad(attention.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    top, left = jnp.arange(rows), jnp.arange(columns)
    bottom, right = jnp.minimum(top + side, rows), jnp.minimum(left + side, columns)
    upper, lower = sums[:, top], sums[:, bottom]
    square = lower[:, :, right] - lower[:, :, left] - upper[:, :, right] + upper[:, :, left]
    fits = (top + side <= rows)[:, None] & (left + side <= columns)[None]

    def place(score: jax.Array) -> jax.Array:
        best = jnp.argmax(jnp.where(fits, score, -jnp.inf).reshape(len(score), -1), -1)
        return jnp.stack([best // columns, best % columns], -1)

    return place(-square), place(square)


def paste(
    image: jax.Array,
    other: jax.Array,
    into: jax.Array,
    out_of: jax.Array,
    side: jax.Array,
    grid: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """Squares of ``side`` patches of ``other`` in the place of those of ``image`` (B, H, W, C).

    Args:
      into, out_of: (B, 2) first row and column of the squares, in patches.
      grid: patches (h, w) of an image.

    Returns:
      The images, and bool (B, h, w): which patches are ``other``'s.
    """
    patch = image.shape[1] // grid[0], image.shape[2] // grid[1]
    inside, places = [], []
    for axis in (0, 1):
        first = into[:, axis, None]
        at = jnp.arange(grid[axis])[None]
        inside.append((at >= first) & (at < first + side))
        move = patch[axis] * (out_of - into)[:, axis, None]
        places.append(jnp.clip(jnp.arange(image.shape[1 + axis])[None] + move, 0, None))
    there = inside[0][:, :, None] & inside[1][:, None, :]
    moved = jnp.take_along_axis(other, places[0][:, :, None, None], axis=1, mode="clip")
    moved = jnp.take_along_axis(moved, places[1][:, None, :, None], axis=2, mode="clip")
    pixels = jnp.repeat(jnp.repeat(there, patch[0], 1), patch[1], 2)[..., None]
    return jnp.where(pixels, moved, image), there
