"""Progressive open space expansion: unknown makers of images, simulated one after another.

A classifier says which of K known generators made an image, by traces that one hardly sees, and
has to notice generators that it never met. In every epoch a new augmenter, two convolutions with
nothing between, learns to change the traces and not the picture; the classifier learns to tell
what it makes from the originals. Augmenters that are done stay, and a random one of them is told
apart too, so that what surrounds the known classes grows outwards.

With F the features, G_e the augmenter of epoch e and G_p a random earlier one, a step makes two
updates, of two networks:

    augmenter   MSE(G_e(x), x) + 0.01 max(1 - cos(F(x), F(G_e(x))), 1 - 0.95)
                + 0.0001 cos(F(G_e(x)), F(G_p(x)))
    classifier  CE(logits / 0.1, y) + triplet([F(x), F(G_e(x))], [y, y + K])
                + triplet([F(x), F(G_p(x))], [y, y + K])

the triplet loss being the batch-hard one of margin 0.3. The score of being known is the largest
softmax probability. Without augmenters (``augmenters=0``) it is the classifier alone.

Yang et al., Progressive Open Space Expansion for Open-Set Model Attribution, 2023. Headline: best
AUC and OSCR on 15 known and 53 unknown generators (OSMA); the card's figures are unconfirmed.
Differences: images as they are, where the paper takes their DCT; all augmenters lie in one stack
and share Adam's count of steps; features have unit length in the triplet loss too.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from papers.pose.triplet import batch_hard_triplet
from vision.objectives.classify import cross_entropy, to_targets
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Phase,
    Variables,
    apply,
    averaged,
    masked_mean,
)

Tree = Any
EXPAND, ATTRIBUTE = "expand", "attribute"


@dataclasses.dataclass(frozen=True)
class Pose(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, ``batch["label"]`` int (B,).

    Attributes:
      model: a tower with a head; filled in from ``config.model``.
      augmenters: how many, one for each of as many equal parts of the run (the paper's epochs).
      width: channels between an augmenter's convolutions.
      temperature: of the cross-entropy.
      margin: of the triplet loss.
      similarity: cosine of the features above which an augmenter is no longer pulled back.
      weights: of an augmenter's three terms.
    """

    batch_coupled: ClassVar[bool] = True

    augmenters: int = 30
    width: int = 32
    temperature: float = 0.1
    margin: float = 0.3
    similarity: float = 0.95
    weights: tuple[float, float, float] = (1.0, 1e-2, 1e-4)

    def __post_init__(self) -> None:
        if self.augmenters < 0 or self.width < 1 or self.temperature <= 0:
            raise ValueError("augmenters: 0 or more; width: 1 or more; temperature: positive")

    @property
    def phases(self) -> tuple[Phase, ...]:
        learn = Phase(ATTRIBUTE, ("model",))
        return (Phase(EXPAND, ("augmenters",)), learn) if self.augmenters else (learn,)

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        k_model, k_one, k_two = jax.random.split(key, 3)
        variables = super().init(k_model, batch)
        if not self.augmenters:
            return variables
        channels, count = batch["image"].shape[-1], self.augmenters

        def kernels(key: jax.Array, into: int, out: int) -> jax.Array:
            scale = (9 * into) ** -0.5
            return scale * jax.random.uniform(key, (count, 3, 3, into, out), minval=-1, maxval=1)

        stack = {
            "first": kernels(k_one, channels, self.width),
            "second": kernels(k_two, self.width, channels),
        }
        stored = jax.tree.map(jnp.zeros_like, stack)
        return variables.merge(params={"augmenters": stack}, extra_state={"stored": stored})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        if not self.augmenters:
            return self._attribute(variables, batch, ctx, [])
        epoch = ctx.step * self.augmenters // ctx.total_steps
        present = augment(at(variables.params["augmenters"], epoch), batch["image"])
        place = jax.random.randint(ctx.rng("previous"), (), 0, jnp.maximum(epoch, 1))
        past = augment(at(variables.extra_state["stored"], place), batch["image"])
        known = epoch > 0
        if ctx.phase == EXPAND:
            return self._expand(variables, batch, ctx, present, past, known)
        made = [(present, jnp.array(True)), (past, known)]
        return self._attribute(variables, batch, ctx, made)

    def _expand(
        self,
        variables: Variables,
        batch: Batch,
        ctx: Context,
        present: jax.Array,
        past: jax.Array,
        known: jax.Array,
    ) -> tuple[jax.Array, Aux]:
        images = [batch["image"], present, past]
        features, _, _ = self._features(variables, images, ctx, train=False)
        own, made, before = features
        mask = batch["_mask"]
        change = masked_mean(jnp.mean((present - batch["image"]) ** 2, axis=(1, 2, 3)), mask)
        near = masked_mean(jnp.sum(own * made, -1), mask)
        alike = masked_mean(jnp.sum(made * before, -1), mask)
        one, two, three = self.weights
        far = jnp.maximum(1 - near, 1 - self.similarity)
        loss = one * change + two * far + three * jnp.where(known, alike, 0.0)
        return loss, Aux({"change": change, "similarity": near})

    def _attribute(
        self,
        variables: Variables,
        batch: Batch,
        ctx: Context,
        made: list[tuple[jax.Array, jax.Array]],
    ) -> tuple[jax.Array, Aux]:
        images = [batch["image"], *(image for image, _ in made)]
        features, logits, state = self._features(variables, images, ctx, train=True)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        valid = labelled & batch["_mask"]
        losses = cross_entropy(logits / self.temperature, targets, "softmax", 0.0)
        right = jnp.argmax(logits, -1) == batch["label"]
        loss, aux = averaged(losses, valid, state, top1=right)
        labels = jnp.concatenate([batch["label"], batch["label"] + logits.shape[-1]])
        for (_, there), feature in zip(made, features[1:], strict=True):
            pair = jnp.concatenate([features[0], feature])
            rows = jnp.concatenate([valid, valid])
            apart = batch_hard_triplet(pair, labels, rows, self.margin)
            loss = loss + jnp.where(there, apart, 0.0)
        return loss, aux

    def _features(
        self, variables: Variables, images: list[jax.Array], ctx: Context, train: bool
    ) -> tuple[list[jax.Array], jax.Array, dict[str, Tree]]:
        """Unit features of each (B, D), logits of the first, and the model's new state."""
        out, state = apply(self.model, variables, jnp.concatenate(images), ctx, train=train)
        embedding = out["embedding"].astype(jnp.float32)
        length = jnp.maximum(jnp.sqrt(jnp.sum(embedding**2, -1, keepdims=True)), 1e-6)
        rows = len(images[0])
        return (
            jnp.split(embedding / length, len(images)),
            out["logits"][:rows].astype(jnp.float32),
            state,
        )

    def after_update(self, variables: Variables, aux: Aux, ctx: Context) -> dict[str, Tree]:
        """What this epoch's augmenter has become is stored; those of others stay."""
        if ctx.phase != EXPAND:
            return variables.extra_state
        epoch = ctx.step * self.augmenters // ctx.total_steps
        old, new = variables.extra_state["stored"], variables.params["augmenters"]
        stored = jax.tree.map(lambda old, new: old.at[epoch].set(new[epoch]), old, new)
        return {**variables.extra_state, "stored": stored}


def at(stack: Tree, place: jax.Array) -> Tree:
    """One augmenter of the stack."""
    return jax.tree.map(lambda x: x[place], stack)


def augment(augmenter: Tree, image: jax.Array) -> jax.Array:
    """``image`` (B, H, W, C) through two 3 x 3 convolutions, with nothing between them."""
    for kernel in (augmenter["first"], augmenter["second"]):
        image = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return image
