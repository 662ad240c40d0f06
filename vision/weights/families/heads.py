"""The classifier head of a tower, or the reason why it is not read."""

from __future__ import annotations

import re

from vision.weights.families.units import layer
from vision.weights.mapping import LINEAR, Form, Names


def head(num_classes: int | None, theirs: str, form: Form = LINEAR) -> Names:
    """Kernel and bias of ``head``; a tower without classes leaves ``theirs`` out."""
    if num_classes:
        return Names(layer("head", theirs, form))
    return Names((), {rf"{re.escape(theirs)}\..*": "the classifier head; this tower has none"})
