"""Prints tower, preprocessing and tokenizer that belong to weights, as lines for a config.

    python -m vision.weights.describe SOURCE

SOURCE is one of ``InitFrom``, such as ``timm:vit_base_patch16_224.augreg_in1k``.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from vision.config.cli import help_first

if __name__ == "__main__":
    help_first(__doc__)

from vision.config.cli import UsageError
from vision.config.errors import UserError
from vision.config.hints import CONSTRUCTOR, is_spec
from vision.weights.cards import read
from vision.weights.mapping import WeightsError
from vision.weights.text_cards import read_tokenizer
from vision.weights.tower_cards import read_tower


def as_spec(value: Any, package: str = "") -> str:
    """A frozen dataclass as a line of a config: what differs from the defaults."""
    shown = [
        f"{f.name}={as_spec(x) if dataclasses.is_dataclass(x) else repr(x)}"
        for f in dataclasses.fields(value)
        if (x := getattr(value, f.name)) != f.default
    ]
    return f"spec({', '.join([package + type(value).__name__, *shown])})"


def tower_lines(config: Any, indent: str = "") -> list[str]:
    """A tower's config as Python, every field on a line of its own, defaults included."""
    deeper = indent + "    "
    lines = ["spec(", f"{deeper}{config[CONSTRUCTOR].rpartition('.')[2]},"]
    for key, value in sorted(config.items()):
        if is_spec(value):
            first, *more = tower_lines(value, deeper)
            lines += [f"{deeper}{key}={first}", *more[:-1], f"{more[-1]},"]
        elif key != CONSTRUCTOR:
            lines.append(f"{deeper}{key}={value!r},")
    return [*lines, f"{indent})"]


def main(arguments: list[str]) -> int:
    """Prints tower, ops and tokenizer that belong to weights; returns the exit status.

    Where no tower here is the card's, its place has the reason.
    """
    try:
        if len(arguments) != 1 or arguments[0].startswith("-"):
            raise UsageError("give one source, such as timm:resnet50.a1_in1k or open_clip:<folder>")
        (source,) = arguments
        tower = _tower(source)
        card_and_path = read(source)
        if card_and_path is None:
            raise WeightsError(f"{source}: there is no card beside the weights")
        card, path = card_and_path
        tokenizer = read_tokenizer(source)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{tower}\n\n# {path}\n{as_spec(card)}\n\n# which is")
    for op in card.evaluation():
        print(f"{as_spec(op, 'ops.')},")
    if tokenizer is not None:
        print(f"\n# captions\nspec(ops.Tokenize, tokenizer={as_spec(tokenizer)}),")
    return 0


def _tower(source: str) -> str:
    try:
        card = read_tower(source)
    except WeightsError as error:
        return f"# no tower: {error}"
    if card is None:
        return "# no tower: no file beside the weights says which it is"
    return "\n".join([f"# {card.path}", *tower_lines(card.config)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
