"""docs/papers.md: the papers by their first tag, with what was claimed and what came out."""

from __future__ import annotations

import collections
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from vision.papers.discover import Entry
from vision.papers.outcome import HELD, REFUTED, UNDECIDED

DOCUMENT = Path("docs") / "papers.md"
WIDTH = 100  # of a line
MEASURED = 3  # rows of a paper; its result.json has all
LINKED = ("read me", "config", "claim")  # beside the folder
MARKS = {HELD: "\U0001f7e2", REFUTED: "\U0001f534", UNDECIDED: "\U0001f7e1"}  # coloured circles
HEAD = """# Papers

A folder per paper. A claim says what its method does beside a baseline on equal terms, on data
that ships with the repository; numbers are means over seeds, ± their sample standard deviation.

| Outcome | Where |
|---|---|
| \U0001f7e2 held | the 95 % interval of the paired differences lies above the margin |
| \U0001f534 refuted | the interval lies below zero; this small data is not the paper's own |
| \U0001f7e1 undecided | anything else, or a gate that failed, which stands beside it |

The margin and the rule it comes from stand in the claim's file, committed before the first run.
Gates, for every seed: five pairs; the baseline at least twice chance; the baseline and the margin
within 97 % of the scale; the paper's premises; a negative control that fails the same comparison.
`python -m vision.papers show <slug>` prints every measurement, `python -m vision.papers list
--outcome=undecided` lists, and `python -m vision.papers gallery --out=papers.html` writes the page
with pictures, dots of seeds, search and filters, and this document.
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
    said = f"{len(entries)} papers: {counts[HELD]} claims held, {counts[REFUTED]} refuted, "
    said += f"{counts[UNDECIDED]} undecided"
    said += f", {counts['none']} without a result" if counts["none"] else ""
    seconds = sum(entry.result.seconds for entry in entries if entry.result)
    said += f". All claims together take {seconds / 60:.0f} minutes of processor time."
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
    said = f"{MARKS[result.outcome]} **{result.outcome}**" if result else "no result"
    facts = [f"`{entry.slug}`", said, *links]
    heading = f"### [{_text(paper.title)}]({_link(entry.folder, base)}), {paper.year}"
    lines = [heading, "", " · ".join(facts), "", *_wrap(entry.sentence)]
    if result is not None:
        lines += ["", *(line for each in result.reasons for line in _wrap(f"- {each}"))]
        lines += ["", "| Measured | Method | Baseline |", "|---|---|---|"]
        for each in result.all_measured[:MEASURED]:
            other = _text(str(each.baseline)) if each.baseline else "-"
            lines.append(f"| {_text(each.what)} | {_text(str(each.method))} | {other} |")
        if len(result.all_measured) > MEASURED:
            link = f"[result.json]({_link(files['result'], base)})"
            lines += ["", f"{len(result.all_measured) - MEASURED} more in {link}."]
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
