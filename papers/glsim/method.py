"""GLSim: an image and a crop of it, chosen by how alike patches are to the whole.

A vision transformer encodes the image. Patches whose outputs l_j (after the last norm) are most
alike to that of the class token g mark what the class was told from; the box around the ``count``
of them that are most alike is cut out, stretched to the size of the image and encoded by the same
weights. One more transformer block mixes the two class tokens:

    s_j    = cos(g, l_j),  no gradient
    crop   = resize(image[box of the ``count`` highest s])
    logits = head(LN(block([g; g_crop]))_0)

in training as in evaluation. Choosing so costs N D products, attention rollout L N^3.

Rios et al., Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision
Transformers, 2024. Differences from the authors' code: there the box ends where its last patch
begins, here where it ends, so that all patches are the whole image; there bilinear resizing aligns
corners. ``choose="random"`` is their control; their l1 and l2 distances are left out. No FLOPs of
the published network are known to us beyond these of the choice; a step of ``small`` has 2.01 times
the plain ViT's, which is run twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from papers.glsim.aggregator import Aggregator
from vision.blocks.crops import box_of_highest, crop_and_resize
from vision.blocks.similarity import unit
from vision.config.ranges import Positive, Rate, checked
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


@dataclasses.dataclass(frozen=True)
@checked
class GLSim(Objective):
    """See the module. ``batch["image"]``, ``batch["label"]`` as ``Classify`` has them.

    Attributes:
      model: a ViT with a class token and a head, which says the number of classes and is not used.
      count: how many patches the box holds at least; the paper has 8 at 224 px and 16 at 448.
      choose: patches by similarity; at ``random``; or ``none``: no crop, only the image's class
        token goes through the last block.
      label_smoothing: of the cross-entropy.
    """

    model: ViT
    count: Positive[int] = 8
    choose: Literal["similarity", "random", "none"] = "similarity"
    label_smoothing: Rate = 0.0

    def __post_init__(self) -> None:
        if not self.model.has_class_token() or not self.model.num_classes or self.model.norm_pooled:
            raise ValueError("GLSim: a ViT with pool='cls', num_classes and norm_pooled=False")

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    @property
    def _aggregator(self) -> Aggregator:
        return Aggregator(self.model.num_classes or 0, self.model.precision)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_views = jax.random.split(key)
        variables = super().init(k_model, batch)
        rows, columns = self._grid(batch["image"])
        if self.count > rows * columns:
            raise ValueError(f"count={self.count}, but an image has {rows * columns} patches")
        views = jnp.zeros((1, 2, self.model.resolved().width))
        params = self._aggregator.init({"params": k_views}, views)["params"]
        return variables.merge(params={"aggregator": params})

    def _grid(self, image: Any) -> tuple[int, int]:
        patch = self.model.resolved().patch
        return image.shape[1] // patch, image.shape[2] // patch

    def forward(
        self, variables: Variables, image: jax.Array, ctx: Context
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits (B, K) float32; ``embedding`` (B, D), ``scores`` (B, N) of patches, and
        ``box`` int32 (B, 4): top, left, bottom, right in pixels."""
        tokens = apply(self.model, variables, image, ctx)[0]["tokens"].astype(jnp.float32)
        whole, patches = tokens[:, 0], tokens[:, 1 + self.model.registers :]
        scores = jax.lax.stop_gradient(jnp.einsum("bd,bnd->bn", unit(whole), unit(patches)))
        ranked = scores
        if self.choose == "random":
            key = ctx.rng("crop") if ctx.train else jax.random.key(0)
            ranked = jax.random.uniform(key, scores.shape)
        grid = self._grid(image)
        box = box_of_highest(ranked, grid, self.count) * self.model.resolved().patch
        views = [whole]
        if self.choose != "none":
            key = ctx.rng("crop dropout") if ctx.train else None
            crop = crop_and_resize(image, box).astype(image.dtype)
            seen = apply(self.model, variables, crop, ctx, key=key)[0]["tokens"]
            views.append(seen[:, 0].astype(jnp.float32))
        params = variables.params["aggregator"]
        answer: Any = self._aggregator.apply({"params": params}, jnp.stack(views, 1))
        logits, embedding = answer
        return logits.astype(jnp.float32), {"embedding": embedding, "scores": scores, "box": box}

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        logits, out = self.forward(variables, batch["image"], ctx)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
        correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        box, sides = out["box"].astype(jnp.float32), batch["image"].shape[1:3]
        share = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / (sides[0] * sides[1])
        return averaged(losses, labelled & batch["_mask"], top1=correct, crop=share)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """The outputs of ``Classify``, and ``scores`` and ``box`` of ``forward``."""
        logits, out = self.forward(variables, batch["image"], ctx)
        return {**classified(logits, out["embedding"]), "scores": out["scores"], "box": out["box"]}
