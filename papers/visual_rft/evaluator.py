"""Mean rewards of the greedy answers of a captioner on test data (Visual-RFT)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from papers.visual_rft.box_answers import BoxAnswers
from vision.data.pipeline import EvalData
from vision.evaluate.evaluator import EvalContext, Predict
from vision.evaluate.figures import Figure
from vision.evaluators.image_text.embeddings import embed


@dataclasses.dataclass(frozen=True)
class AnswerRewards:
    """An evaluator: mean rewards of the greedy answers, and ``examples``.

    Attributes:
      data: test examples, with the language as an op.
      language: format and rewards of the answers.
    """

    data: EvalData
    language: BoxAnswers

    def run(self, predict: Predict, ctx: EvalContext) -> Iterator[tuple[str, float | Figure]]:
        rows = embed(predict, ctx, self.data, ("ids",), ("label", "boxes", "valid"))
        label, boxes, valid = (jnp.asarray(rows[name]) for name in ("label", "boxes", "valid"))
        ids = jnp.asarray(rows["ids"], jnp.int32)
        rewards = self.language.rewards(ids, label, boxes, valid)
        for name, x in rewards.items():
            yield name, float(np.mean(x))
        yield "examples", len(rows["ids"])
