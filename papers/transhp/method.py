"""TransHP: a transformer that guesses the coarse class half-way, and is prompted by its guess.

In a prompting block of a vision transformer, one learned token per coarse class stands behind the
others. What the block makes of these tokens says which coarse class it is, and since the image's
tokens attend to them in the same block, the prompt of that class flows into the image's tokens:

    x_b, O = block_b([x_{b-1}; P]),   P (n, D)
    s_i    = <O_i, W_i>,              W (n, D)
    L      = CE(fine, y) + sum over prompting blocks of lambda CE(s, ancestor of y)

The prompts are dropped after the block. Nothing is chosen: that attention prefers one prompt comes
of learning s. Coarse targets are fine ones, smoothed or mixed, summed over descendants.

Wang et al., TransHP: Image Classification with Hierarchical Prompting, 2023. Headline: top-1 on
ImageNet +2.83 with ViT-B/16, 78.65 with DeiT-S; +12.69 on a tenth of the data. ``absorb=False`` is
its multi-task rival: prompts look at the image, and the image does not look at them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

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
class Level:
    """A prompting block.

    Attributes:
      block: its number, from 0.
      ancestors: the coarse class, 0.., of every fine class. Fine classes without one on this level
        share a further number.
      weight: lambda.
    """

    block: int
    ancestors: tuple[int, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.block < 0 or self.weight < 0:
            raise ValueError(f"block={self.block}, weight={self.weight}: neither is negative")
        if set(self.ancestors) != set(range(self.classes)):
            raise ValueError(f"ancestors={self.ancestors}: numbers 0.. without a gap")

    @property
    def classes(self) -> int:
        return max(self.ancestors, default=-1) + 1

    @property
    def site(self) -> str:
        return f"block{self.block:02d}"

    @property
    def before(self) -> str:
        """Where the prompts join."""
        return f"block{self.block - 1:02d}" if self.block else "stem"


@dataclasses.dataclass(frozen=True)
class TransHP(Objective):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    ``params["prompts"]`` has ``level0``.. with ``tokens`` and ``weights``, both (n, D).

    Attributes:
      model: a ViT with a head, whose blocks are one of ``run_blocks``; from ``config.model``.
      levels: from the first block to the last.
      label_smoothing: of every cross-entropy.
      absorb: whether the image's tokens attend to the prompts.
    """

    levels: tuple[Level, ...]
    label_smoothing: float = 0.0
    absorb: bool = True

    def __post_init__(self) -> None:
        blocks = [level.block for level in self.levels]
        if not blocks or blocks != sorted(set(blocks)):
            raise ValueError(f"levels: at least one, blocks rising, not {blocks}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it lies in [0, 1)")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_prompts = jax.random.split(key)
        variables = super().init(k_model, batch)
        out = output_shapes(self.model, variables, batch["image"])
        prompts = {}
        for i, level in enumerate(self.levels):
            if level.site not in out:
                raise ValueError(f"levels: the model has no {level.site}")
            fine = out["logits"].shape[-1]
            if len(level.ancestors) != fine:
                raise ValueError(f"levels: {len(level.ancestors)} ancestors for {fine} classes")
            shape = (2, level.classes, out["stem"].shape[-1])
            drawn = jax.random.truncated_normal(jax.random.fold_in(k_prompts, i), -2, 2, shape)
            prompts[f"level{i}"] = {"tokens": 0.02 * drawn[0], "weights": 0.02 * drawn[1]}
        return variables.merge(params={"prompts": prompts})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        logits, coarse, _, state = self.answer(variables, batch["image"], ctx)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        valid = labelled & batch["_mask"]

        def compared(logits: jax.Array, targets: jax.Array, name: str) -> tuple[jax.Array, Aux]:
            losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
            right = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
            return averaged(losses, valid, state, **{name: right})

        total, aux = compared(logits, targets, "top1")
        for i, (level, scores) in enumerate(zip(self.levels, coarse, strict=True)):
            above = targets @ jax.nn.one_hot(jnp.array(level.ancestors), level.classes)
            loss, of_level = compared(scores, above, f"level{i}_top1")
            total += level.weight * loss
            aux.metrics.update(of_level.metrics)
        return total, aux

    def answer(
        self,
        variables: Variables,
        image: jax.Array,
        ctx: Context,
        told: tuple[jax.Array, ...] | None = None,
    ) -> tuple[jax.Array, list[jax.Array], jax.Array, dict[str, Tree]]:
        """Fine logits (B, K), coarse ones (B, n) per level, the embedding, and the model's state.

        ``told``: int (B,) per level, a coarse class whose prompt stands in the place of all.
        """
        prompts = variables.params["prompts"]
        tokens = []
        for i in range(len(self.levels)):
            own = prompts[f"level{i}"]["tokens"]
            rows = jnp.broadcast_to(own, (len(image), *own.shape))
            if told is not None:
                rows = jnp.broadcast_to(own[told[i]][:, None], (len(image), *own.shape))
            tokens.append(rows)
        out, state = apply(self.model, variables, image, ctx, tap=self._tap(tokens))
        coarse = []
        for i, (level, rows) in enumerate(zip(self.levels, tokens, strict=True)):
            # The residual stream behind the prompts, which the tap has dropped from the block's.
            added = (out[f"{level.site}/{part}"][:, -level.classes :] for part in ("attn", "mlp"))
            seen = sum((each.astype(jnp.float32) for each in added), rows.astype(jnp.float32))
            weights = prompts[f"level{i}"]["weights"]
            coarse.append(jnp.einsum("bnd,nd->bn", seen, weights))
        return out["logits"].astype(jnp.float32), coarse, out["embedding"], state

    def _tap(self, tokens: list[jax.Array]) -> Tap:
        joins = {level.before: rows for level, rows in zip(self.levels, tokens, strict=True)}
        leaves = {level.site: level.classes for level in self.levels}
        apart = {} if self.absorb else {f"{site}/attention": n for site, n in leaves.items()}

        def edit(name: str, x: jax.Array) -> jax.Array:
            if name in apart:
                prompts = jnp.arange(x.shape[-1]) >= x.shape[-1] - apart[name]
                x = jnp.where(~prompts[:, None] & prompts, 0, x)
                return x / x.sum(-1, keepdims=True)
            if name in leaves:
                x = x[:, : -leaves[name]]
            if name in joins:
                x = jnp.concatenate([x, joins[name].astype(x.dtype)], axis=1)
            return x

        return Tap(edit, "|".join({**joins, **leaves, **apart}))

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """What ``Classify`` predicts, and ``logits/level0``.. (B, n), all float32."""
        logits, coarse, embedding, _ = self.answer(variables, batch["image"], ctx)
        return {
            "logits": logits,
            "log_probabilities": jax.nn.log_softmax(logits),
            "embedding": embedding,
            **{f"logits/level{i}": scores for i, scores in enumerate(coarse)},
        }
