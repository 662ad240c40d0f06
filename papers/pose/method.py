"""POSE: open-set model attribution with progressively trained augmenters as simulated unknowns.

A classifier attributes an image to one of K known generators by traces that are hardly visible, and
has to reject images of unknown generators. In every epoch a new augmenter, two convolutions without
a nonlinearity, learns to change the traces and not the content; the classifier learns to separate
its outputs from the originals. Trained augmenters are stored, and a random one of them is separated
too, so that the simulated open space expands outwards from the known classes.

With F the features, G_e the augmenter of epoch e and G_p a random earlier one, a step has two
phases, which update two networks:

    augmenter   MSE(G_e(x), x) + 0.01 max(1 - cos(F(x), F(G_e(x))), 1 - 0.95)
                + 0.0001 cos(F(G_e(x)), F(G_p(x)))
    classifier  CE(softmax(logits) / 0.1, y) + triplet([F(x), F(G_e(x))], [y, y + K])
                + triplet([F(x), F(G_p(x))], [y, y + K])

with the batch-hard triplet loss of margin 0.3. Probabilities stand in the place of logits, as in
the authors' code, so that the cross-entropy is at most 10 + log K. The score for a known generator
is the largest softmax probability. With ``augmenters=0`` the classifier is trained alone.

Yang et al., Progressive Open Space Expansion for Open-Set Model Attribution, 2023. Headline: best
AUC and OSCR on 15 known and 53 unknown generators (OSMA); the card's figures are unconfirmed.
Differences: the input is the image, in the paper its DCT; all augmenters are stacked in one array
and share Adam's step count; features are normalised in the triplet loss too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from papers.pose.augmenters import augment, augmenter_at, augmenter_loss, init_augmenters
from papers.pose.triplet import separating_triplet
from vision.blocks.similarity import unit
from vision.config.ranges import NonNegative, Positive, checked
from vision.objectives.classify import class_labels, cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Phase,
    Variables,
    apply,
    averaged,
)

Tree = Any
EXPAND, ATTRIBUTE = "expand", "attribute"


@dataclasses.dataclass(frozen=True)
@checked
class Pose(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, ``batch["label"]`` int (B,).

    Attributes:
      model: a tower with a head; filled in from ``config.model``.
      augmenters: number of augmenters, one per equal part of the run (the paper's epochs).
      width: channels between an augmenter's convolutions.
      temperature: of the probabilities in the cross-entropy.
      margin: of the triplet loss.
      similarity: cosine of the features above which the second term has no gradient.
      weights: of an augmenter's three terms.
    """

    batch_coupled: ClassVar[bool] = True

    augmenters: NonNegative[int] = 30
    width: Positive[int] = 32
    temperature: Positive[float] = 0.1
    margin: float = 0.3
    similarity: float = 0.95
    weights: tuple[float, float, float] = (1.0, 1e-2, 1e-4)

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    @property
    def phases(self) -> tuple[Phase, ...]:
        attribute = Phase(ATTRIBUTE, ("model",))
        return (Phase(EXPAND, ("augmenters",)), attribute) if self.augmenters else (attribute,)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_one, k_two = jax.random.split(key, 3)
        variables = super().init(k_model, batch)
        if not self.augmenters:
            return variables
        shape = (self.augmenters, batch["image"].shape[-1], self.width)
        stack = init_augmenters(k_one, k_two, shape)
        stored = jax.tree.map(jnp.zeros_like, stack)
        return variables.merge(params={"augmenters": stack}, extra_state={"stored": stored})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        if not self.augmenters:
            return self._attribute(variables, batch, ctx, [])
        epoch = ctx.step * self.augmenters // ctx.total_steps
        present = augment(augmenter_at(variables.params["augmenters"], epoch), batch["image"])
        earlier = jax.random.randint(ctx.rng("previous"), (), 0, jnp.maximum(epoch, 1))
        past = augment(augmenter_at(variables.extra_state["stored"], earlier), batch["image"])
        has_past = epoch > 0
        if ctx.phase == EXPAND:
            images, mask = [batch["image"], present, past], batch["_mask"]
            features, _, _ = self._features(variables, images, ctx, train=False)
            return augmenter_loss(images, features, mask, has_past, self.weights, self.similarity)
        augmented = [(present, jnp.array(True)), (past, has_past)]
        return self._attribute(variables, batch, ctx, augmented)

    def _attribute(
        self,
        variables: Variables,
        batch: Batch,
        ctx: Context,
        augmented: list[tuple[jax.Array, jax.Array]],
    ) -> tuple[jax.Array, Aux]:
        images = [batch["image"], *(image for image, _ in augmented)]
        features, logits, state = self._features(variables, images, ctx, train=True)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        valid = labelled & batch["_mask"]
        bounded = jax.nn.softmax(logits) / self.temperature
        losses = cross_entropy(bounded, targets, "softmax", 0.0)
        loss, aux = averaged(losses, valid, state, top1=jnp.argmax(logits, -1) == batch["label"])
        for (_, present), feature in zip(augmented, features[1:], strict=True):
            pair, classes = (features[0], feature), logits.shape[-1]
            triplet = separating_triplet(pair, batch["label"], classes, valid, self.margin)
            loss = loss + jnp.where(present, triplet, 0.0)
        return loss, aux

    def _features(
        self, variables: Variables, images: list[jax.Array], ctx: Context, train: bool
    ) -> tuple[list[jax.Array], jax.Array, dict[str, Tree]]:
        """Unit features (B, D) of each image batch, logits of the first, the model's new state."""
        out, state = apply(self.model, variables, jnp.concatenate(images), ctx, train=train)
        features = jnp.split(unit(out["embedding"]), len(images))
        return features, out["logits"][: len(images[0])].astype(jnp.float32), state

    def after_update(self, variables: Variables, aux: Aux, ctx: Context) -> dict[str, Tree]:
        """Stores the augmenter of the current epoch; those of other epochs are unchanged."""
        if ctx.phase != EXPAND:
            return variables.extra_state
        epoch = ctx.step * self.augmenters // ctx.total_steps
        old, new = variables.extra_state["stored"], variables.params["augmenters"]
        stored = jax.tree.map(lambda old, new: old.at[epoch].set(new[epoch]), old, new)
        return {**variables.extra_state, "stored": stored}
