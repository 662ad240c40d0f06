"""CLCA: token reduction with a cross-layer cache and a head that reads several depths.

Reducing tokens in a vision transformer saves most of its compute and loses detail. After attention
in a few blocks a rule (EViT, Top-K, ToMe, PatchMerger) keeps a share r of the patch tokens. CLCA
adds:

    cache   after every block, [mean of the patch tokens; CLR] is appended to a cache, where CLR is
            a learned token that no rule removes; after each reducing block and after the
            second-to-last block the cached tokens are appended to the sequence, and the cache is
            cleared
    head    class tokens after each reducing block and after the last, without the final norm:
            BatchNorm, two depthwise sums over depths per channel, BatchNorm, GELU, linear

With r = 1, without cache and head, it is the plain transformer, bit for bit.

Rios et al., Cross-Layer Cache Aggregation for Token Reduction in Ultra-Fine-Grained Image
Recognition, 2024. Headline: near the best accuracy at r = 0.1 (values only in figures). The
authors' code lets CLR be pruned; here it is the model's last register, part of the prefix, and does
not initialised from the class token. DynamicViT, ATS, DPC-KNN and SiT, which they also combine with
CLCA, are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from papers.clca.depth_head import DepthHead
from papers.clca.token_reduction import Attended, ReductionRule
from papers.clca.token_sequence import TokenSequence
from vision.config.ranges import Gt, Le, NonEmpty, NonNegative, Rate, Rule, checked
from vision.models.vit import ViT
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
)
from vision.train.tower import initialise

Tree = Any
Rising = Annotated[
    tuple[NonNegative[int], ...],
    Rule("rising", lambda blocks: list(blocks) == sorted(set(blocks))),
]


@dataclasses.dataclass(frozen=True)
@checked
class CLCA(Objective):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    Attributes:
      model: a ViT with ``pool="cls"``, a head, ``remat="none"`` and, for the cache, a register.
      rule: the token reduction.
      blocks: indices, from 0, of the reducing blocks.
      keep: r, the share of the tokens after the prefix that a reducing block keeps.
      cache: whether the cache is used.
      aggregate: whether the head reads several depths; else the model's own head is used.
      label_smoothing: of the cross-entropy.
    """

    model: ViT
    rule: ReductionRule = Attended()  # noqa: RUF009 - frozen
    blocks: NonEmpty[Rising] = (3, 6, 9)
    keep: Annotated[float, Gt(0), Le(1)] = 0.1
    cache: bool = True
    aggregate: bool = True
    label_smoothing: Rate = 0.0

    def __post_init__(self) -> None:
        depth = self.model.resolved().depth
        if self.blocks[-1] >= depth:
            raise ValueError(f"blocks={self.blocks}, but the model has {depth}, from 0")
        if self.model.pool != "cls" or self.model.remat != "none":
            raise ValueError("the model needs pool='cls' and remat='none'")
        if self.cache and not self.model.registers:
            raise ValueError("cache=True needs a CLR token: set registers=1 in the model")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    @property
    def sequence(self) -> TokenSequence:
        """The tokens from block to block."""
        depth, prefix = self.model.resolved().depth, 1 + self.model.registers
        return TokenSequence(self.rule, self.blocks, self.keep, self.cache, depth, prefix)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_rule, k_head = jax.random.split(key, 3)
        variables = super().init(k_model, batch)
        size = self.model.resolved()
        height, width = (side // size.patch for side in batch["image"].shape[1:3])
        learned = self.sequence.init(k_rule, height * width, size.width)
        if jax.tree.leaves(learned):
            variables = variables.merge(params={"rule": learned})
        if self.aggregate:
            depths = jnp.zeros((1, len(self._read()), size.width))
            head, state = initialise(self._head, k_head, depths)
            variables = variables.merge(params={"head": head}, model_state={"head": state})
        return variables

    @property
    def _head(self) -> DepthHead:
        return DepthHead(self.model.num_classes or 0, precision=self.model.precision)

    def _read(self) -> tuple[int, ...]:
        """The blocks whose class tokens the head reads."""
        return tuple(sorted({*self.blocks, self.model.resolved().depth - 1}))

    def forward(
        self, variables: Variables, image: jax.Array, ctx: Context
    ) -> tuple[jax.Array, dict[str, jax.Array], dict[str, Tree]]:
        """Logits (B, K) float32, the model's ``out``, and the new state of both networks."""
        tap = self.sequence.tap(variables.params.get("rule", {}))
        out, states = apply(self.model, variables, image, ctx, tap=tap)
        logits = out["logits"]
        if self.aggregate:
            depths = jnp.stack([out[f"block{i:02d}"][:, 0] for i in self._read()], axis=1)
            state = variables.model_state["head"]
            weights = {"params": variables.params["head"], **state}
            mutable = list(state) if ctx.train else []
            logits, updated = self._head.apply(weights, depths, train=ctx.train, mutable=mutable)  # pyright: ignore[reportGeneralTypeIssues]
            states["head"] = {**state, **updated}
        return logits.astype(jnp.float32), out, states

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        logits, _, state = self.forward(variables, batch["image"], ctx)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
        correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        return averaged(losses, labelled & batch["_mask"], state, top1=correct)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        logits, out, _ = self.forward(variables, batch["image"], ctx)
        return classified(logits, out["embedding"])
