"""MOFI: an image tower trained to classify entities that were linked in alt-texts.

Wu et al., MOFI: Learning Image Representations from Noisy Entity Annotated Images, 2023. Headline:
86.66 mAP on GPR1200, where CLIP's best tower has 72.19.

From alt-texts to labels (I2E; ``papers.mofi.entities``): a linker finds entities in the alt-text of
an image (``linked``); a pair is kept if a dual encoder's similarity of the image and the text about
the entity, x_i . t_e, reaches a threshold (``depicted``), and an entity if it has enough images
(``frequent``).

Training, with the pooled features h_i of the image tower shared by both terms and y_i an entity:

    cos_ic = unit(P h_i) . unit(w_c)
    L_entity = -mean_i log softmax_{c in C}(s (cos_ic - m [c = y_i]))_{y_i}
    L = a L_entity + b L_contrast

The softmax is over C of millions of entities: those of the batch and ``sampled`` random ones, the
same for all rows; with all of them it is the full softmax. L_contrast is CLIP's, between the image
embedding, from a separate projection, and a text about the entity, its name or name and description
(``LabelToCaption(described=0.5)``). b = 0 is the supervised model, a = 0 the contrastive one.

Differences: threshold, number of sampled entities, s and m are not confirmed and are ours. An image
has one entity per epoch, where the paper may use several. The sampling is not corrected for.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from papers.mofi.cosine_softmax import cosine_softmax, init_classifier, projected
from vision.blocks.contrast import Loss, Softmax
from vision.blocks.scale import Scale
from vision.blocks.similarity import Dot
from vision.config.ranges import NonNegative, Positive, checked
from vision.objectives.contrast import Contrast, entry
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Variables

POOLED = "image/pooled"


class _Pooled(Dot):
    """The dot product of embeddings, which also keeps the pooled features."""

    @property
    def reads(self) -> tuple[str, ...]:
        return *super().reads, POOLED


@dataclasses.dataclass(frozen=True)
@checked
class EntityTasks(BatchCoupled):
    """Entity classification and image-text contrast on one image tower; see the module.

    The batch has ``image``, ``text`` and ``label`` int (B,), the entity, or -1 for none: such a row
    counts in the contrast only. The classifier's parameters are the network ``entities``.

    Attributes:
      model: a dual encoder whose image tower has ``pooled``; filled in from ``config.model``.
      num_entities: K.
      width: dimension of the classifier's embedding.
      entity_weight: a.
      contrast_weight: b.
      sampled: number of random entities in the softmax of a step; None for all K.
      scale: s.
      margin: m.
      criterion: of the contrast, in which rows with the same text are not negatives.
    """

    num_entities: Positive[int]
    width: Positive[int] = 512
    entity_weight: NonNegative[float] = 1.0
    contrast_weight: NonNegative[float] = 1.0
    sampled: Positive[int] | None = None
    scale: Scale = Scale(20.0, 100.0)  # noqa: RUF009 - frozen
    margin: float = 0.0
    criterion: Loss = Softmax()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not self.entity_weight and not self.contrast_weight:
            raise ValueError("entity_weight and contrast_weight are both 0")
        if self.sampled is not None and self.sampled > self.num_entities:
            raise ValueError(f"sampled={self.sampled} of num_entities={self.num_entities}")

    @functools.cached_property
    def contrast(self) -> Contrast:
        return Contrast(self.model, self.criterion, _Pooled(), duplicates="ignore")

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        variables = self.contrast.init(key, batch)
        embeddings, _ = jax.eval_shape(lambda: self.encode(variables, batch, Context.evaluation()))
        feature_width = embeddings[POOLED].shape[-1]
        keys = [jax.random.fold_in(key, i) for i in (1, 2)]
        classifier = init_classifier(keys, feature_width, self.width, self.num_entities)
        scale = {name: jnp.float32(x) for name, x in self.scale.parameters().items()}
        return variables.merge(params={"entities": classifier | scale})

    def encode(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        return self.contrast.encode(variables, batch, ctx)

    def loss_from_embeddings(
        self,
        variables: Variables,
        embeddings: dict[str, jax.Array],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        loss, metrics = jnp.float32(0), {}
        if self.contrast_weight:
            contrast, aux = self.contrast.loss_from_embeddings(variables, embeddings, batch, ctx)
            loss = self.contrast_weight * contrast
            metrics = {**aux.metrics, "contrast_loss": contrast}
        if self.entity_weight:
            classifier, label = variables.params["entities"], entry(batch, "label")
            entity_loss, accuracy = cosine_softmax(
                projected(embeddings[POOLED], classifier),
                classifier["classes"],
                label,
                batch["_mask"] & (label >= 0),
                self._sample(ctx),
                self.scale.value(classifier),
                self.margin,
            )
            loss = loss + self.entity_weight * entity_loss
            metrics |= {"entity_loss": entity_loss, "entity_accuracy": accuracy}
        return loss, Aux(metrics=metrics)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """As ``Contrast``; with images also ``entity/embedding``, unit vectors (B, width).

        These are the classifier's, and the ``embedding`` of the image if the classifier is trained.
        """
        features = self.contrast.predict(variables, batch, ctx)
        if POOLED in features:
            classifier = variables.params["entities"]
            features["entity/embedding"] = projected(features.pop(POOLED), classifier)
            if self.entity_weight:
                features["embedding"] = features["entity/embedding"]
        return features

    def _sample(self, ctx: Context) -> jax.Array:
        if self.sampled is None:
            return jnp.arange(self.num_entities)
        key = ctx.rng("entities")
        return jax.random.choice(key, self.num_entities, (self.sampled,), replace=False)
