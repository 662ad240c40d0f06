"""DataDAM: dataset distillation by matching attention maps of randomly initialised networks.

The parameters are a few synthetic images per class. At every step a newly initialised, untrained
network encodes real images of each class and the synthetic ones under a differentiable
augmentation, the same for both and another one for every class; the class means of the attention
maps of every layer are matched, and, with a small weight, those of the final features.

With F_l the maps of layer l after its ReLU and A_l = sum over channels of |F_l|^p, flattened and of
unit length per image, and e the final features:

    L = 100 (sum_{l < last} sum_c |mean_c A_l(real) - mean_c A_l(synthetic)|^2
             + 0.01 sum_c |mean_c e(real) - mean_c e(synthetic)|^2)

There is no gradient through the training of a network. ``attention=False`` is distribution matching
(Zhao and Bilen, 2023).

Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, 2023. Headline:
32.0, 54.2 and 67.0 % on CIFAR-10 with 1, 10 and 50 images per class. p is 4 as in the paper; its
released code uses 1. The synthetic images are initialised with real ones of the first batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from papers.datadam.siamese import STRATEGIES, augment_by_class
from vision.blocks.similarity import unit
from vision.train.objective import Aux, Batch, Context, Objective, Variables
from vision.train.tower import forward, initialise

Tree = Any
IMAGES = "images"


@dataclasses.dataclass(frozen=True)
class DataDam(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float, ``batch["label"]`` int (B,).

    Every batch should have many images of every class: ``vision.data.class_samplers.PxK``.

    Attributes:
      model: architecture of the encoding network; it is never trained, and has no state.
      num_classes: K.
      per_class: synthetic images per class.
      power: p of the attention maps.
      attention: whether attention maps are matched.
      feature_weight: of the second term.
      scale: factor of the loss.
      strategies: of the augmentation; empty for none.
    """

    batch_coupled: ClassVar[bool] = True

    num_classes: int
    per_class: int = 1
    power: float = 4.0
    attention: bool = True
    feature_weight: float = 0.01
    scale: float = 100.0
    strategies: tuple[str, ...] = STRATEGIES

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        shape = (self.num_classes, self.per_class, *batch["image"].shape[1:])
        images = jax.random.normal(key, shape)
        return Variables({IMAGES: {"pixels": images}}, {}, {})

    def init_from_batch(self, variables: Variables, batch: Batch, key: jax.Array) -> Variables:
        """Initialises with real images of every class, with noise where the batch has too few."""
        order = jnp.argsort(~batch["_mask"], stable=True)
        image, label = batch["image"][order], batch["label"][order]
        mask = batch["_mask"][order]

        def of_class(c: jax.Array, noise: jax.Array) -> jax.Array:
            members = (label == c) & mask
            rows = jnp.argsort(~members, stable=True)[: self.per_class]
            present = members[rows][:, None, None, None]
            return jnp.where(present, image[rows], noise)

        noise = variables.params[IMAGES]["pixels"]
        pixels = jax.vmap(of_class)(jnp.arange(self.num_classes), noise)
        return dataclasses.replace(variables, params={IMAGES: {"pixels": pixels}})

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        k_net, k_augment = ctx.rng("network"), ctx.rng("augmentation")
        pixels = variables.params[IMAGES]["pixels"]
        flat = pixels.reshape(-1, *pixels.shape[2:])
        weights, state = initialise(self.model, k_net, flat[:1])
        synthetic_label = jnp.repeat(jnp.arange(self.num_classes), self.per_class)
        label = jnp.where(batch["_mask"], batch["label"], -1)
        real, synthetic = (
            self._encoded(weights, state, augment_by_class(x, of, k_augment, self.strategies))
            for x, of in ((batch["image"], label), (flat, synthetic_label))
        )
        present = jax.nn.one_hot(label, self.num_classes).sum(0) > 0

        def distance(name: str) -> jax.Array:
            gap = self._means(real[name], label) - self._means(synthetic[name], synthetic_label)
            return jnp.sum(jnp.where(present, jnp.sum(gap**2, -1), 0.0))

        maps = [name for name in sorted(real) if name.startswith("block")][:-1]
        attention = sum((distance(name) for name in maps), jnp.zeros(()))
        features = distance("embedding")
        loss = self.feature_weight * features + (attention if self.attention else 0.0)
        metrics = {"attention": attention, "features": features}
        return self.scale * loss, Aux(metrics, weight=present.sum())

    def _encoded(self, weights: Tree, state: Tree, images: jax.Array) -> dict[str, jax.Array]:
        """Attention maps (N, h w) of every block and the embedding (N, D), by a frozen network."""
        weights = jax.lax.stop_gradient(weights)
        embedding, out, _ = forward(self.model, weights, state, images, train=False)
        features = {"embedding": embedding.astype(jnp.float32)}
        for name, x in out.items():
            if name.startswith("block"):
                features[name] = attention_map(x, self.power)
        return features

    def _means(self, x: jax.Array, label: jax.Array) -> jax.Array:
        """(K, D), the mean row of every class; zeros for a class without rows."""
        one_hot = jax.nn.one_hot(label, self.num_classes).T
        return one_hot @ x / jnp.maximum(one_hot.sum(1, keepdims=True), 1)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """Nothing: the images are in the parameters. See ``papers.datadam.evaluator``."""
        return {}


def attention_map(x: jax.Array, power: float) -> jax.Array:
    """(N, h, w, C) to unit vectors (N, h w): the p-th powers summed over channels."""
    # Powers of small maps underflow; a common factor per image does not change the direction.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=(1, 2, 3), keepdims=True))
    summed = jnp.sum(jnp.abs(x / jnp.maximum(largest, 1e-12)) ** power, -1).reshape(len(x), -1)
    return unit(summed)
