"""CaSED: names of images from captions, without a list of classes and without training.

With unit vectors x of an image and t of the captions of a large database,

    R = the K captions of largest x . t,            c = unit vector of their mean,
    C = words that the captions in R hold twice or more,
    p(w) = alpha softmax_{w in C}(s x . t(w)) + (1 - alpha) softmax_{w in C}(s c . t(w)),

and the image is called argmax p. The captions narrow millions of words to a few, which differ by
image, and their centroid c says in the texts' own part of the space what the image shows.

Conti et al., Vocabulary-free Image Classification, 2023, and its extension to segmentation,
Vocabulary-free Image Classification and Semantic Segmentation, 2024, whose classification is the
same; authors' code: altndrr/vic. K = 10, alpha = 0.7, s = 1 / 0.07. Differences: there a tagger of
parts of speech keeps nouns, adjectives and participles, and a package makes words singular; here
words of closed classes are a list and plurals go by rule (``words``), so that verbs stay. Where no
word is held twice, all of the most frequent ones stay. Semantic similarity is the cosine of the
dual encoder's own text tower and not of a sentence encoder's. The variants for segmentation are
not here.

With alpha = 1 and the same candidates for every image this is zero-shot classification by them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from papers.cased.words import candidates
from vision.blocks.nearest import nearest
from vision.evaluators.image_text.embeddings import normalised

SCALE = 1 / 0.07


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """What N images may be called.

    Attributes:
      centroids: (N, D), unit vectors: of the captions that were retrieved.
      nearest: int64 (N, K), the captions, the likest first.
      vocabulary: V words, each of which is a candidate of some image.
      chosen: for every image the places of its own in ``vocabulary``, int64, one at least.
    """

    centroids: np.ndarray
    nearest: np.ndarray
    vocabulary: tuple[str, ...]
    chosen: tuple[np.ndarray, ...]


def retrieve(
    images: np.ndarray,
    texts: np.ndarray,
    caption_words: Sequence[Sequence[str]],
    k: int = 10,
) -> Candidates:
    """Candidates of images from the ``k`` captions likest to each.

    Args:
      images: unit vectors (N, D).
      texts: unit vectors (M, D) of the captions.
      caption_words: of every caption its ``words``.
      k: 1..M.

    Raises:
      NearestError: widths that differ, k out of range, or vectors that are not finite.
      ValueError: not as many captions as vectors.
    """
    if len(caption_words) != len(texts):
        raise ValueError(f"{len(caption_words)} captions have {len(texts)} vectors")
    _, found = nearest(images, texts, k)
    centroids = normalised(texts[found].mean(1))
    number: dict[str, int] = {}
    chosen: list[np.ndarray] = []
    for row in found:
        own = candidates([caption_words[int(i)] for i in row])
        chosen.append(np.array([number.setdefault(word, len(number)) for word in own]))
    return Candidates(centroids, found, tuple(number), tuple(chosen))


def choose(
    images: np.ndarray,
    of: Candidates,
    bank: np.ndarray,
    alpha: float = 0.7,
    scale: float = SCALE,
) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest candidate of every image: its place in the vocabulary, and its probability.

    Equally likely ones go to the one whose word appears first.

    Args:
      images: unit vectors (N, D).
      of: their candidates.
      bank: unit vectors (V, D) of the vocabulary.
      alpha: weight of the image beside the captions' centroid, 0..1.
      scale: s of the logits.

    Returns:
      int64 (N,) and float64 (N,).
    """
    best, sure = np.empty(len(images), np.int64), np.empty(len(images))
    for i, own in enumerate(of.chosen):
        both = np.stack([images[i], of.centroids[i]]).astype(np.float64)
        logits = scale * both @ bank[own].astype(np.float64).T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        mixed = alpha * p[0] + (1 - alpha) * p[1]
        best[i], sure[i] = own[mixed.argmax()], mixed.max()
    return best, sure


def cluster_accuracy(labels: np.ndarray, names: np.ndarray) -> float:
    """Share of images that are right when every name stands for the one class that suits best.

    Names and classes are matched one to one so that most images are right; what a name means does
    not count.

    Args:
      labels: int (N,).
      names: int (N,), number of the name that each image was given.
    """
    _, row = np.unique(labels, return_inverse=True)
    _, column = np.unique(names, return_inverse=True)
    together = np.zeros((row.max() + 1, column.max() + 1), np.int64)
    np.add.at(together, (row, column), 1)
    matched = linear_sum_assignment(together, maximize=True)
    return float(together[matched].sum() / len(labels))


def word_overlap(given: Sequence[str], true: Sequence[str]) -> float:
    """Semantic IoU: words that two names share, over those that either has; 0 for two without."""
    a, b = set(given), set(true)
    return len(a & b) / max(1, len(a | b))
