"""A dual encoder of billions of alt-texts that only rules have cleaned.

Jia et al., Scaling Up Visual and Vision-Language Representation Learning With Noisy Text
Supervision (ALIGN), 2021. Headline: 1.8 billion pairs; 76.4 % on ImageNet zero-shot; Flickr30k R@1
88.6 % image to text and 75.7 % text to image, zero-shot.

With unit embeddings x_i of images and t_j of texts, sigma learned from 1, e = 0.1 and n pairs,

    L = -mean_i sum_j ((1 - e) [i = j] + e / n) [log softmax_j(x_i . t_j / sigma)_j
                                                 + log softmax_j(t_i . x_j / sigma)_j]

which is ``Contrast`` with ``Softmax(Scale(1, 100, form="temperature"), 0.1, (1, 1))``. An image and
words are one query, x + t (``ComposedRetrieval``). What the paper claims is that such pairs can
be noisy if there are enough: ``AltTextRules`` is all that is done about it. ``lamb`` is its
optimizer.

The paper removes near-duplicates of test images by a network; here the caller names them. Its
towers, EfficientNet-L7 and BERT-Large, are in the config as far as their sizes are published.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

import numpy as np
import optax


@dataclasses.dataclass(frozen=True)
class AltTextRules:
    """Says which pairs of an image and an alt-text a corpus is better without.

    A rule looks at the corpus as it comes, not at what another rule has left. Words are what
    stands between spaces, in lower case.

    Attributes:
      side_px: the shorter side of an image is longer than this.
      aspect: the longer side is less than so many times the shorter.
      texts_per_image: an image with more texts than this goes.
      images_per_text: a text of more images than this goes.
      words: fewest and most of a text.
      grams: a text goes unless all its words and pairs of neighbours are among so many most
        frequent ones; with equal counts those that come first.
    """

    side_px: int = 200
    aspect: float = 3.0
    texts_per_image: int = 1000
    images_per_text: int = 10
    words: tuple[int, int] = (3, 20)
    grams: int = 100_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.words[0] <= self.words[1]:
            raise ValueError(f"words={self.words}: fewest and most, at least 1")
        if min(self.texts_per_image, self.images_per_text, self.grams) < 1 or self.aspect <= 1:
            raise ValueError("counts are at least 1, and aspect is above 1")

    def __call__(
        self,
        images: Sequence[Hashable],
        sizes: np.ndarray,
        texts: Sequence[str],
        tests: Collection[Hashable] = (),
    ) -> dict[str, np.ndarray]:
        """Rule to the pairs it removes, bool (N,); a pair stays if no rule removes it.

        Args:
          images: for every pair what names its image; equal for copies.
          sizes: (N, 2), height and width in pixels.
          texts: one per pair.
          tests: names of images that are near those of a test set.

        Raises:
          ValueError: lengths that differ.
        """
        if not len(images) == len(sizes) == len(texts):
            raise ValueError(f"{len(images)} images, {len(sizes)} sizes and {len(texts)} texts")
        sides = np.sort(np.asarray(sizes).reshape(-1, 2), 1)
        split = [text.lower().split() for text in texts]
        said = [" ".join(words) for words in split]
        lengths = np.asarray([len(words) for words in split])
        pairs = set(zip(images, said, strict=True))
        of_image = collections.Counter(image for image, _ in pairs)
        of_text = collections.Counter(text for _, text in pairs)
        counts = collections.Counter(gram for words in split for gram in grams(words))
        common = {gram for gram, _ in counts.most_common(self.grams)}
        return {
            "small": sides[:, 0] <= self.side_px,
            "elongated": sides[:, 1] >= self.aspect * sides[:, 0],
            "many_texts": _flags(of_image[image] > self.texts_per_image for image in images),
            "test_image": _flags(image in tests for image in images),
            "many_images": _flags(of_text[text] > self.images_per_text for text in said),
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
    """Adam, each parameter's update as long as the parameter (You et al., LAMB, 2020).

    The decay is a part of what is made as long, so that it stands here and not in ``Optimizer``.
    """
    return optax.chain(
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_trust_ratio(),
    )


def _flags(values: Iterable[bool]) -> np.ndarray:
    return np.fromiter(values, bool)
