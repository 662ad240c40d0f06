"""Scenes at two resolutions, and what to do where classes are ambiguous.

Resolutions: one network reads images of 256 pixels (crops of 224), a deeper one those of 384 (crops
of 336), and their probabilities are averaged.

Ambiguity, first answer: with C the confusion of a validation set, rows summing to 1, the similarity
of two classes is (C_ij + C_ji) / 2. The most similar pair becomes one super-category, again and
again while a similarity is above a threshold; the network learns these, and at test time their
members share the probability.

Second answer (the released one): a frozen network of another vocabulary, of objects or of other
scenes, tells p(x) for every image, and a second linear head of the student imitates it:

    L = CE(y, softmax(head(x))) + lambda CE(p(x), softmax(head'(x))),     lambda = 0.25

Wang et al., Knowledge Guided Disambiguation for Large-Scale Scene Classification with
Multi-Resolution CNNs, 2017. Headline: top-5 error on Places365 of 14.3 % becomes 13.4 with the soft
labels of a scene network.

Differences from the authors' code (Caffe prototxts): their networks are Inception with BatchNorm,
here ResNets; they sum the loss of the soft labels in a layer of their own fork of Caffe, whose
normalisation we take to be the mean over images; their solver drops the rate every 150,000 of
600,000 steps, as here. They average scores of crops in MATLAB; here ``towers.Resolutions`` averages
probabilities of whole networks, and the evaluation has one crop. Merged classes: how two
super-categories compare is not said; here their confusions are added, weighted by images.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vision.config.ranges import NonNegative, checked
from vision.objectives.classify import Classify, cross_entropy, to_targets, top1
from vision.train.objective import Aux, Batch, Context, Variables, apply, averaged


@dataclasses.dataclass(frozen=True)
@checked
class Disambiguated(Classify):
    """``Classify`` and ``knowledge`` times the cross-entropy of the second head.

    Of a ``towers.WithKnowledge``. With ``knowledge=0`` it is ``Classify`` of the student.

    Attributes:
      knowledge: lambda.
    """

    knowledge: NonNegative[float] = 0.25

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        if not self.knowledge:
            return super().loss(variables, batch, ctx)
        out, state = apply(self.model, variables, batch["image"], ctx)
        logits = out["logits"].astype(jnp.float32)
        targets, labelled = to_targets(batch["label"], logits.shape[-1])
        losses = cross_entropy(logits, targets, "softmax", self.label_smoothing)
        imitated = imitation(out["knowledge_logits"], out["knowledge"])
        losses = losses + self.knowledge * imitated
        metrics = {**top1(logits, targets), "imitation": imitated}
        return averaged(losses, labelled & batch["_mask"], state, **metrics)


def imitation(logits: jax.Array, told: jax.Array) -> jax.Array:
    """Cross-entropy (B,) in nats of logits (B, M) with probabilities that were told, (B, M)."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), jax.lax.stop_gradient(told))


def merged(confusion: np.ndarray, threshold: float) -> np.ndarray:
    """Super-category int (K,) of every class, numbered by its first member.

    Args:
      confusion: (K, K) counts, truth in rows.
      threshold: of (C_ij + C_ji) / 2, above which a pair becomes one.
    """
    counts = np.asarray(confusion, float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or (counts < 0).any():
        raise ValueError(f"confusion of shape {counts.shape}: counts (K, K), truth in rows")
    groups = [[k] for k in range(len(counts))]
    while len(groups) > 1:
        rates = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
        above = np.triu(np.ones(counts.shape, bool), 1)
        similar = np.where(above, (rates + rates.T) / 2, -np.inf)
        i, j = np.unravel_index(similar.argmax(), similar.shape)
        if similar[i, j] <= threshold:
            break
        groups[i] += groups.pop(int(j))
        for axis in (0, 1):
            counts[(slice(None),) * axis + (i,)] += counts[(slice(None),) * axis + (j,)]
            counts = np.delete(counts, j, axis)
    groups.sort(key=min)
    made = np.empty(len(confusion), int)
    for number, members in enumerate(groups):
        made[members] = number
    return made


def shared(probabilities: np.ndarray, made: np.ndarray) -> np.ndarray:
    """(N, K) of probabilities (N, S) of super-categories: members have equal parts of theirs."""
    return probabilities[:, made] / np.bincount(made)[made]
