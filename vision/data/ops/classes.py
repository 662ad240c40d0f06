"""Sentences about the class of a labelled image."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from vision.config.ranges import Fraction, checked
from vision.data.ops.base import Example, noted
from vision.data.prompts import PLAIN, check_names, check_templates, fill, read_json
from vision.data.source import DataError


@dataclasses.dataclass(frozen=True)
@checked
class LabelToCaption:
    """Makes a caption of a label: a prompt with the class name, then perhaps a description.

    The label stays. ``_draws`` notes which template it was (``template``) and which description
    (``description``, -1 for none). A label that is no class raises DataError.

    Attributes:
      names: of the classes, in label order.
      templates: sentences with ``{}`` where the name belongs; one is drawn.
      descriptions: for every class sentences that describe it, possibly none; one is drawn.
      file: JSON instead of names and descriptions, ``{"name": ["sentence", ...], ...}``, classes
        in label order.
      described: probability that a text has a description, where the class has any.
      feature: the label, one integer.
      output: name of the text.
    """

    names: tuple[str, ...] = ()
    templates: tuple[str, ...] = PLAIN
    descriptions: tuple[tuple[str, ...], ...] = ()
    file: str = ""
    described: Fraction = 1.0
    feature: str = "label"
    output: str = "caption"

    def __post_init__(self) -> None:
        check_templates(self.templates)
        if bool(self.names) == bool(self.file):
            raise ValueError("give names of classes, or a file with them")
        if self.descriptions and len(self.descriptions) != len(self.names):
            raise ValueError(f"{len(self.descriptions)} descriptions of {len(self.names)} names")
        if self.names:
            check_names(self.names, "names")

    @functools.cached_property
    def classes(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Name and descriptions of every class.

        Raises:
          DataError: the file cannot be read, or does not map names to lists of sentences.
        """
        if self.names:
            descriptions = self.descriptions or ((),) * len(self.names)
            return tuple(zip(self.names, descriptions, strict=True))
        classes = read_json(self.file)
        if not isinstance(classes, dict) or not classes:
            raise DataError(f"{self.file}: must map class names to lists of sentences")
        for name, sentences in classes.items():
            texts = isinstance(sentences, list) and all(isinstance(s, str) for s in sentences)
            if not texts or not all(sentence.strip() for sentence in sentences):
                raise DataError(f"{self.file}: {name!r} needs a list of sentences, possibly empty")
        check_names(tuple(classes), self.file)
        return tuple((name, tuple(sentences)) for name, sentences in classes.items())

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """For every class all captions that can be drawn, with descriptions where it has any."""
        return tuple(
            tuple(
                " ".join(filter(None, (fill(template, name), sentence)))
                for template in self.templates
                for sentence in sentences or ("",)
            )
            for name, sentences in self.classes
        )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if self.feature not in example:
            names = ", ".join(sorted(k for k in example if not k.startswith("_"))) or "none"
            raise ValueError(
                f"LabelToCaption: no feature {self.feature!r} among {names}; "
                "set LabelToCaption.feature"
            )
        label = int(example[self.feature])
        if not 0 <= label < len(self.classes):
            raise DataError(
                f"{self.feature!r} is {label}, not a class in 0..{len(self.classes) - 1}"
            )
        name, sentences = self.classes[label]
        template = int(rng.integers(len(self.templates)))
        text, description = fill(self.templates[template], name), -1
        if sentences and rng.random() < self.described:
            description = int(rng.integers(len(sentences)))
            text = f"{text} {sentences[description]}"
        out = {**example, self.output: text}
        return noted(out, "LabelToCaption", template=template, description=description)
