"""One image tower learns to name entities that were found in the texts beside its images.

Wu et al., MOFI: Learning Image Representations from Noisy Entity Annotated Images, 2023. Headline:
86.66 mAP on GPR1200, where CLIP's best tower has 72.19.

From alt-texts to labels (I2E): a linker finds entities in the text beside an image (``linked``); a
pair stays if a dual encoder finds the image like the text about the entity, x_i . t_e at least a
threshold (``depicted``), and an entity stays if it has enough images (``frequent``).

Training, with the pooled features h_i of the image tower shared by both terms and y_i an entity:

    cos_ic = unit(P h_i) . unit(w_c)
    L_entity = -mean_i log softmax_{c in C}(s (cos_ic - m [c = y_i]))_{y_i}
    L = a L_entity + b L_contrast

Of millions of entities only C compete in a step: those of the batch and ``sampled`` random ones,
the same for all rows; with all of them it is the full softmax. L_contrast is CLIP's, between the
image under a projection of its own and a text about the entity, its name or name and description
(``SayLabel(described=0.5)``). b = 0 is the supervised model, a = 0 the contrastive one.

Not confirmed, so ours: threshold, number of sampled entities, s, m. An image has one entity in an
epoch, where the paper may give it several. Nothing corrects for the sampling.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vision.blocks.contrast import Loss, Softmax
from vision.blocks.cosine_softmax import cosine_softmax
from vision.blocks.scale import Scale
from vision.blocks.similarity import unit
from vision.core.net import Tower, forward
from vision.core.objective import Aux, Batch, Context, Variables, coupled_loss
from vision.data.ops.base import Example, noted
from vision.objectives.contrast import INPUTS, Contrast, entry, inputs, read

Tree = Any
POOLED = "image/pooled"


class EntityLinker(Protocol):
    """Finds entities of a knowledge base in a text."""

    def link(self, text: str) -> tuple[int, ...]:
        """Their numbers, each once, in the order of the text."""
        ...


@dataclasses.dataclass(frozen=True)
class Gazetteer:
    """Links the names of entities where they stand word for word; of two that overlap the longer.

    Attributes:
      names: of the entities, by number; words in lower case with single spaces between.
    """

    names: tuple[str, ...]

    @functools.cached_property
    def _numbers(self) -> dict[tuple[str, ...], int]:
        return {tuple(name.split()): number for number, name in enumerate(self.names)}

    def link(self, text: str) -> tuple[int, ...]:
        words = tuple(word.strip(".,;:!?") for word in text.lower().split())
        longest = max(map(len, self._numbers), default=0)
        found: dict[int, None] = {}
        start = 0
        while start < len(words):
            ends = range(min(start + longest, len(words)), start, -1)
            end = next((end for end in ends if words[start:end] in self._numbers), None)
            if end is not None:
                found[self._numbers[words[start:end]]] = None
            start = end or start + 1
        return tuple(found)


@dataclasses.dataclass(frozen=True)
class Link:
    """Labels a record with one of the entities in its text, drawn; -1 where there is none.

    Attributes:
      linker: finds them.
      feature: one text; it stays.
      output: name of the label, int32.
    """

    linker: EntityLinker
    feature: str = "caption"
    output: str = "label"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        found = self.linker.link(str(example[self.feature]))
        entity = found[int(rng.integers(len(found)))] if found else -1
        return noted({**example, self.output: np.int32(entity)}, "Link", entities=found)


def linked(texts: Sequence[str], linker: EntityLinker) -> np.ndarray:
    """Pairs int64 (P, 2) of the number of a text and an entity in it."""
    pairs = [(i, entity) for i, text in enumerate(texts) for entity in linker.link(text)]
    return np.asarray(pairs, np.int64).reshape(-1, 2)


def depicted(
    pairs: np.ndarray, images: np.ndarray, entities: np.ndarray, threshold: float
) -> np.ndarray:
    """The pairs whose image (N, D) is similar enough to the entity's text (E, D), unit vectors."""
    cosine = np.einsum("pd,pd->p", images[pairs[:, 0]], entities[pairs[:, 1]])
    return pairs[cosine >= threshold]


def frequent(pairs: np.ndarray, fewest: int) -> np.ndarray:
    """The pairs whose entity has at least ``fewest`` images."""
    return pairs[np.bincount(pairs[:, 1], minlength=1)[pairs[:, 1]] >= fewest]


@dataclasses.dataclass(frozen=True)
class EntityTasks:
    """Entities by a cosine classifier and by their texts, on one image tower; see the module.

    The batch has ``image``, ``text`` and ``label`` int (B,), the entity; -1: none, such a row
    counts in the contrast alone. What the classifier learns is the network ``entities``.

    Attributes:
      model: a dual encoder whose image tower tells ``pooled``; filled in from ``config.model``.
      num_entities: K.
      width: of the classifier's space.
      entity_weight: a.
      contrast_weight: b.
      sampled: how many random entities compete in a step; None for all K.
      scale: s.
      margin: m.
      criterion: of the contrast, in which rows with the same text are no negatives.
    """

    model: Tower
    num_entities: int
    width: int = 512
    entity_weight: float = 1.0
    contrast_weight: float = 1.0
    sampled: int | None = None
    scale: Scale = Scale(20.0, 100.0)  # noqa: RUF009 - frozen
    margin: float = 0.0
    criterion: Loss = Softmax()  # noqa: RUF009 - frozen

    batch_coupled: ClassVar[bool] = True
    loss = coupled_loss

    def __post_init__(self) -> None:
        if self.num_entities < 1 or self.width < 1:
            raise ValueError(f"num_entities={self.num_entities}, width={self.width}: at least 1")
        weights = self.entity_weight, self.contrast_weight
        if min(weights) < 0 or not any(weights):
            raise ValueError(f"entity_weight, contrast_weight = {weights}: at least 0, not both 0")
        if self.sampled is not None and not 1 <= self.sampled <= self.num_entities:
            raise ValueError(f"sampled={self.sampled}: None, or 1..{self.num_entities}")

    @functools.cached_property
    def contrast(self) -> Contrast:
        return Contrast(self.model, self.criterion, duplicates="ignore")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        variables = self.contrast.init(key, batch)
        state = variables.model_state
        features = jax.eval_shape(
            lambda: self._forward(variables.params, state, batch, INPUTS)[0][POOLED]
        ).shape[-1]
        keys = [jax.random.fold_in(key, i) for i in (1, 2)]
        entities = {
            "projection": {"kernel": _normal(keys[0], (features, self.width), features)},
            "classes": _normal(keys[1], (self.num_entities, self.width), self.width),
            **{name: jnp.float32(x) for name, x in self.scale.parameters().items()},
        }
        return dataclasses.replace(variables, params={**variables.params, "entities": entities})

    def embed(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        out, state = self._forward(
            params, ctx.model_state, batch, INPUTS, ctx.train, ctx.rng("dropout")
        )
        names = "image/embedding", "text/embedding", POOLED
        return read(out, names, "EntityTasks"), Aux(model_state={"model": state})

    def couple(
        self,
        params: dict[str, Tree],
        embedded: dict[str, jax.Array],
        slots: dict[str, Tree],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        loss, metrics = jnp.float32(0), {}
        if self.contrast_weight:
            sides = {name: x for name, x in embedded.items() if name != POOLED}
            contrast, aux = self.contrast.couple(params, sides, slots, batch, ctx)
            loss = self.contrast_weight * contrast
            metrics = {**aux.metrics, "contrast_loss": contrast}
        if self.entity_weight:
            learned, label = params["entities"], entry(batch, "label")
            entities, hits = cosine_softmax(
                _project(embedded[POOLED], learned),
                learned["classes"],
                label,
                batch["_mask"] & (label >= 0),
                self._sample(ctx),
                self.scale.value(learned),
                self.margin,
            )
            loss = loss + self.entity_weight * entities
            metrics |= {"entity_loss": entities, "entity_accuracy": hits}
        return loss, Aux(metrics=metrics)

    def after_update(
        self, params: dict[str, Tree], slots: dict[str, Tree], aux: Aux, ctx: Context
    ) -> dict[str, Tree]:
        return slots

    def predict(
        self, params: dict[str, Tree], slots: dict[str, Tree], batch: Batch, ctx: Context
    ) -> dict[str, jax.Array]:
        """As ``Contrast``; with images also ``entity/embedding``, unit vectors (B, width) of the
        classifier, which are the image's ``embedding`` where the classifier is trained."""
        given = tuple(name for name in INPUTS if name in batch)
        out, _ = self._forward(params, ctx.model_state, batch, given)
        names = tuple(f"{name}/embedding" for name in given)
        found = read(out, names, "EntityTasks")
        if "image" in given:
            pooled = read(out, (POOLED,), "EntityTasks")[POOLED]
            found["entity/embedding"] = _project(pooled, params["entities"])
            main = "entity/embedding" if self.entity_weight else "image/embedding"
            found["embedding"] = found[main]
        return found

    def _forward(
        self,
        params: dict[str, Tree],
        model_state: Any,
        batch: Batch,
        names: tuple[str, ...],
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], Tree]:
        given = inputs(batch, names)
        _, out, state = forward(
            self.model, params["model"], model_state["model"], given, train=train, key=key
        )
        return out, state

    def _sample(self, ctx: Context) -> jax.Array:
        if self.sampled is None:
            return jnp.arange(self.num_entities)
        key = ctx.rng("entities")
        assert key is not None, "a loss that samples needs a key"
        return jax.random.choice(key, self.num_entities, (self.sampled,), replace=False)


def _normal(key: jax.Array, shape: tuple[int, ...], fan: int) -> jax.Array:
    return jax.random.normal(key, shape, jnp.float32) * fan**-0.5


def _project(pooled: jax.Array, learned: Tree) -> jax.Array:
    return unit(pooled @ learned["projection"]["kernel"])
