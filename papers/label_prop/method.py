"""Video label propagation with every implementation factor of the protocol as a field.

McKee et al., Transfer of Representations to Video Label Propagation: Implementation Factors Matter,
2022. Headline: with tuned factors an ImageNet ResNet is about level with the best self-supervised
video features on DAVIS-2017 (J&F in the high 60s; not confirmed).

The masks of the first frame are given and propagated to the others by the similarity of a frozen
tower's features: ``Propagation``. The layer, the image size, the number of context frames, top-k,
radius and temperature affect the result as much as the features do, so they are fields here and of
the evaluator (``papers.label_prop.evaluator``), and a comparison of features has to fix or tune
them. Cues are fused by concatenating the unit features of several sites, each with a weight.

Labels are soft, one-hot in the first frame, resized to pixels (bilinear); the prediction is their
argmax. Points are propagated as heat maps (a Gaussian of half a cell around each), and the peak is
the prediction.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from vision.config.ranges import Finite, NonNegative, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class Propagation:
    """Every cell of a frame gets a weighted mean of the labels of similar cells of earlier frames.

    With unit features f, cell i of frame t and cells j of its context (the first frame and the
    last ``context`` ones), a_ij = f_i . f_j / temperature; of the cells within ``radius`` the
    ``top_k`` most similar are kept; w = softmax(a), and y_i = sum_j w_ij y_j.

    Attributes:
      top_k: number of cells that are kept; None for all.
      radius: Euclidean, in cells; None for no bound.
      context: number of earlier frames besides the first, 1 or more.
      temperature: positive.
      first: whether the first frame, whose labels are given, is always in the context.
      first_unbounded: whether the radius does not apply to the first frame.
      per_frame: ``top_k`` per frame of the context, instead of over all frames.
      softmax_first: the softmax is over all cells within the radius, before ``top_k``; the kept
        weights then sum to less than 1.
      renormalise: the labels of a cell are normalised to sum 1 before they are propagated further.
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
          features: (T, h, w, D), normalised here.
          labels: (h, w, C) of the first frame, 0 or more.

        Returns:
          float32 (T, h, w, C), the first as given.
        """
        frames, height, width, _ = features.shape
        features = features.astype(jnp.float32)
        length = jnp.sqrt(jnp.sum(features**2, -1, keepdims=True))
        unit = features / jnp.where(length > 0, length, 1)
        propagated = jnp.zeros((frames, *labels.shape), jnp.float32).at[0].set(labels)

        def frame(propagated: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            earlier = t - 1 - jnp.arange(self.context)
            # The first frame is not counted twice where it is always in the context.
            valid = jnp.concatenate([jnp.array([self.first]), earlier >= int(self.first)])
            indices = jnp.concatenate([jnp.array([0]), jnp.maximum(earlier, 0)])
            new = self._frame(unit[t], unit[indices], propagated[indices], valid)
            if self.renormalise:
                total = new.sum(-1, keepdims=True)
                new = new / jnp.where(total > 0, total, 1)
            return propagated.at[t].set(new.reshape(height, width, -1)), None

        return jax.lax.scan(frame, propagated, jnp.arange(1, frames))[0]

    def _frame(
        self, query: jax.Array, memory: jax.Array, labels: jax.Array, valid: jax.Array
    ) -> jax.Array:
        """Labels (h w, C) of a frame.

        Args:
          query: features (h, w, D) of the frame.
          memory: features (M, h, w, D) of the context.
          labels: (M, h, w, C) of the context.
          valid: bool (M,), which frames of the context exist.
        """
        count, height, width, _ = memory.shape
        rows, columns = jnp.arange(height), jnp.arange(width)
        flat = labels.reshape(count * height * width, -1)

        def row(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
            features, y = inputs
            similarity = jnp.einsum("xd,mvud->xmvu", features, memory) / self.temperature
            near = jnp.ones((width, height, width), bool)
            if self.radius is not None:
                squared = (rows[:, None] - y) ** 2 + (columns[:, None, None] - columns) ** 2
                near = squared <= self.radius**2
            visible = near[:, None] & valid[:, None, None]
            if self.first_unbounded:
                visible = visible.at[:, 0].set(valid[0])
            similarity = jnp.where(visible, similarity, -jnp.inf)
            groups = count if self.per_frame else 1
            return self._weights(similarity.reshape(width, groups, -1)) @ flat

        return jax.lax.map(row, (query, rows)).reshape(height * width, -1)

    def _weights(self, similarity: jax.Array) -> jax.Array:
        """Logits (n, groups, cells), -inf for masked cells, to weights (n, groups * cells)."""
        logits = similarity.reshape(len(similarity), -1)
        probabilities = jax.nn.softmax(logits, -1) if self.softmax_first else None
        if self.top_k is not None and self.top_k < similarity.shape[-1]:
            _, best = jax.lax.top_k(similarity, self.top_k)
            n, group = jnp.indices(best.shape[:2])
            kept = (
                jnp.zeros(similarity.shape, bool).at[n[..., None], group[..., None], best].set(True)
            )
            kept = kept.reshape(logits.shape)
        else:
            kept = jnp.ones(logits.shape, bool)
        if probabilities is not None:
            return jnp.where(kept, probabilities, 0)
        return jax.nn.softmax(jnp.where(kept, logits, -jnp.inf), -1)


def cells_of(labels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """One-hot (H, W, C) to one-hot (h, w, C): the most frequent label of each cell."""
    small = jax.image.resize(labels.astype(jnp.float32), (*size, labels.shape[-1]), "linear")
    return jax.nn.one_hot(jnp.argmax(small, -1), labels.shape[-1])
