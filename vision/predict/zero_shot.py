"""Class names as the classifier of a dual encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vision.blocks.contrast import Sigmoid, Softmax
from vision.config.schema import ConfigError
from vision.config.specs import build
from vision.data.ops.text import Tokenize
from vision.data.prompts import check_names
from vision.data.tokenize import Tokenizer
from vision.evaluate.evaluator import Predict, context
from vision.evaluators.image_text.embeddings import check_sizes
from vision.evaluators.image_text.zero_shot import text_bank
from vision.run.restore import Run
from vision.train.objective import Variables

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


@dataclasses.dataclass(frozen=True, eq=False)
class TextSide:
    """What a dual encoder has beside its image tower.

    Attributes:
      objective: what it was trained with, whose ``criterion`` has the temperature.
      tokenizer: gives that of its text tower.
      source: of the weights, for messages.
    """

    objective: Any
    tokenizer: Callable[[], Tokenizer]
    source: str

    def classifier(
        self,
        forward: Predict,
        variables: Variables,
        mesh: jax.sharding.Mesh,
        names: Sequence[str],
        templates: Sequence[str],
    ) -> TextClassifier:
        """The classifier of these names, by text tower, tokenizer and loss.

        Args:
          forward: gives ``text/embedding`` of batches of tokens.
          variables: of the model.
          mesh: that they are on.
          names: of the classes.
          templates: sentences with ``{}`` where the name belongs.

        Raises:
          DataError: names or templates that cannot be used.
          ConfigError: no tokenizer, or a loss that gives no probabilities.
        """
        check_names(names, "classes")
        criterion = getattr(self.objective, "criterion", None)
        if not isinstance(criterion, Softmax | Sigmoid):
            raise ConfigError(
                f"{self.source}: its loss, {type(criterion or self.objective).__name__}, learned "
                "no temperature, so scores of image and text are no probabilities: ask for "
                "embeddings only"
            )
        scale, bias = criterion.coefficients(variables.params.get(_LOSS, {}))
        ctx = context(variables, 0, mesh)
        with jax.set_mesh(mesh):
            bank = text_bank(forward, ctx, self.tokenizer(), templates, names, _TEXTS)
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
