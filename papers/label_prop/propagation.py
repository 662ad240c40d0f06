"""Labels carried from frame to frame by the likeness of features: attention over a memory."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vision.config.ranges import Finite, NonNegative, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class Propagation:
    """Every cell of a frame gets the labels of the cells of earlier frames that it is like.

    With unit features f, cell i of frame t and cells j of its context (the first frame and the
    last ``context`` ones), a_ij = f_i . f_j / temperature; only cells within ``radius`` count, of
    these the ``top_k`` most alike; w = softmax(a), and y_i = sum_j w_ij y_j.

    Attributes:
      top_k: cells that are kept; None for all.
      radius: Euclidean, in cells; None for no bound.
      context: earlier frames beside the first, 1 or more.
      temperature: positive.
      first: whether the first frame, whose labels are given, is always looked at.
      first_unbounded: whether the radius holds there too, or not.
      per_frame: ``top_k`` of every frame of the context, not of all together.
      softmax_first: the softmax is over all cells within the radius, before ``top_k``; what is
        kept then adds up to less than 1.
      renormalise: labels of a cell are made to add up to 1 before they are carried on.
    """

    top_k: Positive[int] | None = 10
    radius: NonNegative[float] | None = 12.0
    context: Positive[int] = 7
    temperature: Positive[Finite] = 0.07
    first: bool = True
    first_unbounded: bool = False
    per_frame: bool = False
    softmax_first: bool = False
    renormalise: bool = False

    def __call__(self, features: jax.Array, labels: jax.Array) -> jax.Array:
        """Labels of all frames.

        Args:
          features: (T, h, w, D); their length does not matter.
          labels: (h, w, C) of the first frame, 0 or more.

        Returns:
          float32 (T, h, w, C), the first as given.
        """
        frames, height, width, _ = features.shape
        features = features.astype(jnp.float32)
        length = jnp.sqrt(jnp.sum(features**2, -1, keepdims=True))
        unit = features / jnp.where(length > 0, length, 1)
        made = jnp.zeros((frames, *labels.shape), jnp.float32).at[0].set(labels)

        def frame(made: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            earlier = t - 1 - jnp.arange(self.context)
            # Where the first frame is there anyway, it does not come a second time.
            there = jnp.concatenate([jnp.array([self.first]), earlier >= int(self.first)])
            places = jnp.concatenate([jnp.array([0]), jnp.maximum(earlier, 0)])
            new = self._frame(unit[t], unit[places], made[places], there)
            if self.renormalise:
                total = new.sum(-1, keepdims=True)
                new = new / jnp.where(total > 0, total, 1)
            return made.at[t].set(new.reshape(height, width, -1)), None

        return jax.lax.scan(frame, made, jnp.arange(1, frames))[0]

    def _frame(
        self, query: jax.Array, memory: jax.Array, labels: jax.Array, there: jax.Array
    ) -> jax.Array:
        """(h w, C) of features (h, w, D) and of the context's (M, h, w, D), (M, h, w, C)."""
        count, height, width, _ = memory.shape
        rows, columns = jnp.arange(height), jnp.arange(width)
        flat = labels.reshape(count * height * width, -1)

        def row(given: tuple[jax.Array, jax.Array]) -> jax.Array:
            features, y = given
            alike = jnp.einsum("xd,mvud->xmvu", features, memory) / self.temperature
            near = jnp.ones((width, height, width), bool)
            if self.radius is not None:
                apart = (rows[:, None] - y) ** 2 + (columns[:, None, None] - columns) ** 2
                near = apart <= self.radius**2
            seen = near[:, None] & there[:, None, None]
            if self.first_unbounded:
                seen = seen.at[:, 0].set(there[0])
            alike = jnp.where(seen, alike, -jnp.inf)
            groups = count if self.per_frame else 1
            return self._weights(alike.reshape(width, groups, -1)) @ flat

        return jax.lax.map(row, (query, rows)).reshape(height * width, -1)

    def _weights(self, alike: jax.Array) -> jax.Array:
        """(n, groups, cells), minus infinity where nothing may be seen, to weights (n, all)."""
        score = alike.reshape(len(alike), -1)
        every = jax.nn.softmax(score, -1) if self.softmax_first else None
        if self.top_k is not None and self.top_k < alike.shape[-1]:
            _, best = jax.lax.top_k(alike, self.top_k)
            n, group = jnp.indices(best.shape[:2])
            kept = jnp.zeros(alike.shape, bool).at[n[..., None], group[..., None], best].set(True)
            kept = kept.reshape(score.shape)
        else:
            kept = jnp.ones(score.shape, bool)
        if every is not None:
            return jnp.where(kept, every, 0)
        return jax.nn.softmax(jnp.where(kept, score, -jnp.inf), -1)


def cells_of(labels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """One-hot (H, W, C) as one-hot (h, w, C): of each cell the label that most of it has."""
    small = jax.image.resize(labels.astype(jnp.float32), (*size, labels.shape[-1]), "linear")
    return jax.nn.one_hot(jnp.argmax(small, -1), labels.shape[-1])
