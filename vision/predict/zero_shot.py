"""Class names as the classifier of a dual encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vision.blocks.contrast import Sigmoid, Softmax
from vision.config.schema import ConfigError
from vision.config.specs import build
from vision.data.ops.text import Tokenize
from vision.data.prompts import check_names
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import context
from vision.evaluators.image_text.embeddings import check_sizes
from vision.evaluators.image_text.zero_shot import text_bank
from vision.run.restore import Run

# Prompts that are embedded at a time.
_TEXTS = 256
# What objectives call the network with temperature and bias.
_LOSS = "contrast"


@dataclasses.dataclass(frozen=True, eq=False)
class TextClassifier:
    """The embeddings of K class names, and how scores become probabilities.

    Attributes:
      bank: unit vectors float32 (K, D).
      scale: inverse temperature.
      bias: added to scaled scores.
      independent: a sigmoid of each class, not a softmax over all.
    """

    bank: np.ndarray
    scale: float
    bias: float
    independent: bool

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """float32 (N, K) of unit vectors of images (N, D); NaN for those that are not finite."""
        check_sizes(embeddings, self.bank)
        scores = embeddings.astype(np.float64) @ self.bank.T.astype(np.float64)
        logits = self.scale * scores + self.bias
        if self.independent:
            return (1 / (1 + np.exp(-logits))).astype(np.float32)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return (odds / odds.sum(1, keepdims=True)).astype(np.float32)


def text_classifier(
    run: Run, names: Sequence[str], templates: Sequence[str], folder: str
) -> TextClassifier:
    """The classifier of these names, by the run's text tower, tokenizer and loss.

    Args:
      run: of a dual encoder.
      names: of the classes.
      templates: sentences with ``{}`` where the name belongs.
      folder: of the run, for messages.

    Raises:
      DataError: names or templates that cannot be used.
      ConfigError: no tokenizer in the config, or a loss that gives no probabilities.
    """
    check_names(names, "classes")
    objective = run.experiment.objective
    criterion = getattr(objective, "criterion", None)
    if not isinstance(criterion, Softmax | Sigmoid):
        raise ConfigError(
            f"{folder}: its loss, {type(criterion or objective).__name__}, learned no temperature, "
            "so scores of image and text are no probabilities: ask for embeddings only"
        )
    scale, bias = criterion.coefficients(run.variables.params.get(_LOSS, {}))
    ctx = context(run.variables, run.step, run.mesh)
    with jax.set_mesh(run.mesh):
        bank = text_bank(run.predict, ctx, tokenizer_of(run, folder), templates, names, _TEXTS)
    return TextClassifier(bank, float(scale), float(bias), isinstance(criterion, Sigmoid))


def tokenizer_of(run: Run, folder: str) -> Tokenizer:
    """The tokenizer of a run: that of its evaluators, else of its training data.

    Raises:
      ConfigError: there is none.
    """
    for evaluator in (run.experiment.evaluators or {}).values():
        ops = getattr(getattr(evaluator, "data", None), "ops", ())
        for owner in (evaluator, *(op for op in ops if isinstance(op, Tokenize))):
            if (tokenizer := getattr(owner, "tokenizer", None)) is not None:
                return tokenizer
    config: Any = run.config
    for op in config.data.get("ops", ()):
        if "tokenizer" in op:
            return build(op.tokenizer)
    raise ConfigError(
        f"{folder}: its config names no tokenizer, by which class names would become tokens; add a "
        "ZeroShot evaluator to it"
    )
