"""What MkDocs has to be told about documents that are also read in the repository.

They link to code, tests and results beside ``docs``, which a site does not have: such a link
becomes its text and the path, and one to a file that is not there is an error. CONTRIBUTING.md
becomes a page. Tables that are too wide for a telephone get what extra.css makes cards of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError  # pyright: ignore[reportMissingImports]
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
_LETTERS = 44  # that fit across a telephone, beside the cells' own room
_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_CELL = re.compile(r"<t[hd]([^>]*)>(.*?)</t[hd]>", re.DOTALL)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((\.\./[^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\]\((?!https?:|#|\w+\.md)([^)]+)\)", r"](../\1)", text)
    files.append(File.generated(config, "contributing.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    def replaced(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path, _, anchor = target.removeprefix("../").partition("#")
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_uri}: {target} is not there")
        if path == "CONTRIBUTING.md":
            return f"[{text}](contributing.md{'#' + anchor if anchor else ''})"
        plain = text.strip("`")
        return f"`{path}`" if plain in path else f"{text} (`{path}`)"

    return _LINK.sub(replaced, markdown)


def on_page_content(html: str, **_: Any) -> str:
    return _TABLE.sub(lambda match: _stacked(match[0]), html)


def _stacked(table: str) -> str:
    """A table whose longest words do not fit side by side, with its headings at every cell."""
    rows = [_CELL.findall(row) for row in table.split("<tr>")[1:]]
    texts = [[re.sub("<[^>]+>", "", cell) for _, cell in row] for row in rows]
    columns = zip(*(row for row in texts if len(row) == len(texts[0])), strict=True)
    # A text wraps, but not below the length of a longer word.
    if sum(min(max(map(len, column)), 16) + 2 for column in columns) <= _LETTERS:
        return table
    head, *body = table.split("<tr>")[1:]
    labelled = []
    for row in body:
        names = iter(text.replace('"', "&quot;") for text in texts[0])
        labelled.append(re.sub("<td", lambda _, n=names: f'<td data-label="{next(n, "")}"', row))
    return f"<table data-stacks>{'<tr>'.join([table.split('<tr>')[0][7:], head, *labelled])}"
