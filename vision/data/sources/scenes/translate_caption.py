"""An op that translates the captions of scenes into one of several invented languages."""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.data.ops.base import Example, noted
from vision.data.source import DataError
from vision.data.sources.scenes.languages import translate


@dataclasses.dataclass(frozen=True)
class TranslateCaption:
    """Translates a scene's caption into one of several languages, drawn uniformly per example.

    ``_draws`` notes the ``language``. A caption with a word outside the grammar raises DataError.

    Attributes:
      feature: the caption, one text.
      languages: numbers of languages as in ``scenes.translate``: 0 is English.
    """

    feature: str = "caption"
    languages: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        if not self.languages or min(self.languages) < 0:
            raise ValueError(f"languages={self.languages}: numbers from 0 on, at least one")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(
                f"TranslateCaption: no feature {self.feature!r} among {names}; "
                "set TranslateCaption.feature"
            )
        language = self.languages[int(rng.integers(len(self.languages)))]
        try:
            translated = translate(str(example[self.feature]), language)
        except ValueError as error:
            raise DataError(f"{self.feature!r}: {error}") from error
        return noted({**example, self.feature: translated}, "TranslateCaption", language=language)
