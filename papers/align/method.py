"""ALIGN: a dual encoder trained on billions of noisy alt-texts, filtered by simple rules only.

Jia et al., Scaling Up Visual and Vision-Language Representation Learning With Noisy Text
Supervision (ALIGN), 2021. Headline: 1.8 billion pairs; 76.4 % on ImageNet zero-shot; Flickr30k R@1
88.6 % image to text and 75.7 % text to image, zero-shot.

With unit embeddings x_i of images and t_j of texts, sigma learned from 1, e = 0.1 and n pairs,

    L = -mean_i sum_j ((1 - e) [i = j] + e / n) [log softmax_j(x_i . t_j / sigma)_j
                                                 + log softmax_j(t_i . x_j / sigma)_j]

which is ``Contrast`` with ``Softmax(Scale(1, 100, form="temperature"), 0.1, (1, 1))``. An image and
a text together are the query x + t (``ComposedRetrieval``). The claim of the paper is that scale
makes up for noisy pairs, so filtering is limited to ``AltTextRules``. The optimizer is ``lamb``.

Differences: the paper finds near-duplicates of test images with a network; here the caller passes
them. Its towers, EfficientNet-L7 and BERT-Large, are in the config as far as their sizes are
published.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Annotated

import numpy as np
import optax

from vision.config.ranges import Gt, NonNegative, Positive, checked


@dataclasses.dataclass(frozen=True)
@checked
class AltTextRules:
    """Marks the pairs of an image and an alt-text that should be removed from a corpus.

    Every rule is applied to the complete corpus, not to what another rule has left. Words are
    separated by white space and lower-cased.

    Attributes:
      side_px: images whose shorter side is at most this long are removed.
      aspect: images whose longer side is at least so many times the shorter are removed.
      texts_per_image: images with more distinct texts than this are removed.
      images_per_text: texts with more distinct images than this are removed.
      words: fewest and most words of a text.
      grams: a text is removed unless all its unigrams and bigrams are among so many most frequent
        ones; of equally frequent ones those that occur first.
    """

    side_px: NonNegative[int] = 200
    aspect: Annotated[float, Gt(1)] = 3.0
    texts_per_image: Positive[int] = 1000
    images_per_text: Positive[int] = 10
    words: tuple[Positive[int], Positive[int]] = (3, 20)
    grams: Positive[int] = 100_000_000

    def __post_init__(self) -> None:
        if self.words[0] > self.words[1]:
            raise ValueError(f"words={self.words}: fewest and most")

    def __call__(
        self,
        images: Sequence[Hashable],
        sizes: np.ndarray,
        texts: Sequence[str],
        tests: Collection[Hashable] = (),
    ) -> dict[str, np.ndarray]:
        """Rule to the pairs it removes, bool (N,); a pair stays if no rule removes it.

        Args:
          images: identifier of every pair's image; equal for copies.
          sizes: (N, 2), height and width in pixels.
          texts: one per pair.
          tests: identifiers of near-duplicates of test images.

        Raises:
          ValueError: lengths that differ.
        """
        if not len(images) == len(sizes) == len(texts):
            raise ValueError(f"{len(images)} images, {len(sizes)} sizes and {len(texts)} texts")
        sides = np.sort(np.asarray(sizes).reshape(-1, 2), 1)
        split = [text.lower().split() for text in texts]
        captions = [" ".join(words) for words in split]
        lengths = np.asarray([len(words) for words in split])
        pairs = set(zip(images, captions, strict=True))
        of_image = collections.Counter(image for image, _ in pairs)
        of_text = collections.Counter(text for _, text in pairs)
        counts = collections.Counter(gram for words in split for gram in grams(words))
        common = {gram for gram, _ in counts.most_common(self.grams)}
        return {
            "small": sides[:, 0] <= self.side_px,
            "elongated": sides[:, 1] >= self.aspect * sides[:, 0],
            "many_texts": _flags(of_image[image] > self.texts_per_image for image in images),
            "test_image": _flags(image in tests for image in images),
            "many_images": _flags(of_text[text] > self.images_per_text for text in captions),
            "length": (lengths < self.words[0]) | (lengths > self.words[1]),
            "rare_words": _flags(not common.issuperset(grams(words)) for words in split),
        }


def grams(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The words of a text and its pairs of neighbours."""
    yield from ((word,) for word in words)
    yield from itertools.pairwise(words)


def lamb(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, weight_decay: float = 1e-5
) -> optax.GradientTransformation:
    """Adam with each update scaled to the norm of its parameter (You et al., LAMB, 2020).

    Weight decay is added before the scaling, so it is set here and not in ``Optimizer``.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_trust_ratio(),
    )


def _flags(values: Iterable[bool]) -> np.ndarray:
    return np.fromiter(values, bool)
