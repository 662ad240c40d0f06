"""Networks at several resolutions, and a student beside a frozen network."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from vision.config.ranges import NonEmpty, NonNegative, Positive, checked
from vision.train.tower import Tap, Tower


@checked
class Resolutions(nn.Module):
    """Networks that each see the image at their own size; probabilities are averaged.

    Called with images (B, H, W, C). ``logits`` are the logarithm of the mean probability, or the
    only network's own; ``embedding`` is all embeddings, side by side.

    Attributes:
      towers: classifiers.
      sizes: side in pixels of what each sees.
      num_classes: of all; the towers state it.
    """

    towers: NonEmpty[tuple[Tower, ...]]
    sizes: NonEmpty[tuple[Positive[int], ...]]
    num_classes: NonNegative[int] | None = None

    def __post_init__(self) -> None:
        if len(self.towers) != len(self.sizes):
            raise ValueError(f"{len(self.towers)} towers, but {len(self.sizes)} sizes")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        embeddings, logits = [], []
        for tower, size in zip(self.towers, self.sizes, strict=True):
            shape = (x.shape[0], size, size, x.shape[-1])
            seen = x if x.shape == shape else jax.image.resize(x, shape, "bilinear")
            embedding, out = tower(seen, train=train, tap=tap)  # pyright: ignore
            embeddings.append(embedding)
            logits.append(out["logits"])
        joint = jnp.concatenate(embeddings, -1)
        if len(logits) == 1:
            return joint, {"embedding": joint, "logits": logits[0]}
        each = jnp.stack([jax.nn.log_softmax(part) for part in logits])
        mean = jax.nn.logsumexp(each, 0) - jnp.log(len(logits))
        return joint, {"embedding": joint, "logits": mean}


@checked
class WithKnowledge(nn.Module):
    """A student, and a frozen network of another vocabulary beside it.

    ``logits`` and the other sites are the student's; ``knowledge`` (B, M) are the probabilities of
    the extra network, which gets no gradient and does not move its statistics, and
    ``knowledge_logits`` (B, M) a linear head's on the student's embedding. Where nobody reads
    these, as in predictions, the compiler drops them.

    Attributes:
      student: a classifier.
      extra: another one, with its own number of classes; ``init_from`` with ``into="extra"``.
      num_classes: of the student, filled in from the data.
    """

    student: Tower
    extra: Tower
    num_classes: NonNegative[int] | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, tap: Tap | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        if self.extra.num_classes is None or not self.extra.num_classes:  # pyright: ignore
            raise ValueError("extra has no head: give its num_classes, those of its vocabulary")
        embedding, out = self.student(x, train=train, tap=tap)  # pyright: ignore
        told = self.extra(jax.lax.stop_gradient(x), train=False)[1]["logits"]  # pyright: ignore
        knowledge = jax.lax.stop_gradient(jax.nn.softmax(told.astype(jnp.float32)))
        head = nn.Dense(knowledge.shape[-1], name="knowledge_head")
        return embedding, {
            **out,
            "knowledge": knowledge,
            "knowledge_logits": head(embedding.astype(jnp.float32)),
        }
