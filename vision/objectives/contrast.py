"""Contrastive learning of a dual encoder from image-text pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp

from vision.blocks.contrast import ContrastResult as Compared
from vision.blocks.contrast import Loss, Softmax
from vision.blocks.grouping import Grouping
from vision.blocks.sharded_contrast import Modality, compare, fingerprint
from vision.blocks.similarity import ContrastError, Dot, Features, Similarity
from vision.config.ranges import Positive, checked
from vision.train.objective import Aux, Batch, BatchCoupled, Context, Variables, apply
from vision.train.tower import initialise

Tree = Any
INPUTS = ("image", "text")


class Targets(Protocol):
    """Protocol: which images and texts of a batch are positives."""

    def keys(self, batch: Batch) -> jax.Array:
        """One key per row, see ``vision.blocks.contrast.affinities``."""
        ...


@dataclasses.dataclass(frozen=True)
class OwnPair:
    """An image's only positive is its own text."""

    def keys(self, batch: Batch) -> jax.Array:
        return jnp.arange(len(batch["_mask"]))


@dataclasses.dataclass(frozen=True)
class SameKey:
    """All pairs with equal ``batch[field]`` are positives: class labels (UniCL), identities.

    The field is int (B,); rows with a negative number are positives of themselves only, so captions
    without a label and labelled images can share a batch.

    Attributes:
      field: feature of the batch.
    """

    field: str = "label"

    def keys(self, batch: Batch) -> jax.Array:
        key = entry(batch, self.field)
        if key.ndim != 1 or not jnp.issubdtype(key.dtype, jnp.integer):
            raise ContrastError(
                f"batch[{self.field!r}] is {key.dtype} {key.shape}, and targets=SameKey compares "
                "one integer per row; soft labels: targets=SoftLabels"
            )
        return jnp.where(key >= 0, key, -1 - jnp.arange(len(key), dtype=key.dtype))


@dataclasses.dataclass(frozen=True)
class SoftLabels:
    """Affinities are inner products of soft labels ``batch[field]``, float (B, K).

    Rows of zeros do not count.

    Attributes:
      field: feature of the batch.
    """

    field: str = "label"

    def keys(self, batch: Batch) -> jax.Array:
        key = entry(batch, self.field)
        if key.ndim != 2 or not jnp.issubdtype(key.dtype, jnp.floating):
            raise ContrastError(
                f"batch[{self.field!r}] is {key.dtype} {key.shape}, and targets=SoftLabels "
                "compares rows of (B, K) floats; class numbers: targets=SameKey"
            )
        if f"{self.field}_known" in batch:
            raise ContrastError(
                f"batch[{self.field!r}] is known in part, by {self.field}_known, and "
                "targets=SoftLabels would take unknown classes for 0: complete the labels"
            )
        return key


@dataclasses.dataclass(frozen=True)
@checked
class Contrast(BatchCoupled):
    """Contrastive loss of image-text pairs.

    The batch has ``image`` and ``text``, int32 ids (B, T), or (B, C, T) with C captions per
    image; ``text_mask`` (B,) or (B, C) bool, if present, marks those that exist. A row without any
    caption does not count.

    The model is called with a dict of ``image``, ``text`` or both, and its ``out`` has
    ``image/embedding`` (B, D) and ``text/embedding`` (B, D) or (B, C, D), unit vectors;
    for late interaction ``image/tokens`` (B, P, D), ``text/tokens`` (B, T, D) or (B, C, T, D),
    and ``text/mask`` without that last D, true for real tokens. Learned scale and bias of the
    loss are the network ``contrast``, those of the grouping the network ``grouping``.

    ``text_cut``, if the batch has it, is the number of truncated tokens of a caption; the metric
    ``text_cut`` is the share of truncated captions.

    Attributes:
      model: a dual encoder; filled in from ``config.model``.
      criterion: ``Softmax``, ``Sigmoid`` or ``Ranking`` of ``vision.blocks.contrast``.
      similarity: ``Dot``, ``BestPart`` or ``LateInteraction`` of ``vision.blocks.similarity``.
      targets: ``OwnPair``, ``SameKey`` or ``SoftLabels``.
      duplicates: whether another row with the identical caption is a ``negative``, or
        ``ignore``d: neither positive nor negative.
      groups: number of parts of the batch within which rows are compared: see ``compare``.
      grouping: additional loss between every caption and the patches that it selects (DreamLIP),
        which reads ``image/tokens``. None: only whole images and texts.
    """

    criterion: Loss = Softmax()  # noqa: RUF009 - frozen
    similarity: Similarity = Dot()  # noqa: RUF009 - frozen
    targets: Targets = OwnPair()
    duplicates: Literal["negative", "ignore"] = "negative"
    groups: Positive[int] = 1
    grouping: Grouping | None = None

    def init(self, key: jax.Array, batch: Batch) -> Variables:
        params, model_state = initialise(self.model, key, inputs(batch, INPUTS))
        networks = {"model": params}
        for name, criterion in self._criteria().items():
            if learned := {k: jnp.float32(x) for k, x in criterion.parameters().items()}:
                networks[name] = learned
        return Variables(networks, {"model": model_state}, {})

    def encode(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        """The inputs of the similarity, float32, by their names in ``out``."""
        out, state = apply(self.model, variables, inputs(batch, INPUTS), ctx)
        embeddings = read(out, self.similarity.reads, f"similarity={self.similarity}")
        if self.grouping is not None:
            parts = read(out, ("image/tokens", "text/embedding"), f"grouping={self.grouping}")
            tokens, text = parts["image/tokens"], parts["text/embedding"]
            text = text if text.ndim == 3 else text[:, None]
            embeddings["group/image"] = self.grouping.gather(tokens, text)
            embeddings["group/text"] = text
        return embeddings, Aux(model_state=state)

    def loss_from_embeddings(
        self,
        variables: Variables,
        embeddings: dict[str, jax.Array],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        coefficients = self.criterion.coefficients(variables.params.get("contrast", {}))
        result = self._compare(coefficients, embeddings, batch)
        loss, valid, present = result.loss, batch["_mask"], present_captions(batch)
        with_text = valid & jnp.any(present, 1)
        metrics = {
            "accuracy_image_to_text": result.to_text,
            "accuracy_text_to_image": result.to_image,
            "positive_similarity": result.own,
            "without_text": 1 - jnp.sum(with_text) / jnp.maximum(jnp.sum(valid), 1),
        }
        learned = self.criterion.parameters()
        if learned:
            metrics["temperature"] = 1 / coefficients[0]
        if "bias" in learned:
            metrics["bias"] = coefficients[1]
        if "text_cut" in batch:
            metrics["text_cut"] = share_cut(batch["text_cut"], present & valid[:, None])
        if self.grouping is not None:
            groups = self._group(variables.params.get("grouping", {}), embeddings, batch)
            loss = loss + self.grouping.weight * groups.loss
            metrics["grouping_loss"] = groups.loss
            metrics["accuracy_group_to_text"] = groups.to_text
        return loss, Aux(metrics=metrics)

    def predict(self, variables: Variables, batch: Batch, ctx: Context) -> dict[str, jax.Array]:
        """float32 ``image/embedding``, ``text/embedding`` and the other inputs of similarity and
        grouping, of a batch with ``image``, ``text`` or both; the image's also as ``embedding``."""
        present = tuple(name for name in INPUTS if name in batch)
        out, _ = apply(self.model, variables, inputs(batch, present), ctx)
        names = {"image/embedding", "text/embedding", *self.similarity.reads}
        names |= {"image/tokens"} if self.grouping is not None else set()
        features = {n: out[n].astype(jnp.float32) for n in sorted(names & out.keys())}
        if "image/embedding" in features:
            features["embedding"] = features["image/embedding"]
        return features

    def _criteria(self) -> dict[str, Loss]:
        """Losses by the name of the network with their learned parameters."""
        more = {} if self.grouping is None else {"grouping": self.grouping.criterion}
        return {"contrast": self.criterion, **more}

    def _group(
        self, learned: dict[str, jax.Array], embeddings: Mapping[str, jax.Array], batch: Batch
    ) -> Compared:
        """Every caption of the batch against every group of patches."""
        assert self.grouping is not None
        present = present_captions(batch)
        twins = captions(batch, present) if self.duplicates == "ignore" else None

        def side(name: str) -> Modality:
            vectors = embeddings[name]
            rows = vectors.shape[0] * vectors.shape[1]
            return Modality(
                {"embedding": vectors.reshape(rows, -1)},
                jnp.arange(rows),
                (present & batch["_mask"][:, None]).reshape(rows),
                None if twins is None else twins.reshape(rows, 1, -1),
            )

        criterion = self.grouping.criterion
        sides = side("group/image"), side("group/text")
        return compare(criterion, Dot(), criterion.coefficients(learned), *sides, self.groups)

    def _compare(
        self,
        coefficients: tuple[jax.Array, jax.Array],
        embeddings: Mapping[str, jax.Array],
        batch: Batch,
    ) -> Compared:
        key, valid, present = self.targets.keys(batch), batch["_mask"], present_captions(batch)
        image, text = side_of(embeddings, "image/"), side_of(embeddings, "text/")
        twins = captions(batch, present) if self.duplicates == "ignore" else None
        images = Modality(image, key, valid & jnp.any(present, 1), twins)

        def compare_captions(
            text: Features, present: jax.Array, twins: jax.Array | None
        ) -> Compared:
            texts = Modality(text, key, valid & jnp.any(present, 1), twins)
            there = dataclasses.replace(images, valid=texts.valid)
            return compare(self.criterion, self.similarity, coefficients, there, texts, self.groups)

        if self.similarity.captions == "all":
            return compare_captions({**text, "present": present}, present, twins)
        if batch["text"].ndim == 2:
            return compare_captions(text, present, twins)
        # One comparison per caption: the mean over captions of all images.
        split = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (text, present, twins))
        per_caption = jax.lax.map(
            lambda c: compare_captions(
                c[0], c[1][:, None], None if c[2] is None else c[2][:, None]
            ),
            split,
        )
        weights = per_caption.rows / jnp.maximum(jnp.sum(per_caption.rows), 1.0)
        mean = jax.tree.map(lambda x: jnp.sum(x * weights), per_caption)
        return dataclasses.replace(mean, rows=jnp.sum(per_caption.rows))


def inputs(batch: Batch, names: tuple[str, ...]) -> Any:
    """Inputs of the model, a dict of arrays."""
    return {name: entry(batch, name) for name in names}


def entry(batch: Batch, name: str) -> jax.Array:
    if name not in batch:
        raise ContrastError(
            f"the batch has no {name!r}; it has {', '.join(sorted(batch))}: add an op that makes "
            "it to config.data"
        )
    return batch[name]


def read(out: Mapping[str, jax.Array], names: tuple[str, ...], reader: str) -> Features:
    """Entries ``names`` of a dual encoder's ``out``, float32."""
    if missing := [name for name in names if name not in out]:
        raise ContrastError(
            f"{reader} reads {', '.join(missing)}, which config.model does not output; it outputs "
            f"{', '.join(sorted(out))}"
        )
    return {name: out[name].astype(jnp.float32) for name in names}


def side_of(embeddings: Mapping[str, jax.Array], prefix: str) -> Features:
    return {k.removeprefix(prefix): x for k, x in embeddings.items() if k.startswith(prefix)}


def present_captions(batch: Batch) -> jax.Array:
    """(B, C) bool: which captions exist; C is 1 with one caption per image."""
    ids = batch["text"]
    shape = (ids.shape[0], ids.shape[1] if ids.ndim == 3 else 1)
    mask = batch.get("text_mask")
    return jnp.ones(shape, bool) if mask is None else jnp.reshape(mask, shape).astype(bool)


def share_cut(cut: jax.Array, present: jax.Array) -> jax.Array:
    """Share of the captions ``present`` (B, C) with ``cut`` (B,) or (B, C) > 0 truncated tokens."""
    truncated = present & (jnp.reshape(cut, present.shape) > 0)
    return jnp.sum(truncated) / jnp.maximum(jnp.sum(present), 1)


def captions(batch: Batch, present: jax.Array) -> jax.Array:
    """Fingerprints (B, C, 2) of a batch's captions; those that do not exist are unique."""
    ids = batch["text"]
    codes = fingerprint(ids if ids.ndim == 3 else ids[:, None])
    position = jnp.arange(present.size, dtype=jnp.uint32).reshape(present.shape)
    absent = jnp.stack([position, jnp.full_like(position, 0xFFFFFFFF)], -1)
    return jnp.where(present[:, :, None], codes, absent)
