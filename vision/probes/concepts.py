"""Concept bottlenecks: a linear classifier that sees an image only by its scores for concepts.

With unit vectors x of an image and t_j of the text of concept j,

    s_j(x) = (x . t_j - mean_j) / deviation_j,        logits = s(x) W + b

mean and deviation over the training images. What concept j adds to the logit of class k is
``s_j W_jk``; with the bias these add up to the logit, and a concept that is
switched off takes its part away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from vision.config.errors import UserError
from vision.probes.linear import LinearClassifier, choose_decay, fit_logistic

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class ConceptError(UserError):
    """A bottleneck cannot be made of these concepts, or has no such concept."""


def concept_list(
    described: Mapping[str, Sequence[str]], classes: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The concepts of all classes, each once, and the number of the first class that has it.

    A concept that names a class, as a word of it, is left out: it would give the answer away.

    Args:
      described: name of a class to its concepts.
      classes: names that no concept may have; by default those of ``described``.

    Raises:
      ConceptError: nothing is left.
    """
    named = [f" {_words(name)} " for name in (classes or described)]
    found: dict[str, tuple[str, int]] = {}
    for number, texts in enumerate(described.values()):
        for text in texts:
            words = _words(text)
            if not any(name in f" {words} " for name in named):
                found.setdefault(words, (text, number))
    if not found:
        raise ConceptError(
            f"no concept is left of the lists of {len(described)} classes, without those that name "
            "a class: add some that say what one sees"
        )
    texts, numbers = zip(*found.values(), strict=True)
    return texts, numbers


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptBottleneck:
    """A fitted bottleneck of C concepts and K classes.

    Attributes:
      concepts: their texts.
      mean: float64 (C,), of the raw scores over the training images.
      deviation: float64 (C,), their standard deviation; 1 where it is 0.
      weight: float64 (C, K).
      bias: float64 (K,).
      decay: that was chosen.
      held_out: accuracy with it on the held-out tenth of the training images.
    """

    concepts: tuple[str, ...]
    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    decay: float
    held_out: float

    def contributions(self, raw: np.ndarray) -> np.ndarray:
        """float64 (N, C, K): what every concept adds to every logit, of raw scores (N, C)."""
        return self._standard(raw)[:, :, None] * self.weight

    def logits(self, raw: np.ndarray) -> np.ndarray:
        """float64 (N, K) of raw scores (N, C): the bias and all contributions."""
        return self._standard(raw) @ self.weight + self.bias

    def without(self, concepts: Collection[str]) -> ConceptBottleneck:
        """The same classifier with some concepts switched off: their weights are 0.

        Raises:
          ConceptError: it has no such concept.
        """
        if unknown := sorted(set(concepts) - set(self.concepts)):
            raise ConceptError(
                f"no concept {unknown[0]!r} among the {len(self.concepts)}, of which the first are "
                f"{', '.join(map(repr, self.concepts[:3]))}"
            )
        off = np.isin(self.concepts, list(concepts))
        return dataclasses.replace(self, weight=np.where(off[:, None], 0.0, self.weight))

    def _standard(self, raw: np.ndarray) -> np.ndarray:
        return (np.asarray(raw, np.float64) - self.mean) / self.deviation


def fit_bottleneck(
    raw: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    concepts: Sequence[str],
    decays: Sequence[float] = DECAYS,
    most: int = 0,
) -> ConceptBottleneck:
    """Fits a logistic regression to standardised scores; the decay by every tenth image.

    Args:
      raw: float (N, C), scores of the training images for the concepts, finite.
      labels: int (N,).
      num_classes: K.
      concepts: C texts.
      decays: to choose from; of mean NLL + decay / 2 |W|^2.
      most: concepts that are kept, those of the largest weights of a first fit to all; 0 for all.

    Raises:
      ConceptError: numbers of concepts and scores that differ.
      FitError: what cannot be fitted; see ``fit_logistic`` and ``fit_chosen``.
    """
    if raw.ndim != 2 or raw.shape[1] != len(concepts):
        raise ConceptError(f"scores {raw.shape} of {len(concepts)} concepts: one column is each's")
    mean, deviation = raw.mean(0, dtype=np.float64), raw.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    x = ((raw - mean) / deviation).astype(np.float32)
    model, decay, held_out = fit_chosen(x, labels, num_classes, decays)
    kept = np.arange(len(concepts))
    if 0 < most < len(concepts):
        size = np.linalg.norm(model.weight, axis=1)
        kept = np.sort(np.argsort(-size, kind="stable")[:most])
        model, decay, held_out = fit_chosen(x[:, kept], labels, num_classes, decays)
    weight = np.zeros((len(concepts), num_classes))
    weight[kept] = model.weight
    return ConceptBottleneck(tuple(concepts), mean, deviation, weight, model.bias, decay, held_out)


def fit_chosen(
    x: np.ndarray, labels: np.ndarray, num_classes: int, decays: Sequence[float]
) -> tuple[LinearClassifier, float, float]:
    """The classifier of all rows with the decay that is best on every tenth, that decay, and the
    accuracy there. The largest of equally good ones.

    Raises:
      FitError: what cannot be fitted.
      ConceptError: fewer than ten rows, of which none would be held out.
    """
    held = np.arange(len(x)) % 10 == 9
    if not held.any():
        raise ConceptError(
            f"{len(x)} labelled images: every tenth is held out to choose by, and there must be "
            "ten at least"
        )
    accuracy = choose_decay((x[~held], labels[~held]), (x[held], labels[held]), num_classes, decays)
    decay = max(accuracy, key=lambda tried: (accuracy[tried], tried))
    return fit_logistic(x, labels, num_classes, decay), decay, accuracy[decay]
