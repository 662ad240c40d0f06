"""Zero-shot classification in many languages, and adapters for low-resource ones.

Geigle, Timofte and Glavaš, Babel-ImageNet: Massively Multilingual Evaluation of Vision-and-Language
Representations, 2024. Headline: zero-shot accuracy falls steeply from English over German and
Chinese to Sinhala and Lao, in line with image-text retrieval; adapters recover much of the loss.

The evaluation is ``MultilingualZeroShot`` of ``vision.evaluators.image_text.zero_shot``: a language
is evaluated on the classes that it has names for, and English on the same classes. The adapters:
all towers are frozen, and after the token embeddings and every block of the text tower the
activation x becomes

    x + W_up relu(W_down x + b) + c,     W_up and c initialised to zero

so that a new adapter is the identity. It is trained on translated captions without images,

    L = mean_i |f(text_i in the language) - f_0(text_i in English)|^2

where f_0 is the tower without the adapter. The English tower is unchanged. The adapters' width and
positions are not confirmed by the paper.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from vision.config.ranges import Positive, Regex, checked
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
@checked
class AdaptText(Objective):
    """An adapter in a frozen text tower, trained on translations; see the module.

    The batch has ``text``, int ids (B, T) in the language, and ``text_english`` of the same
    captions. The adapter is the network ``adapter``; a rule of the optimizer freezes the model:
    ``ParameterRule("model/", learning_rate=0)``. Metric: ``similarity``, the mean cosine between
    the embedding of the translation and that of the English caption.

    ``predict`` embeds texts through the adapter, so it is meant for this language only.

    Attributes:
      model: a dual encoder; filled in from ``config.model``, its weights from ``init_from``.
      width: of the adapter's bottleneck.
      sites: regular expression of the text tower's sites that get an adapter.
    """

    width: Positive[int] = 16
    sites: Regex = r"text/(stem|block\d+)"

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
        embedding = self.texts(variables, ctx, batch["text"], adapted=True)
        target = jax.lax.stop_gradient(
            self.texts(variables, ctx, batch["text_english"], adapted=False)
        )
        distance = jnp.sum(jnp.square(embedding - target), -1)
        similarity = jnp.sum(embedding * target, -1)
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
    """The activations ``x`` of the site ``name`` after its adapter."""
    weights = jax.tree.map(lambda w: w.astype(x.dtype), adapter[name.replace("/", "_")])
    hidden = jax.nn.relu(x @ weights["down"]["kernel"] + weights["down"]["bias"])
    return x + hidden @ weights["up"]["kernel"] + weights["up"]["bias"]
