"""DCAL: local queries that attend to the whole image, and a second image that distracts.

Beside the vision transformer's own answer (SA) two branches are trained:

    GLCA   the tokens that reach the class token most by attention rollout, a share R of the
           patches, are the queries of one more block, whose keys and values are all tokens; what
           it gives for them is classified by a head of its own
    PWCA   every image attends, in every block and with the same weights, to its own tokens and to
           those of another image of the batch, and keeps its label; in training only

    L = 1/2 (e^-w1 L_SA + e^-w2 L_GLCA + e^-w3 L_PWCA + w1 + w2 + w3),   w learned

Predictions add the probabilities of SA and GLCA; re-identification joins their features.

Zhu et al., Dual Cross-Attention Learning for Fine-Grained Visual Categorization and Object
Re-Identification, 2022. Headline: CUB 92.0, Cars 95.3, Aircraft 93.3 with R50-ViT-B; DeiT-T +2.5 on
CUB. There is no official code. What the head of GLCA reads is not said: with one block, a class
token among the queries would come out the same whatever else is selected, and R would mean
nothing, so the mean over the selected patches is read here (``read="class"`` is the other). The
distractor's tokens are those of its own pass, without a distractor. Published FLOPs are not known
to us; a step of ``small`` has 3.25 times the plain ViT's, since PWCA is a pass of twice the tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from papers.dcal.attention import most_reaching, rollout, with_distractors
from vision.config.ranges import Gt, Le, Rate, checked
from vision.models.cross_attention import CrossBlock
from vision.models.layers import as_output
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
)
from vision.train.tower import Tap

SA, GLCA, PWCA = "sa", "glca", "pwca"


@dataclasses.dataclass(frozen=True)
@checked
class DCAL(Objective):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    Attributes:
      model: a ViT with a class token and a head.
      share: R, of the patches; the paper has 0.1, for re-identification 0.3.
      read: what the head of GLCA reads.
      distract: whether there is PWCA.
      label_smoothing: of every cross-entropy.
    """

    model: ViT
    share: Annotated[float, Gt(0), Le(1)] = 0.1
    read: Literal["patches", "class"] = "patches"
    distract: bool = True
    label_smoothing: Rate = 0.0

    def __post_init__(self) -> None:
        if self.model.pool != "cls" or not self.model.num_classes or self.model.remat != "none":
            raise ValueError("DCAL: a ViT with pool='cls', num_classes and remat='none'")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    @property
    def _block(self) -> CrossBlock:
        size, precision = self.model.resolved(), as_output(self.model.precision)
        return CrossBlock(size.heads, 4 * size.width, precision)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_block, k_head = jax.random.split(key, 3)
        variables = super().init(k_model, batch)
        width, classes = self.model.resolved().width, self.model.num_classes or 0
        tokens = jnp.zeros((1, 2, width))
        block = self._block.init({"params": k_block}, tokens[:, :1], tokens)
        kernel = 0.01 * jax.random.normal(k_head, (width, classes))
        head = {"kernel": kernel, "bias": jnp.zeros(classes)}
        weights = {name: jnp.zeros(()) for name in (SA, GLCA, PWCA)[: 2 + self.distract]}
        local = {"block": block["params"], "head": head}
        return variables.merge(params={"local": local, "uncertainty": weights})

    def answers(
        self, variables: Variables, image: jax.Array, ctx: Context
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Logits (B, K) of SA and GLCA, float32; the tower's ``out`` with ``local`` (B, D), what
        the head of GLCA reads, and ``rollout`` (B, N) of the patches."""
        depth, prefix = self.model.resolved().depth, 1 + self.model.registers
        sites = [f"block{i:02d}/attention" for i in range(depth)]
        out, _ = apply(self.model, variables, image, ctx, tap=Tap(lambda _, x: x, "|".join(sites)))
        reach = jax.lax.stop_gradient(rollout([out[site] for site in sites]))[:, 0, prefix:]
        tokens, params = out[f"block{depth - 1:02d}"], variables.params["local"]
        picked = most_reaching(tokens, reach, self.share, self.read == "class")
        mixed: Any = self._block.apply({"params": params["block"]}, picked, tokens)
        local = mixed[:, 0] if self.read == "class" else mixed.mean(1)
        local = local.astype(jnp.float32)
        second = local @ params["head"]["kernel"] + params["head"]["bias"]
        logits = {SA: out["logits"].astype(jnp.float32), GLCA: second}
        return logits, {**out, "local": local, "rollout": reach}

    def distracted(self, variables: Variables, image: jax.Array, ctx: Context) -> jax.Array:
        """Logits (B, K) float32 where the next image of the batch is the distractor of each."""
        other = (jnp.arange(len(image)) + 1) % len(image)
        size = self.model.resolved()
        patches = (image.shape[1] // size.patch) * (image.shape[2] // size.patch)
        tap = with_distractors(other, 1 + self.model.registers + patches, size.depth)
        key = ctx.rng("distracted") if ctx.train else None
        out, _ = apply(self.model, variables, image, ctx, tap=tap, key=key)
        return out["logits"].astype(jnp.float32)

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        answers, _ = self.answers(variables, batch["image"], ctx)
        if self.distract:
            answers[PWCA] = self.distracted(variables, batch["image"], ctx)
        targets, labelled = to_targets(batch["label"], answers[SA].shape[-1])
        losses, correct = jnp.zeros(len(targets)), {}
        for name, logits in answers.items():
            weight = variables.params["uncertainty"][name]
            each = cross_entropy(logits, targets, "softmax", self.label_smoothing)
            losses += 0.5 * (jnp.exp(-weight) * each + weight)
            correct[f"{name}_top1"] = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        return averaged(losses, labelled & batch["_mask"], **correct)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``log_probabilities`` of the mean of both answers, also as ``logits``; ``embedding`` (B,
        2 D), both features; ``rollout`` (B, N) of the patches; all float32."""
        logits, out = self.answers(variables, batch["image"], ctx)
        both = jnp.stack([jax.nn.log_softmax(each) for each in logits.values()])
        log = jax.nn.logsumexp(both, 0) - jnp.log(2.0)
        return {
            "logits": log,
            "log_probabilities": log,
            "embedding": jnp.concatenate([out["embedding"].astype(jnp.float32), out["local"]], -1),
            "rollout": out["rollout"],
        }
