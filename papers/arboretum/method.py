"""Arboretum: species by two names and seven ranks, with a text of one kind in every batch.

Of 134.6 million photographs of iNaturalist those of seven categories are kept. A species with fewer
than 10 photographs is left out and kept apart as "rare"; of others at most 1,000 are drawn
(``capped.CappedClasses``). An image has ten texts, from both names and the names of all ranks
(``taxa.Taxon.text``). CLIP is trained on five of them,

    kind ~ uniform{sci, com, taxon, sci_com, taxon_com}  once per step,    loss = CLIP(x, text_kind)

so that a batch never compares a scientific name with a common one, which would tell images apart by
the kind of their text. It is asked at every rank (``evaluator.Ranks``).

Yang et al., Arboretum: A Large Multimodal Dataset Enabling AI for Biodiversity, 2024 (later called
BioTrove). Headline: 91.1 % top-1 on its best benchmark. Differences from the authors' code
(baskargroup/Arboretum, on open_clip): the kind depends on the number of the step and a seed, so
that it is the same on all devices, in all parts of an accumulated batch and after a resume; texts
are made from a table of species when they are read, not stored ten times. A species without a
common name is called by its scientific one. The card has accuracy fall from kingdom to species
where probabilities are summed: that holds for the ranks of the likeliest species only, see
``evaluator``. Nothing of the 40 million images was trained here.
"""

from __future__ import annotations

import dataclasses

import jax

from vision.config.ranges import NonNegative, checked
from vision.objectives.contrast import Contrast
from vision.train.objective import Aux, Batch, Context, Variables


@dataclasses.dataclass(frozen=True)
@checked
class OneKindOfText(Contrast):
    """``Contrast`` on one of C texts per image, the same for the whole batch of a step.

    The batch has ``text`` int32 (B, C, T), and ``text_mask`` and ``text_cut`` (B, C) where they
    are there. With C = 1 it is ``Contrast``.

    Attributes:
      seed: of the order of kinds.
    """

    seed: NonNegative[int] = 0

    def encode(
        self, variables: Variables, batch: Batch, ctx: Context
    ) -> tuple[dict[str, jax.Array], Aux]:
        return super().encode(variables, self._one(batch, ctx), ctx)

    def loss_from_embeddings(
        self,
        variables: Variables,
        embeddings: dict[str, jax.Array],
        batch: Batch,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        one = self._one(batch, ctx)
        return super().loss_from_embeddings(variables, embeddings, one, ctx)

    def kind(self, step: jax.Array, count: int) -> jax.Array:
        """int32 scalar in 0..count-1: the kind of a step."""
        key = jax.random.fold_in(jax.random.key(self.seed), step)
        return jax.random.randint(key, (), 0, count)

    def _one(self, batch: Batch, ctx: Context) -> Batch:
        if batch["text"].ndim != 3:
            raise ValueError(
                f"batch['text'] has shape {batch['text'].shape}, and texts of several kinds are "
                "(B, C, T): read them by TaxonTexts and Tokenize(pick='first', captions=C)"
            )
        kind = self.kind(ctx.step, batch["text"].shape[1])
        of_kinds = ("text", "text_mask", "text_cut")
        return {name: x[:, kind] if name in of_kinds else x for name, x in batch.items()}
