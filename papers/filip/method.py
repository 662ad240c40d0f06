"""FILIP: retrieval, zero-shot classification and word localisation by token-wise late interaction.

Yao et al., FILIP: Fine-grained Interactive Language-Image Pre-Training, 2022. Headline: 77.1 % on
ImageNet, zero-shot, of ViT-L/14 after 340 million pairs.

With unit patches f_ip and unit words g_jt, padding left out,

    image i ranks texts by   S_ij = mean_p max_t f_ip . g_jt
    text j ranks images by   S_ji = mean_t max_p f_ip . g_jt

which are two matrices. The training objective is ``Contrast(similarity=LateInteraction())`` of
``vision.objectives.contrast`` with ``Dual(tokens=True)``; the paper's token pruning is its
``keep=0.25``. This module evaluates such a run. The pooled embeddings are not trained, so the
ordinary evaluators of embeddings would be at chance.

    class k of image i       mean over prompts j of k of S_ij
    word t points at         argmax_p f_ip . g_jt

Not here: the paper's optimizer (LAMB) and its back-translated captions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from vision.blocks.similarity import LateInteraction
from vision.config.ranges import Positive, checked
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed

READS = LateInteraction().reads
KS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
@checked
class LateRetrieval:
    """Image-text retrieval in both directions by late interaction.

    Yields ``image_to_text_r1``, ``r5``, ``r10`` and the same of ``text_to_image`` (shares; for k
    below the number of records), and ``images``. Equal scores go to the earlier record.

    ``predict`` has to give ``image/tokens`` (B, P, D), ``text/tokens`` (B, T, D) and ``text/mask``
    (B, T), as an objective does whose similarity is ``LateInteraction``.

    Attributes:
      data: what is read; batches have ``image`` and ``text``, one caption per image.
      block: number of images and of texts compared at a time.
    """

    data: EvaluationData
    block: Positive[int] = 64

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records.
          ValueError: ``predict`` lacks tokens, or there are several captions per image.
        """
        rows = embed(predict, ctx, self.data, READS)
        patches, words, mask = (rows[name] for name in READS)
        if words.ndim != 3:
            raise ValueError(f"text/tokens are {words.shape}; this reads one caption per image")
        to_text, to_image = scores(patches, words, mask, self.block)
        for direction, matrix in (("image_to_text", to_text), ("text_to_image", to_image.T)):
            rank = target_rank(matrix)
            for k in KS:
                if k < len(matrix):
                    yield f"{direction}_r{k}", float(np.mean(rank < k))
        yield "images", len(patches)


def scores(
    patches: np.ndarray, words: np.ndarray, mask: np.ndarray, block: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """S by which images rank texts, and S by which texts rank images; both float32 (N, M).

    Args:
      patches: (N, P, D) of images.
      words: (M, T, D) of texts.
      mask: (M, T), which words count.
      block: of images and of texts, compared at a time.
    """
    matrices = np.zeros((2, len(patches), len(words)), np.float32)
    for i in range(0, len(patches), block):
        for j in range(0, len(words), block):
            tile = _compare(
                *(_padded(x, block) for x in (patches[i : i + block], words[j : j + block])),
                _padded(mask[j : j + block].astype(bool), block),
            )
            corner = matrices[:, i : i + block, j : j + block]
            corner[:] = np.stack(tile)[:, : corner.shape[1], : corner.shape[2]]
    return matrices[0], matrices[1]


@jax.jit
def _compare(patches: jax.Array, words: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    similarity = LateInteraction(chunk=None)
    return similarity(*similarity.prepare({"tokens": patches}, {"tokens": words, "mask": mask}))


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    """``x`` padded with zero rows, so that all blocks have one shape and compile once."""
    return np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1))


def target_rank(matrix: np.ndarray) -> np.ndarray:
    """Rank, from 0, of ``matrix[i, i]`` among the scores of row i: int64 (N,)."""
    target, index = np.diagonal(matrix)[:, None], np.arange(len(matrix))
    before = (matrix > target) | ((matrix == target) & (index[None, :] < index[:, None]))
    return before.sum(1)


def class_scores(
    patches: np.ndarray, words: np.ndarray, mask: np.ndarray, templates: int
) -> np.ndarray:
    """Zero-shot scores (N, K): the mean over a class's prompts of the image's score.

    Args:
      patches: (N, P, D) of images.
      words: (K templates, T, D) of prompts, all templates of the first class first.
      mask: (K templates, T), which words count.
      templates: prompts per class.
    """
    image_scores = scores(patches, words, mask)[0]
    return image_scores.reshape(len(patches), -1, templates).mean(2)


def point(patches: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Index int64 (N, T) of the most similar patch for each word of the image's text.

    Args:
      patches: (N, P, D) of images, of any length but 0.
      words: (N, T, D) of their texts.
    """
    unit = patches / np.maximum(np.linalg.norm(patches, axis=-1, keepdims=True), 1e-12)
    return np.argmax(np.einsum("ntd,npd->ntp", words, unit), -1)
