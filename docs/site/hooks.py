"""What MkDocs has to be told about documents that are also read in the repository.

They link to code, tests and results beside ``docs``, which a site does not have: such a link
becomes its text and the path, and one to a file that is not there is an error. CONTRIBUTING.md
becomes a page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError  # pyright: ignore[reportMissingImports]
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]
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
