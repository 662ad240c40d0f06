"""One dual encoder for two languages, contrasted within groups of a batch.

Guo et al., M2-Encoder: Advancing Bilingual Image-Text Understanding by Large-scale Efficient
Pretraining, 2024. Headline: 88.5 % on ImageNet and 80.7 % on ImageNet-CN, zero-shot, of a model of
10 billion parameters, trained 60 % faster than with a gather over all devices.

Every batch mixes captions of both languages (``Speak``). With the batch cut into m groups
G_1 .. G_m of rows, s_ij the scaled similarity of image i and text j, and the usual loss both ways,

    L = -1/m sum_g mean_{i in G_g} [log softmax_{j in G_g}(s_ij) + log softmax_{j in G_g}(s_ji)] / 2

so that embeddings travel within a group's devices only: ``Contrast(groups=m)`` of
``vision.objectives.contrast``. m = 1 is the loss over the whole batch. ``accumulate`` of the
experiment is the paper's second pass with cached gradients. Groups are as random as the sampler.

Not here: the paper's tower with one feed-forward network per modality, and its masked modelling.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vision.data.ops.base import Example, noted
from vision.data.source import DataError
from vision.data.sources.scenes import translate


@dataclasses.dataclass(frozen=True)
class Speak:
    """Says a scene's caption in one of several languages, drawn evenly for every example.

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
            raise ValueError(f"Speak: no feature {self.feature!r} among {names}; set Speak.feature")
        language = self.languages[int(rng.integers(len(self.languages)))]
        try:
            said = translate(str(example[self.feature]), language)
        except ValueError as error:
            raise DataError(f"{self.feature!r}: {error}") from error
        return noted({**example, self.feature: said}, "Speak", language=language)
