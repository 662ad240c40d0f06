"""An op that translates the caption of a scene."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.config.ranges import Positive, checked
from vision.data.ops.base import Example
from vision.data.source import DataError
from vision.data.sources.scenes import translate


@dataclasses.dataclass(frozen=True)
@checked
class Translated:
    """Adds a scene's caption in another language.

    A caption with a word outside the grammar raises DataError.

    Attributes:
      language: number of the language, as in ``scenes.translate``, where 0 is English.
      feature: name of the English caption, one text.
      output: name of the translation.
    """

    language: Positive[int]
    feature: str = "caption"
    output: str = "caption_translated"

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(f"Translated: no feature {self.feature!r} among {names}")
        try:
            return {**example, self.output: translate(str(example[self.feature]), self.language)}
        except ValueError as error:
            raise DataError(f"{self.feature!r}: {error}") from error
