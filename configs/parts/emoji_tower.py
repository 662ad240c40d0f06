"""The zoo's classifier of emoji as a frozen tower, drawings on grounds, and heads: for claims.

A forward pass costs 2 ms of a core per drawing of 48 pixels, so that a claim can ask about
thousands and fit a head on their features for every seed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.parts.emoji import GROUPS, LEARNED
from vision.config.specs import build
from vision.data.sources.emoji import Emoji
from vision.predict.pretrained import load_weights
from vision.probes.linear import LinearClassifier, fit_logistic
from vision.train.objective import Variables
from vision.train.tower import Tap, forward, initialise
from vision.weights.pretrained import tower_card

SOURCE, BATCH = "zoo:emoji_cnn", 100
KINDS = tuple(name for name in GROUPS if name not in ("smileys-emotion", "symbols"))
"""Groups of things: animals, food, places, activities, objects."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """A tower with its weights.

    Attributes:
      model: the tower.
      params: its parameters.
      state: its BatchNorm statistics.
    """

    model: Any
    params: Any
    state: Any

    def embedding(self, images: jax.Array, tap: Tap | None = None) -> jax.Array:
        """(N, 192) of images (N, H, W, 3) in -1..1; traceable."""
        return forward(self.model, self.params, self.state, images, train=False, tap=tap)[0]

    @functools.cached_property
    def _features(self) -> Any:
        return jax.jit(lambda images: self.embedding(images))

    def features(self, images: np.ndarray) -> np.ndarray:
        """``embedding`` of any number of images, in batches of 100 and one of the rest."""
        parts = [self._features(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        return np.concatenate([np.asarray(part) for part in parts])


@functools.cache
def _variables() -> Variables:
    return load_weights(SOURCE).variables


@functools.cache
def trained() -> Frozen:
    """The zoo's tower without its head."""
    params = {k: x for k, x in _variables().params["model"].items() if k != "head"}
    return Frozen(build(tower_card(SOURCE).config), params, _variables().model_state["model"])


def subgroups(features: np.ndarray) -> np.ndarray:
    """Logits (N, 79) of the zoo's own head, one for each subgroup of ``emoji.GROUPS``."""
    own = _variables().params["model"]["head"]
    return features @ np.asarray(own["kernel"]) + np.asarray(own["bias"])


def untrained(seed: int) -> Frozen:
    """The same tower before training."""
    model = trained().model
    start = jnp.zeros((1, 48, 48, 3))
    params, state = jax.jit(lambda key: initialise(model, key, start))(jax.random.key(seed))
    return Frozen(model, params, state)


def drawings(split: str, seed: int, count: int, **fields: Any) -> dict[str, np.ndarray]:
    """Drawings of emoji on grounds of scenes, by houses and of families that the tower has seen.

    Args:
      split: an independent stream.
      seed: of grounds and places.
      count: of examples.
      **fields: of ``Emoji``.

    Returns:
      Its features, and ``image`` float32 (N, H, W, 3) in -1..1.
    """
    given = {"groups": KINDS, "houses": LEARNED, "label": "group", "part": "seen"} | fields
    made = Emoji(split=split, seed=seed, num_examples=count, **given).__getitems__(range(count))
    return made | {"image": made["image"].astype(np.float32) / 127.5 - 1}


def head(features: np.ndarray, labels: np.ndarray, classes: int = len(KINDS)) -> LinearClassifier:
    """A logistic regression on features (N, D)."""
    return fit_logistic(features, labels, classes, 1e-2)
