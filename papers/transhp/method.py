"""TransHP: a transformer prompted with coarse-class tokens, which predicts the coarse class too.

In a prompting block of a vision transformer, one learned token per coarse class is appended to the
sequence. The block's outputs for these tokens are classified into the coarse class, and since the
image's tokens attend to them in the same block, the prompt of that class is absorbed by the image's
tokens:

    x_b, O = block_b([x_{b-1}; P]),   P (n, D)
    s_i    = <O_i, W_i>,              W (n, D)
    L      = CE(fine, y) + sum over prompting blocks of lambda CE(s, ancestor of y)

The prompts are dropped after the block. There is no explicit selection: attention to the right
prompt results from training s. Coarse targets are the fine ones, smoothed or mixed, summed over
descendants.

Wang et al., TransHP: Image Classification with Hierarchical Prompting, 2023. Headline: top-1 on
ImageNet +2.83 with ViT-B/16, 78.65 with DeiT-S; +12.69 on a tenth of the data. ``absorb=False`` is
the multi-task baseline: prompts attend to the image, but the image does not attend to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from papers.transhp.level import Level, prompting_tap
from vision.config.ranges import NonEmpty, Rate, checked
from vision.objectives.classify import class_labels, cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    classified,
    output_shapes,
)

Tree = Any


@dataclasses.dataclass(frozen=True)
@checked
class TransHP(Objective):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    ``params["prompts"]`` has ``level0``.. with ``tokens`` and ``weights``, both (n, D).

    Attributes:
      model: a ViT with a head, whose blocks are one of ``run_blocks``; from ``config.model``.
      levels: from the first block to the last.
      label_smoothing: of every cross-entropy.
      absorb: whether the image's tokens attend to the prompts.
    """

    levels: NonEmpty[tuple[Level, ...]]
    label_smoothing: Rate = 0.0
    absorb: bool = True

    def __post_init__(self) -> None:
        blocks = [level.block for level in self.levels]
        if blocks != sorted(set(blocks)):
            raise ValueError(f"levels: blocks rising, not {blocks}")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

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
        logits, coarse, _, state = self.forward(variables, batch["image"], ctx)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        valid = labelled & batch["_mask"]

        def term(logits: jax.Array, targets: jax.Array, name: str) -> tuple[jax.Array, Aux]:
            losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
            correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
            return averaged(losses, valid, state, **{name: correct})

        total, aux = term(logits, targets, "top1")
        for i, (level, scores) in enumerate(zip(self.levels, coarse, strict=True)):
            coarse_targets = targets @ jax.nn.one_hot(jnp.array(level.ancestors), level.classes)
            loss, level_aux = term(scores, coarse_targets, f"level{i}_top1")
            total += level.weight * loss
            aux.metrics.update(level_aux.metrics)
        return total, aux

    def forward(
        self,
        variables: Variables,
        image: jax.Array,
        ctx: Context,
        known: tuple[jax.Array, ...] | None = None,
    ) -> tuple[jax.Array, list[jax.Array], jax.Array, dict[str, Tree]]:
        """Fine logits (B, K), coarse ones (B, n) per level, the embedding, and the model's state.

        ``known``: int (B,) per level, a coarse class whose prompt replaces those of all classes.
        """
        prompts = variables.params["prompts"]
        tokens = []
        for i in range(len(self.levels)):
            prompt_tokens = prompts[f"level{i}"]["tokens"]
            chosen = prompt_tokens if known is None else prompt_tokens[known[i]][:, None]
            tokens.append(jnp.broadcast_to(chosen, (len(image), *prompt_tokens.shape)))
        tap = prompting_tap(self.levels, tokens, self.absorb)
        out, state = apply(self.model, variables, image, ctx, tap=tap)
        coarse = []
        for i, (level, batched) in enumerate(zip(self.levels, tokens, strict=True)):
            # The block's residual stream at the prompts, which the tap drops from its output.
            added = (out[f"{level.site}/{part}"][:, -level.classes :] for part in ("attn", "mlp"))
            outputs = sum(
                (branch.astype(jnp.float32) for branch in added), batched.astype(jnp.float32)
            )
            weights = prompts[f"level{i}"]["weights"]
            coarse.append(jnp.einsum("bnd,nd->bn", outputs, weights))
        return out["logits"].astype(jnp.float32), coarse, out["embedding"], state

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify``, and ``logits/level0``.. (B, n), all float32."""
        logits, coarse, embedding, _ = self.forward(variables, batch["image"], ctx)
        levels = {f"logits/level{i}": scores for i, scores in enumerate(coarse)}
        return {**classified(logits, embedding), **levels}
