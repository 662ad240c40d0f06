"""Frozen ImageNet features of real drawings, and towers on them: for claims, in seconds.

The features are ``zoo/emoji_lite0_features``: what EfficientNet-Lite0 pools of emoji by three
houses. Emoji have a group, a subgroup, a name and keywords in 28 languages; a fifth of them, by
whole families, counts as unseen. A dual encoder is a tower of one hidden layer on an image's
features and one on the words of a text, as a bag; both give unit vectors of 64.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.digit_mlp import Weights, trained
from vision.blocks.contrast import Softmax
from vision.blocks.sharded_contrast import Modality, compare
from vision.blocks.similarity import Dot, unit
from vision.data.sources.emoji import GROUPS, HOUSES, index, names, pixels, unseen_families
from vision.zoo.features import read

THINGS = (
    *("smileys-emotion", "animals-nature", "food-drink", "travel-places"),
    *("activities", "objects", "symbols"),
)
"""Groups without people, who differ in hair and clothes, and flags: some 1,250 emoji."""
HIDDEN, WIDTH, SCALE, BATCH, RATE = 256, 64, 20.0, 256, 2e-3
MOST_WORDS = 12
PAD = 0


@dataclasses.dataclass(frozen=True)
class Drawn:
    """N drawings.

    Attributes:
      x: float32 (N, 192), features; over the drawings of all groups, each of mean 0 and all
        together of variance 1.
      emoji: int (N,), number in ``index().emoji``.
      house: int (N,), number in ``HOUSES``.
      group: int (N,), number in ``GROUPS``.
      subgroup: int (N,), number in ``index().subgroups``.
      unseen: bool (N,), of the fifth that is not learned from.
    """

    x: np.ndarray
    emoji: np.ndarray
    house: np.ndarray
    group: np.ndarray
    subgroup: np.ndarray
    unseen: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Drawn:
        """Those of some rows: indices, or bool (N,)."""
        return Drawn(**{key: value[rows] for key, value in vars(self).items()})

    def by(self, *houses: str) -> np.ndarray:
        """bool (N,): whether one of the houses drew it."""
        return np.isin(self.house, [HOUSES.index(name) for name in houses])


@functools.cache
def drawings(groups: tuple[str, ...] = THINGS) -> Drawn:
    """All drawings of some groups, by house and emoji."""
    features, signs = read(), index().emoji
    of = [signs[each.emoji] for each in features.drawings]
    x = features.x - features.x.mean(0)
    held = unseen_families(0.2)
    made = Drawn(
        x / np.sqrt(np.square(x).mean()),
        np.array([each.emoji for each in features.drawings]),
        np.array([each.house for each in features.drawings]),
        np.array([sign.group for sign in of]),
        np.array([sign.subgroup for sign in of]),
        np.array([sign.family in held for sign in of]),
    )
    return made.take(np.isin(made.group, [GROUPS.index(name) for name in groups]))


@functools.cache
def pictures(groups: tuple[str, ...] = THINGS) -> np.ndarray:
    """float32 (N, 48, 48, 3) in 0..1 of the drawings of ``drawings()``, on white, in its order."""
    kept, signs = {GROUPS.index(name) for name in groups}, index().emoji
    shown = [pixels(each) for each in read().drawings if signs[each.emoji].group in kept]
    x = np.stack(shown).astype(np.float32) / 255
    return x[..., :3] * x[..., 3:] + 1 - x[..., 3:]


def numbered(labels: np.ndarray) -> np.ndarray:
    """Labels as classes from 0 on, by rising number."""
    return np.unique(labels, return_inverse=True)[1]


@functools.cache
def vocabulary(languages: tuple[str, ...] = ("en",)) -> dict[str, int]:
    """Number of every word in names and keywords of emoji, from 1 on, by language."""
    found: dict[str, int] = {}
    for language in languages:
        for texts in names(language):
            for text in texts:
                for word in _split(text):
                    found.setdefault(f"{language}:{word}", len(found) + 1)
    return found


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def ids_of(
    texts: Sequence[str], language: str = "en", languages: tuple[str, ...] = ("en",)
) -> np.ndarray:
    """Words int (N, 12) of texts in a language, ``PAD`` after the last; unknown ones are left out.

    Args:
      texts: of any length; words after the twelfth are not read.
      language: that they are in.
      languages: of the vocabulary.
    """
    known = vocabulary(languages)
    rows = np.full((len(texts), MOST_WORDS), PAD)
    for row, text in zip(rows, texts, strict=True):
        found = [known[key] for word in _split(text) if (key := f"{language}:{word}") in known]
        row[: len(found)] = found[:MOST_WORDS]
    return rows


def name_ids(
    emoji: np.ndarray, language: str = "en", languages: tuple[str, ...] = ("en",)
) -> np.ndarray:
    """Words int (N, 12) of the names of emoji (N,)."""
    return ids_of([names(language)[k][0] for k in emoji], language, languages)


def caption_ids(emoji: np.ndarray, texts: int, seed: int, keywords: int = 3) -> np.ndarray:
    """Words int (N, T, 12) of ``texts`` English captions of each emoji (N,).

    Every one has the name and up to ``keywords`` keywords, which are drawn anew.
    """
    rng = np.random.default_rng([seed, 17])
    made = []
    for k in emoji:
        name, *others = names("en")[k]
        for _ in range(texts):
            count = min(keywords, len(others))
            drawn = rng.choice(len(others), count, replace=False) if count else ()
            made.append(" ".join([name, *(others[i] for i in drawn)]))
    return ids_of(made).reshape(len(emoji), texts, MOST_WORDS)


def init_weights(seed: int, inputs: int, words: int, outputs: int = WIDTH) -> Weights:
    """Towers before training; ``words`` is the largest number of one."""
    rng = np.random.default_rng(seed)

    def kernel(rows: int, columns: int, scale: float) -> jax.Array:
        return jnp.asarray(rng.normal(0, scale, (rows, columns)).astype(np.float32))

    second = HIDDEN**-0.5
    return {
        "image": {
            "first": kernel(inputs, HIDDEN, inputs**-0.5),
            "second": kernel(HIDDEN, outputs, second),
        },
        "text": {
            "words": kernel(words + 1, HIDDEN, 0.5),
            "second": kernel(HIDDEN, outputs, second),
        },
    }


def init_classifier(seed: int, classes: int, units: int = 128, inputs: int = 192) -> Weights:
    """One hidden layer for ``digit_mlp``'s functions, before training; the head is 0."""
    kernel = np.random.default_rng(seed).normal(0, (2 / inputs) ** 0.5, (inputs, units))
    return {
        "hidden": {"kernel": jnp.asarray(kernel.astype(np.float32)), "bias": jnp.zeros(units)},
        "head": {"kernel": jnp.zeros((units, classes)), "bias": jnp.zeros(classes)},
    }


def image_vectors(w: Weights, x: jax.Array) -> jax.Array:
    """Unit vectors (..., D) of features (..., 192)."""
    return unit(jax.nn.relu(x @ w["image"]["first"]) @ w["image"]["second"])


def text_vectors(w: Weights, ids: jax.Array) -> jax.Array:
    """Unit vectors (..., D) of words int (..., L)."""
    there = (ids != PAD)[..., None]
    hidden = jax.nn.relu(jnp.where(there, w["text"]["words"][ids], 0.0).sum(-2))
    return unit(hidden @ w["text"]["second"])


def contrast(w: Weights, data: tuple[Any, ...], key: jax.Array, criterion: Any) -> jax.Array:
    """The loss of rows drawn at random from features (N, D) and words (N, L), or (N, T, L) of
    which one of T texts is drawn."""
    x, ids = data
    k_rows, k_text = jax.random.split(key)
    rows = jax.random.randint(k_rows, (BATCH,), 0, len(x))
    words = ids[rows]
    if words.ndim == 3:
        chosen = jax.random.randint(k_text, (BATCH,), 0, words.shape[1])
        words = jnp.take_along_axis(words, chosen[:, None, None], 1)[:, 0]
    image, text = (
        Modality({"embedding": vectors}, jnp.arange(BATCH), jnp.ones(BATCH, bool))
        for vectors in (image_vectors(w, x[rows]), text_vectors(w, words))
    )
    scale = SCALE if isinstance(criterion, Softmax) else 1.0  # a margin is one of cosines
    coefficients = jnp.float32(scale), jnp.float32(0)
    return compare(criterion, Dot(), coefficients, image, text).loss


@functools.cache  # one program for all seeds
def loss_of(criterion: Any = None) -> Callable[..., jax.Array]:
    """``contrast`` by a criterion, CLIP's by default."""
    return functools.partial(contrast, criterion=criterion or Softmax())


def learned(
    seed: int,
    x: np.ndarray,
    ids: np.ndarray,
    steps: int = 300,
    criterion: Any = None,
    words: int | None = None,
) -> Weights:
    """Towers after steps of Adam on batches of 256 pairs.

    Args:
      seed: of the first weights.
      x: features (N, D).
      ids: words int (N, L), or (N, T, L) of T texts each.
      steps: number of steps.
      criterion: CLIP's by default.
      words: largest number of a word; of the English vocabulary by default.
    """
    start = init_weights(seed, x.shape[1], len(vocabulary()) if words is None else words)
    return trained(start, loss_of(criterion), (jnp.asarray(x), jnp.asarray(ids)), steps, RATE)


def similarities(w: Weights, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Cosines (N, M) of features (N, D) and texts int (M, L)."""
    return np.asarray(image_vectors(w, jnp.asarray(x)) @ text_vectors(w, jnp.asarray(ids)).T)


def naming(w: Weights, drawn: Drawn, classes: np.ndarray, ids: np.ndarray) -> float:
    """Share of drawings whose emoji is that of the likeliest text.

    Args:
      w: towers.
      drawn: N drawings.
      classes: int (M,), emoji of the texts.
      ids: words int (M, L) of the texts.
    """
    found = similarities(w, drawn.x, ids)
    return float(np.mean(classes[found.argmax(1)] == drawn.emoji))
