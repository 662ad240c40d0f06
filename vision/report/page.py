"""The parts of a page: escaped elements, the shell, sections, tables, trees.

Everything that is not ``Markup`` is escaped, in text and in attributes; nothing on a page comes
from the network, and its content security policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

_TEMPLATES = Path(__file__).parent / "templates"
_VOID = ("img", "br", "hr", "meta", "input")

Content = Markup | str

# Letters: as many fit across a telephone; longer texts wrap.
NARROW, SHORT = 50, 18
# Columns: more of them stand closer.
MANY = 7


def tag(name: str, /, *content: Content, **attributes: Any) -> Markup:
    """An element. ``class_`` is the attribute ``class``, ``aria_label`` is ``aria-label``.

    Attributes that are None or False are left out; True gives one without a value.
    """
    written = Markup("").join(
        Markup(" {}").format(_attribute(key))
        if value is True
        else Markup(' {}="{}"').format(_attribute(key), value)
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    opening = Markup("<{}{}>").format(name, written)
    if name in _VOID:
        return opening
    return opening + join(content) + Markup("</{}>").format(name)


def _attribute(key: str) -> str:
    # SVG attributes such as viewBox keep their capitals.
    return key.rstrip("_").replace("_", "-")


def join(content: Iterable[Content]) -> Markup:
    return Markup("").join(escape(part) for part in content)


def data_block(value: Any) -> Markup:
    """JSON for the page's script. ``<`` is escaped, so that no text can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup('<script type="application/json">') + Markup(text) + Markup("</script>")


def page(
    title: str,
    subtitle: Content,
    body: Sequence[tuple[str, str, Content]],
    *,
    parts: Sequence[str] = ("page",),
    linked: Collection[str] | None = None,
) -> str:
    """A whole HTML document.

    Args:
      title: shown on top and in the tab.
      subtitle: one line under it.
      body: sections in order: (id for links, heading, content); an empty heading gives no
        heading and no link.
      linked: ids of the sections that are linked to on top; None for all.
      parts: names of the templates whose styles and scripts it needs, in order.
    """
    style, script = (
        "".join((_TEMPLATES / f"{part}.{kind}").read_text(encoding="utf-8") for part in parts)
        for kind in ("css", "js")
    )
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src {allowed(script)}"
    )
    links = [
        tag("a", heading, href=f"#{id_}")
        for id_, heading, _ in body
        if heading and (linked is None or id_ in linked)
    ]
    sections = [
        tag("section", tag("h2", heading) if heading else "", content, id=id_)
        for id_, heading, content in body
    ]
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            tag("style", Markup(style)),
        ]
    )
    top = tag(
        "header",
        tag("h1", title),
        tag("p", subtitle, class_="subtitle"),
        tag("nav", *links, aria_label="Sections") if links else "",
    )
    document = tag(
        "html",
        tag("head", head),
        tag("body", top, tag("main", *sections), tag("script", Markup(script))),
        lang="en",
    )
    return f"<!doctype html>\n{document}\n"


def allowed(script: str) -> str:
    """What a content security policy says for a script or style of the page itself to run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def inline_picture(encoded: bytes, kind: str = "png") -> str:
    """The address of a picture that stands in the page itself, from the bytes of its file."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def note(text: Content, *, warning: bool = False) -> Markup:
    """A remark in place: what is missing, what was left out, how to read something."""
    return tag("p", text, class_="note warning" if warning else "note")


def code(text: str) -> Markup:
    return tag("code", text)


def listing(text: str) -> Markup:
    """Lines of a program or file, which wrap; the keyboard scrolls what is too high."""
    return tag("pre", text, tabindex="0")


def disclosure(summary: Content, *content: Content, open_: bool = False) -> Markup:
    """Content behind a line that opens it; open on paper."""
    return tag("details", tag("summary", summary), *content, open=open_)


def headlines(items: Sequence[tuple[str, str, str]]) -> Markup:
    """Large numbers: (what, value, remark)."""
    return tag(
        "dl",
        *(
            tag(
                "div",
                tag("dt", what),
                tag("dd", value, class_="value"),
                tag("dd", remark, class_="remark") if remark else "",
            )
            for what, value, remark in items
        ),
        class_="headlines",
    )


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Content]],
    *,
    caption: Content = "",
    numeric: Sequence[int] = (),
    row_headers: bool = True,
) -> Markup:
    """A table; the script sorts its columns.

    Where it would not fit on a narrow screen, its rows become cards there, with the heading of a
    column above each value.

    Args:
      columns: headings.
      rows: cells, as many as there are columns.
      caption: says what the table shows.
      numeric: columns that hold numbers, aligned right.
      row_headers: whether the first cell of a row is its heading.
    """

    lengths = [max([_length(row[i]) for row in rows], default=0) for i in range(len(columns))]
    stacks = len(columns) > 1 and _narrowest(columns, lengths) > NARROW

    kinds = ["stacks"] * stacks + ["many"] * (len(columns) > MANY)

    def cell(i: int, content: Content) -> Markup:
        kind = "n" if i in numeric else None
        if i == 0 and row_headers:
            return tag("th", content, scope="row", class_=kind)
        if not stacks:
            return tag("td", content, class_=kind)
        longest = max(lengths[i], max(map(len, columns[i].split()), default=0))
        if longest > SHORT:
            span = "long" if longest > 2 * SHORT else "wide"
            kind = f"{kind} {span}" if kind else span
        return tag("td", content, class_=kind, data_label=columns[i])

    head = [
        tag("th", name, scope="col", class_="n" if i in numeric else None)
        for i, name in enumerate(columns)
    ]
    body = [tag("tr", *(cell(i, content) for i, content in enumerate(row))) for row in rows]
    return scrolling(
        tag(
            "table",
            tag("caption", caption) if caption else "",
            tag("thead", tag("tr", *head)),
            tag("tbody", *body),
            class_=" ".join(kinds) or None,
            data_sort=len(body) > 1,
        )
    )


def _length(content: Content) -> int:
    """About how many letters wide a cell is; pictures and bars as eight."""
    if not isinstance(content, Markup):
        return len(content)
    return len(content.striptags()) + (8 if "<svg" in content or "<img" in content else 0)


def _narrowest(columns: Sequence[str], lengths: Sequence[int]) -> int:
    """Letters across the narrowest form in which a table still reads well."""
    words = [max(map(len, heading.split()), default=0) for heading in columns]
    return sum(
        max(word, min(length, SHORT)) + 2 for word, length in zip(words, lengths, strict=True)
    )


def exact(text: Content, value: float | None) -> Markup:
    """``text`` for a number that a table sorts by; None and NaN come last."""
    known = value is not None and value == value
    return tag("data", text, value=repr(float(value)) if known else "")  # type: ignore[arg-type]


def share_bar(share: float) -> Markup:
    """A bar as long as ``share``, 0 to 1, of its column in a table."""
    box = tag("rect", x="0", y="0", width=f"{1000 * share:.1f}", height="10")
    return tag(
        "svg",
        tag("g", box, class_="bars"),
        viewBox="0 0 1000 10",
        preserveAspectRatio="none",
        style="width:clamp(4rem,20vw,16rem);height:.8em;display:block",
        aria_hidden="true",
    )


def scrolling(content: Markup, label: str = "Table") -> Markup:
    # Focusable, so that the keyboard can scroll it too.
    return tag("div", content, class_="scroll", tabindex="0", role="group", aria_label=label)


def config_tree(config: Mapping[str, Any], constructor_key: str = "_constructor") -> Markup:
    """A resolved config as nested lines that open and close.

    A mapping with ``constructor_key`` shows the last part of that import path; the whole path
    appears on hover.
    """
    path = config.get(constructor_key)
    root = tag("p", _constructor(str(path)), class_="root") if path else Markup("")
    return tag(
        "div",
        root,
        tag("button", "Open all", type="button", data_open_all="", aria_pressed="false"),
        *_branches(config, constructor_key, depth=0),
        class_="tree",
    )


def _branches(config: Mapping[str, Any], constructor_key: str, depth: int) -> list[Markup]:
    lines = []
    for key, value in config.items():
        if key == constructor_key:
            continue
        name = tag("span", key, class_="key")
        if isinstance(value, list | tuple) and any(isinstance(x, Mapping) for x in value):
            value = {f"[{i}]": item for i, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            path = value.get(constructor_key)
            kind = join([" ", _constructor(str(path))]) if path else ""
            inner = _branches(value, constructor_key, depth + 1)
            if inner:
                lines.append(disclosure(join([name, kind]), *inner, open_=depth < 1))
                continue
            shown: Content = _constructor(str(path))
        else:
            shown = tag("span", _plain(value), class_="value")
        lines.append(tag("p", name, " ", shown, class_="leaf"))
    return lines


def _constructor(path: str) -> Markup:
    return tag("abbr", path.replace(":", ".").rsplit(".", 1)[-1], title=path)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value)  # as in the config file
    return json.dumps(value, ensure_ascii=False, default=str)
