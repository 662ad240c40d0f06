"""Blocks of the documents, and the marks of those that no test can run.

A comment before a block says so, with the reason; one with a text is about the lines that have it::

    <!-- not run: needs SLURM -->
    <!-- not run, timm: needs the hub -->
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    page.stem: page
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
_BLOCK = re.compile(
    r"((?:^<!-- not run[^\n]*-->\n\s*)*)^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"<!-- not run(?:, ([^:]+))?: ([^\n]+) -->")
_HERE = re.compile(r"^python - <<'EOF'\n(.*?)^EOF$\n?", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
      page: its name, without the ending.
      language: ``bash`` or ``python``.
      text: of it.
      marks: text of lines that are not run, empty for the whole block, to the reason.
    """

    page: str
    language: str
    text: str
    marks: dict[str, str]

    def lines(self) -> list[str]:
        """Commands that are to be run: continued lines joined, comments left out."""
        if "" in self.marks:
            return []
        text = _HERE.sub("", self.text).replace("\\\n", " ")
        lines = [" ".join(re.sub(r"\s#.*", "", line).split()) for line in text.splitlines()]
        return [x for x in lines if x and x[0] != "#" and not any(m in x for m in self.marks)]

    def scripts(self) -> list[str]:
        """Programs that a block hands to ``python -``."""
        return [] if "" in self.marks else _HERE.findall(self.text)


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for match in _BLOCK.finditer(PAGES[page].read_text(encoding="utf-8")):
        marks = {text or "": reason for text, reason in _MARK.findall(match[1])}
        yield Block(page, match[2], match[3], marks)
