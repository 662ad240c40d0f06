"""Compositionality benchmarks: crossed image-caption pairs, and choices among captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from vision.data.source import DataError
from vision.evaluate.evaluator import EvalContext, EvaluationData, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import IMAGE, TEXT, check_sizes, embed, finite


@dataclasses.dataclass(frozen=True)
class CrossedPairs:
    """Winoground: pairs of two images and two captions that have the same words.

    With s(c, i) for caption c and image i, a pair of records has its text right when both images
    prefer their caption, s(c0, i0) > s(c1, i0) and s(c1, i1) > s(c0, i1); its image right when
    both captions prefer their image; its group right when both are (Thrush et al., 2022). Chance
    gives 1/4, 1/4 and 1/6. Equal scores are no preference.

    Yields ``text_score``, ``image_score``, ``group_score``, ``pairs``, and, only where there are
    any, ``incomplete`` (groups that have not two records, because one is bad: left out) and
    ``nonfinite`` (pairs with NaN or infinity in an embedding: wrong).

    ``predict`` has to give ``image/embedding`` and ``text/embedding``, both (B, D).

    Attributes:
      data: what is read; batches need ``image`` and ``text`` (B, T).
      group: name of an int (B,) entry of a batch that the two records of a pair have in common;
        empty pairs records 0 and 1 of the source, 2 and 3, ...
    """

    data: EvaluationData
    group: str = ""

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records, no pair, or a group of more than two records.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        name = self.data.source.info.name
        rows = embed(predict, ctx, self.data, (IMAGE, TEXT), (self.group,) if self.group else ())
        check_sizes(rows[IMAGE], rows[TEXT])
        if rows[TEXT].ndim != 2:
            raise ValueError(f"{TEXT} is {rows[TEXT].shape}: pairs need one caption per image")
        group = rows[self.group] if self.group else rows["_index"] // 2
        if group.ndim != 1:
            raise ValueError(f"{self.group!r} is {group.shape}, not one number per record")
        values, group_of, count = np.unique(group, return_inverse=True, return_counts=True)
        if large := values[count > 2].tolist():
            raise DataError(f"{name}: group {large[0]} has more than two records")
        order = np.argsort(group_of, kind="stable")
        order = order[count[group_of[order]] == 2].reshape(-1, 2)
        if not len(order):
            raise DataError(f"{name}: no two records belong together; set group")

        image, text = rows[IMAGE][order], rows[TEXT][order]
        usable = finite(image).all(1) & finite(text).all(1)
        # Score of caption c with image i of every pair, in float64: what is equal stays equal.
        score = np.einsum("pcd,pid->pci", *(x.astype(np.float64) for x in (text, image)))
        matched, crossed = score[:, (0, 1), (0, 1)], score[:, (1, 0), (0, 1)]
        text_right = usable & (matched > crossed).all(1)
        image_right = usable & (matched > crossed[:, ::-1]).all(1)
        yield "text_score", float(text_right.mean())
        yield "image_score", float(image_right.mean())
        yield "group_score", float((text_right & image_right).mean())
        yield "pairs", len(order)
        if incomplete := int((count < 2).sum()):
            yield "incomplete", incomplete
        if nonfinite := int((~usable).sum()):
            yield "nonfinite", nonfinite


@dataclasses.dataclass(frozen=True)
class CaptionChoice:
    """Every image chooses among its captions, of which the first is correct.

    The others differ in one attribute (colour, number, position, ...), the record's kind.

    Yields ``accuracy`` (an equal score is no choice), ``chance`` (the mean of one over the
    captions), ``images``, per kind that occurs ``accuracy/KIND``, and, only where there are any,
    ``without_choice`` (images with fewer than two captions, or without the right one: left out)
    and ``nonfinite`` (wrong).

    ``predict`` has to give ``image/embedding`` (B, D) and ``text/embedding`` (B, C, D).

    Attributes:
      data: what is read; batches need ``image`` and ``text`` (B, C, T), and may have
        ``text_mask`` (B, C).
      kind: name of an int (B,) entry of a batch, the kind's place in ``kinds``; empty for none.
      kinds: names of the kinds.
    """

    data: EvaluationData
    kind: str = ""
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.kind) != bool(self.kinds):
            raise ValueError(f"kind={self.kind!r}, kinds={self.kinds!r}: give both or neither")

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        """Reads ``data`` once.

        Raises:
          DataError: no records, none with a choice, or a kind out of range.
          ValueError: ``predict`` or the batches lack what is needed, or sizes do not fit.
        """
        name = self.data.source.info.name
        fields = (self.kind,) if self.kind else ()
        rows = embed(predict, ctx, self.data, (IMAGE, TEXT), fields, ("text_mask",))
        image, text = rows[IMAGE], rows[TEXT]
        check_sizes(image, text)
        if text.ndim != 3:
            raise ValueError(f"{TEXT} is {text.shape}: a choice needs several captions, (B, C, D)")
        present = rows.get("text_mask", np.ones(text.shape[:2], bool)).astype(bool)
        with_choice = present[:, 0] & (present.sum(1) > 1)
        if not with_choice.any():
            raise DataError(f"{name}: no record has a right caption and another one")
        score = np.einsum("nd,ncd->nc", image.astype(np.float64), text.astype(np.float64))
        usable = finite(image) & (finite(text) | ~present).all(1)
        rival = np.where(present, score, -np.inf)[:, 1:].max(1, initial=-np.inf)
        correct = (usable & (score[:, 0] > rival))[with_choice]
        yield "accuracy", float(correct.mean())
        yield "chance", float((1 / present[with_choice].sum(1)).mean())
        yield "images", int(with_choice.sum())
        if self.kind:
            kind = rows[self.kind]
            if kind.ndim != 1 or not ((kind >= 0) & (kind < len(self.kinds))).all():
                raise DataError(f"{name}: {self.kind!r} must lie in 0..{len(self.kinds) - 1}")
            for number, kind_name in enumerate(self.kinds):
                if (of_kind := kind[with_choice] == number).any():
                    yield f"accuracy/{kind_name}", float(correct[of_kind].mean())
        if without_choice := int((~with_choice).sum()):
            yield "without_choice", without_choice
        if nonfinite := int((with_choice & ~usable).sum()):
            yield "nonfinite", nonfinite
