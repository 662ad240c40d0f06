"""The HTML of the retrieval page; its script fills it from the server."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vision.blocks.similarity import LateInteraction
from vision.evaluators.image_text.embeddings import spread
from vision.report.live_page import live_page, template
from vision.report.page import join, note, tag
from vision.report.retrieval_index import Index
from vision.report.retrieval_server import LIMITS

_EXAMPLES = 3


def render(index: Index, name: str, notes: Sequence[str] = ()) -> tuple[str, str]:
    """The page and the content security policy that it needs.

    Args:
      index: what is searched.
      name: of the run.
      notes: sentences to show on top.
    """
    title = f"Retrieval with {name}"
    source = index.data.source.info.name
    count = f"{len(index):,} images and {len(index.ids):,} captions of {source}"
    about = f"{count} · step {index.run.step:,} · {_kind(index)}"
    content = [
        *(note(each, warning=True) for each in notes),
        _form(index),
        tag("p", "", id="error", class_="note warning", role="alert", hidden=True),
        tag("div", "", id="busy", hidden=True),
        tag("p", "", id="status", class_="status", role="status"),
        _words(index),
        _results(),
    ]
    return live_page(
        title,
        about,
        content,
        style=template("retrieval.css"),
        script=template("retrieval.js"),
        shared={"limits": LIMITS, "grid": index.grid, "captions": len(index.ids)},
        after=_dialog() if index.grid else "",
    )


def _kind(index: Index) -> str:
    if isinstance(index.similarity, LateInteraction):
        return "late interaction of patches and words"
    return "one embedding per image and sentence"


def _form(index: Index) -> Markup:
    short = sorted(dict.fromkeys(index.captions), key=len)
    sentences = [short[i] for i in spread(_EXAMPLES, -(-len(short) // 4))] if short else []
    examples = [tag("button", text, type="button", class_="example") for text in sentences]
    sizes = [tag("option", str(k), value=k, selected=k == 24) for k in (12, 24, 48, LIMITS["k"])]
    return tag(
        "form",
        tag("label", "Sentence", for_="text"),
        tag(
            "div",
            tag(
                "input",
                id="text",
                type="search",
                name="text",
                maxlength=LIMITS["sentence"],
                autocomplete="off",
                autofocus=True,
                placeholder="what should be in the image?",
            ),
            tag("button", "Search", type="submit", class_="primary"),
            class_="ask",
        ),
        tag("p", "Try ", *examples, class_="examples") if examples else "",
        tag(
            "div",
            tag(
                "span",
                tag("label", "Use a picture file", for_="file", class_="button"),
                tag("input", id="file", type="file", accept="image/jpeg,image/png"),
                class_="upload",
            ),
            tag("span", "JPEG or PNG, or click any image below", class_="hint", id="hint"),
            tag(
                "span",
                tag("img", id="picked-image", alt="The picture that is searched with"),
                tag("span", "", id="picked-name"),
                tag("button", "Remove", type="button", id="remove"),
                id="picked",
                hidden=True,
            ),
            tag("label", "Results ", tag("select", *sizes, id="k"), class_="k"),
            class_="options",
        ),
        class_="card",
        id="form",
        role="search",
    )


def _words(index: Index) -> Markup:
    if index.grid is None:
        return note(
            "This model compares one vector per image with one per sentence: it has no view of "
            "which patch matched which word. Runs with similarity=LateInteraction have."
        )
    words = tag(
        "div",
        tag("h2", "Words", id="words-title"),
        tag("div", class_="words", role="group", aria_labelledby="words-title"),
        id="words",
        hidden=True,
    )
    how = (
        "Point at a word, or press it, to see where it matched on every image: its three best "
        "patches are framed, and the brighter a patch, the higher its cosine."
    )
    return words + tag("p", how, class_="note", id="words-note", hidden=True)


def _results() -> Markup:
    return join(
        [
            tag(
                "section",
                tag("h2", "Captions"),
                tag("p", "", class_="note"),
                tag("ol", class_="captions"),
                tag("button", "", type="button", id="all", hidden=True),
                id="captions",
                hidden=True,
            ),
            tag(
                "section",
                tag("h2", "Gallery"),
                tag("p", "", class_="note"),
                tag("ol", class_="hits"),
                tag("button", "Show more", type="button", id="more", hidden=True),
                id="images",
            ),
        ]
    )


def _dialog() -> Markup:
    return tag(
        "dialog",
        tag(
            "div",
            tag("h2", "Patches and words", id="match-title"),
            tag("button", "Close", type="button", id="close"),
            class_="top",
        ),
        tag("p", "", id="match-text", class_="note"),
        tag("div", class_="words", role="group", aria_label="Words"),
        tag(
            "div",
            tag("img", alt=""),
            id="match-picture",
            class_="picture",
            tabindex="0",
            role="group",
            aria_label="Patches of the picture: arrow keys move from one to the next",
        ),
        tag("p", "", class_="readout", role="status"),
        id="match",
        aria_labelledby="match-title",
    )
