"""An Example: an answer of high confidence costs something. Say here what the method does, and how.

    L = CE(f(x), y) - weight H(p),    p = softmax(f(x)),    H(p) = - sum_k p_k log p_k

The authors, the title, the year. Headline: the figure that they report. Differences from their
code: say every one, or that there is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vision.objectives.classify import class_labels, cross_entropy, to_targets
from vision.train.labels import LabelKind
from vision.train.objective import Aux, Batch, Context, Objective, Variables, apply, averaged


@dataclasses.dataclass(frozen=True)
class Example(Objective):
    """See the module. ``batch["image"]`` (B, H, W, C) float; ``batch["label"]`` int (B,), -1 for
    none.

    Attributes:
      weight: of the entropy, in nats per nat; 0 for plain cross-entropy.
    """

    weight: float = 0.1

    @property
    def label_kinds(self) -> Mapping[str, LabelKind]:
        return class_labels(self.model)

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        out, state = apply(self.model, variables, batch["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        h = entropy(logits)
        losses = cross_entropy(logits, targets, "softmax", 0.0) - self.weight * h
        right = jnp.argmax(logits, -1) == batch["label"]
        return averaged(losses, labelled & batch["_mask"], state, top1=right, entropy=h)


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy (B,) in nats of the softmax of logits (B, K)."""
    log = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log) * log, -1)
