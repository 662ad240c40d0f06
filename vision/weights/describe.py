"""Prints the preprocessing and the tokenizer that belong to weights, as lines for a config.

    python -m vision.weights.describe SOURCE

SOURCE is one of ``InitFrom``, such as ``timm:vit_base_patch16_224.augreg_in1k``.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from vision.config.cli import UsageError
from vision.config.errors import UserError
from vision.weights.cards import read
from vision.weights.mapping import WeightsError
from vision.weights.text_cards import read_tokenizer


def as_spec(value: Any, package: str = "") -> str:
    """A frozen dataclass as a line of a config: what differs from the defaults."""
    shown = [
        f"{f.name}={as_spec(x) if dataclasses.is_dataclass(x) else repr(x)}"
        for f in dataclasses.fields(value)
        if (x := getattr(value, f.name)) != f.default
    ]
    return f"spec({', '.join([package + type(value).__name__, *shown])})"


def main(arguments: list[str]) -> int:
    """Prints the ops that belong to weights; returns the exit status."""
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise UsageError("give one source, such as timm:resnet50.a1_in1k or open_clip:<folder>")
        (source,) = arguments
        card_and_path = read(source)
        if card_and_path is None:
            raise WeightsError(f"{source}: there is no card beside the weights")
        card, path = card_and_path
        tokenizer = read_tokenizer(source)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"# {path}\n{as_spec(card)}\n\n# which is")
    for op in card.evaluation():
        print(f"{as_spec(op, 'ops.')},")
    if tokenizer is not None:
        print(f"\n# captions\nspec(ops.Tokenize, tokenizer={as_spec(tokenizer)}),")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
