"""Class names in many languages, and a small adapter for one that a text tower hardly knows.

Geigle, Timofte and Glavaš, Babel-ImageNet: Massively Multilingual Evaluation of Vision-and-Language
Representations, 2024. Headline: from English by German and Chinese to Sinhala and Lao zero-shot
accuracy falls far, as image-text retrieval does; adapters mend much of it.

The measurement is ``MultilingualZeroShot`` of ``vision.evaluators.image_text.zero_shot``: in a
language only the classes count that it has names for, and English is measured on the same. The
remedy: with all towers frozen, after the token vectors and every block of the text tower x becomes

    x + W_up relu(W_down x + b) + c,     W_up and c zero at first

so that a new adapter changes nothing. It learns from translated captions alone, without images,

    L = mean_i |f(text_i in the language) - f_0(text_i in English)|^2

with f_0 the tower without the adapter; so the English tower stays what it was, exactly. Sizes and
the places of the adapters are not confirmed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vision.data.ops.base import Example
from vision.data.source import DataError
from vision.data.sources.scenes import translate
from vision.train.objective import (
    Aux,
    Batch,
    Context,
    Objective,
    Variables,
    apply,
    averaged,
    output_shapes,
)
from vision.train.tower import Tap, initialise

Tree = Any


@dataclasses.dataclass(frozen=True)
class Translated:
    """Adds a scene's caption in another language.

    A caption with a word outside the grammar raises DataError.

    Attributes:
      language: number of the language, as in ``scenes.translate``.
      feature: the caption in English, one text.
      output: name of the translation.
    """

    language: int
    feature: str = "caption"
    output: str = "caption_translated"

    def __post_init__(self) -> None:
        if self.language < 1:
            raise ValueError(f"language={self.language}: a number from 1 on; 0 is English")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(f"Translated: no feature {self.feature!r} among {names}")
        try:
            return {**example, self.output: translate(str(example[self.feature]), self.language)}
        except ValueError as error:
            raise DataError(f"{self.feature!r}: {error}") from error


@dataclasses.dataclass(frozen=True)
class AdaptText(Objective):
    """An adapter in a frozen text tower, taught by translations; see the module.

    The batch has ``text``, int ids (B, T) in the language, and ``text_english`` of the same
    captions. The adapter is the network ``adapter``; the optimizer's rules freeze the model:
    ``Rule("model/", learning_rate=0)``. Metric: ``similarity``, the mean cosine of both.

    ``predict`` gives texts through the adapter, so it is for the language alone.

    Attributes:
      model: a dual encoder; filled in from ``config.model``, its weights from ``init_from``.
      width: of the adapter, its bottleneck.
      sites: regular expression of the places in the text tower that have one.
    """

    width: int = 16
    sites: str = r"text/(stem|block\d+)"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width}: must be at least 1")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        inputs: Any = {"image": batch["image"], "text": batch["text"]}
        first, second = jax.random.split(key)
        params, model_state = initialise(self.model, first, inputs)
        variables = Variables({"model": params}, {"model": model_state}, {})
        widths: dict[str, int] = {}

        def see(name: str, x: jax.Array) -> jax.Array:
            widths[name] = x.shape[-1]
            return x

        output_shapes(self.model, variables, {"text": batch["text"]}, tap=Tap(see, self.sites))
        if not widths:
            raise ValueError(f"sites={self.sites!r} is no place in the text tower")
        adapter = {
            name.replace("/", "_"): self._fresh(jax.random.fold_in(second, i), widths[name])
            for i, name in enumerate(sorted(widths))
        }
        return variables.merge(params={"adapter": adapter})

    def _fresh(self, key: jax.Array, width: int) -> Tree:
        down = jax.random.normal(key, (width, self.width)) * width**-0.5
        return {
            "down": {"kernel": down, "bias": jnp.zeros(self.width)},
            "up": {"kernel": jnp.zeros((self.width, width)), "bias": jnp.zeros(width)},
        }

    def texts(self, variables: Variables, ctx: Context, ids: jax.Array, adapted: bool) -> jax.Array:
        """Unit vectors (B, D) float32 of texts, through the adapter or past it."""
        adapter = functools.partial(adapt, variables.params["adapter"])
        tap = Tap(adapter, self.sites) if adapted else None
        out, _ = apply(self.model, variables, {"text": ids}, ctx, train=False, tap=tap)
        return out["embedding"].astype(jnp.float32)

    def loss(self, variables: Variables, batch: Batch, ctx: Context) -> tuple[jax.Array, Aux]:
        said = self.texts(variables, ctx, batch["text"], adapted=True)
        meant = jax.lax.stop_gradient(
            self.texts(variables, ctx, batch["text_english"], adapted=False)
        )
        distance = jnp.sum(jnp.square(said - meant), -1)
        similarity = jnp.sum(said * meant, -1)
        return averaged(distance, batch["_mask"], similarity=similarity)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """``image/embedding`` and ``text/embedding`` of what the batch has; the image's also as
        ``embedding``."""
        features: dict[str, jax.Array] = {}
        if "image" in batch:
            out, _ = apply(self.model, variables, {"image": batch["image"]}, ctx)
            features["image/embedding"] = out["image/embedding"].astype(jnp.float32)
            features["embedding"] = features["image/embedding"]
        if "text" in batch:
            features["text/embedding"] = self.texts(variables, ctx, batch["text"], adapted=True)
        return features


def adapt(adapter: Tree, name: str, x: jax.Array) -> jax.Array:
    """The activations ``x`` of a site after its adapter."""
    own = jax.tree.map(lambda w: w.astype(x.dtype), adapter[name.replace("/", "_")])
    hidden = jax.nn.relu(x @ own["down"]["kernel"] + own["down"]["bias"])
    return x + hidden @ own["up"]["kernel"] + own["up"]["bias"]
