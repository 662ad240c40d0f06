"""docs/papers.md: the papers by their first tag, with what was claimed and what came out."""

from __future__ import annotations

import collections
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from vision.papers.discover import Entry

DOCUMENT = Path("docs") / "papers.md"
WIDTH = 100  # of a line
MEASURED = 3  # rows of a paper; its result.json has all
LINKED = ("read me", "config", "claim")  # beside the folder
HEAD = """# Papers

A folder per paper. A claim says what its method does beside a baseline on equal terms, on data
that ships with the repository; numbers are means over seeds, ± their sample standard deviation. A
claim that did not hold stays here: it says what was seen on this small data, which is not what the
paper saw on its own; the claim's file says more. `python -m vision.papers show <slug>` prints
every measurement, and `python -m vision.papers gallery --out=papers.html` writes the page with
pictures, search and filters, and this document.
"""


def render(entries: Sequence[Entry], base: Path) -> str:
    """The document.

    Args:
      entries: of all papers.
      base: folder of the document, from which links to files are relative.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.paper.tags[0], []).append(entry)
    counts = collections.Counter(entry.outcome for entry in entries)
    said = f"{len(entries)} papers: {counts['held']} claims held, {counts['not held']} did not"
    said += f", {counts['none']} without a result." if counts["none"] else "."
    parts = [HEAD, said + "\n", _index(groups)]
    for tag, members in sorted(groups.items()):
        parts.append(f"## {tag}\n")
        parts += [_entry(entry, base) for entry in members]
    return "\n".join(parts)


def _index(groups: dict[str, list[Entry]]) -> str:
    """A table of the groups."""
    rows = [
        f"| [{tag}](#{tag}) | {' '.join(f'`{entry.slug}`' for entry in members)} |"
        for tag, members in sorted(groups.items())
    ]
    return "\n".join(["| Tag | Papers |", "|---|---|", *rows]) + "\n"


def _entry(entry: Entry, base: Path) -> str:
    """A heading that leads to the folder, the claim, and a table of what was measured."""
    paper, result, files = entry.paper, entry.result, entry.files
    links = [f"[{word}]({_link(files[word], base)})" for word in LINKED if word in files]
    facts = [f"`{entry.slug}`", f"**{entry.outcome}**" if result else "no result", *links]
    heading = f"### [{_text(paper.title)}]({_link(entry.folder, base)}), {paper.year}"
    lines = [heading, "", " · ".join(facts), "", *_wrap(entry.sentence)]
    if result is not None:
        lines += ["", "| Measured | Method | Baseline |", "|---|---|---|"]
        for each in result.measured[:MEASURED]:
            other = _text(str(each.baseline)) if each.baseline else "-"
            lines.append(f"| {_text(each.what)} | {_text(str(each.method))} | {other} |")
        if len(result.measured) > MEASURED:
            link = f"[result.json]({_link(files['result'], base)})"
            lines += ["", f"{len(result.measured) - MEASURED} more in {link}."]
    return "\n".join(lines) + "\n"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(_text(text), WIDTH, break_long_words=False, break_on_hyphens=False)


def _link(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base.resolve())).as_posix()


def _text(text: str) -> str:
    """Without what Markdown would read as the end of a cell, or as markup."""
    for mark in ("|", "<", "*", "_", "`"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
