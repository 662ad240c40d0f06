"""The shell of pages whose scripts ask a server of this library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vision.report.page import Content, allowed, data_block, join, note, tag

_TEMPLATES = Path(__file__).parent / "templates"


def live_page(
    title: str,
    about: Content,
    content: Sequence[Content],
    *,
    style: str,
    script: str,
    shared: Any,
    images: str = "'self' blob:",
    after: Content = "",
) -> tuple[str, str]:
    """A whole HTML document and the content security policy that it needs.

    Its script is answered by its own server only, and nothing comes from elsewhere.

    Args:
      title: shown on top and in the tab.
      about: one line under it.
      content: of the page.
      style: CSS beside that of all pages.
      script: JavaScript.
      shared: JSON for the script, in the page's one ``application/json`` element.
      images: sources of pictures, as the policy writes them.
      after: what stands beside the content, such as dialogs.
    """
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8") + style
    policy = (
        f"default-src 'none'; style-src {allowed(style)}; script-src {allowed(script)}; "
        f"img-src {images}; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            tag("style", Markup(style)),
        ]
    )
    body = join(
        [
            tag("header", tag("h1", title), tag("p", about, class_="subtitle")),
            tag(
                "main",
                tag("noscript", note("This page needs JavaScript.", warning=True)),
                *content,
            ),
            after,
            data_block(shared),
            tag("script", Markup(script)),
        ]
    )
    document = tag("html", tag("head", head), tag("body", body), lang="en")
    return f"<!doctype html>\n{document}\n", policy


def template(name: str) -> str:
    """The text of a file of ``templates``."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")
