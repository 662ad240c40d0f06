"""The page of papers: a card each, with picture, sentence, outcome and links to its files."""

from __future__ import annotations

import collections
import io
import os
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from vision.papers.chart import chart, differences
from vision.papers.discover import OUTCOMES, Entry, PaperError, searchable
from vision.papers.outcome import HELD, REFUTED, UNDECIDED
from vision.report.page import Content, disclosure, headlines, inline_picture, join, note, page, tag

PICTURE, READ_ME = "picture.png", "README.md"
MAX_PICTURE_PX = 880  # twice the width of a card
OUTCOME_TITLES = {
    **{each: each for each in OUTCOMES},
    "none": "no result",
}


def render(entries: Sequence[Entry], base: Path) -> str:
    """The page.

    Args:
      entries: in the order of the cards.
      base: folder of the page, from which links to files are relative.

    Raises:
      PaperError: a picture cannot be read.
    """
    counts = collections.Counter(entry.outcome for entry in entries)
    numbers = [
        ("papers", str(len(entries)), ""),
        ("claims held", str(counts[HELD]), "the interval is above the margin"),
        ("refuted", str(counts[REFUTED]), "on small data: the interval is below zero"),
        ("undecided", str(counts[UNDECIDED]), "the cards say why"),
        ("without a result", str(counts["none"]), "data sets and recipes"),
    ]
    body = [
        headlines(numbers),
        note(
            "A claim is a statement about a method beside a baseline on equal terms, on data that "
            "ships with the repository. It is held where the 95 % interval of the paired "
            "differences lies above a margin stated beforehand, refuted where it lies below zero, "
            "and undecided else, or where a gate failed. Dots are seeds, joined where two runs "
            "share one; strokes are means, ± the sample standard deviation. Cards without a result "
            "show what the authors report."
        ),
        tag(
            "div",
            _controls(entries),
            tag("p", "No paper fits.", class_="note", data_none="", hidden=True),
            tag("div", *(_card(entry, base) for entry in entries), class_="papers"),
            data_papers="",
        ),
    ]
    return page(
        "Papers",
        "Methods of papers and what they did here",
        [("papers", "", join(body))],
        parts=("page", "papers"),
    )


def _controls(entries: Sequence[Entry]) -> Markup:
    tags = collections.Counter(tag_ for entry in entries for tag_ in entry.paper.tags)
    outcomes = collections.Counter(entry.outcome for entry in entries)
    search = tag("input", type="search", data_words="", placeholder="title, claim, tag")
    return tag(
        "div",
        tag("label", "search ", search),
        _choice("tag", [(name, name, tags[name]) for name in sorted(tags)]),
        _choice("outcome", [(o, OUTCOME_TITLES[o], outcomes[o]) for o in OUTCOMES if outcomes[o]]),
        tag("button", "Show all", type="button", data_reset=""),
        tag("output", f"{len(entries)} papers", role="status"),
        class_="filters",
        role="search",
        hidden=True,
    )


def _choice(name: str, options: Sequence[tuple[str, str, int]]) -> Markup:
    """A label with a select of (value, words, number of papers)."""
    written = [tag("option", "any", value="")]
    written += [tag("option", f"{text} ({n})", value=value) for value, text, n in options]
    return tag("label", f"{name} ", tag("select", *written, data_by=name))


def _card(entry: Entry, base: Path) -> Markup:
    paper = entry.paper
    kind = f"outcome {entry.outcome}"
    facts = ", ".join([str(paper.year)] + ([f"card {paper.card}"] if paper.card else []))
    tags = [tag("button", name, type="button", data_tag=name) for name in paper.tags]
    return tag(
        "article",
        tag(
            "header",
            tag(
                "p",
                tag("span", OUTCOME_TITLES[entry.outcome], class_=kind),
                tag("span", facts, class_="facts"),
            ),
            tag("h3", paper.title),
        ),
        tag("p", entry.sentence, class_="sentence"),
        _failed(entry),
        _picture(entry, base),
        _more(entry),
        tag(
            "footer",
            tag("p", *tags, class_="tags"),
            tag("p", *_links(entry, base), class_="links"),
        ),
        id=entry.slug,
        data_words=searchable(entry),
        data_tags=" ".join(paper.tags),
        data_outcome=entry.outcome,
    )


def _failed(entry: Entry) -> Content:
    """The gates that a claim did not pass, a line each."""
    failed = entry.result.failed if entry.result else ()
    if not failed:
        return ""
    lines = [tag("li", tag("strong", gate.name), f" {gate.says}") for gate in failed]
    return tag("ul", *lines, class_="failed")


def _picture(entry: Entry, base: Path) -> Content:
    """``picture.png``, which leads to the README where there is one, and what decided."""
    path = entry.file(PICTURE)
    charts: list[Content] = []
    if entry.result is not None:
        charts.append(chart(entry.result.compared))
        if len(entry.result.difference.values) > 1:
            charts.append(differences(entry.result.difference, entry.result.margin))
    if path is None:
        return join(charts)
    picture = tag("img", src=_data_url(path), alt=f"Picture of {entry.paper.title}")
    read_me = entry.file(READ_ME)
    if read_me is not None:
        picture = tag("a", picture, href=_link(read_me, base), class_="picture")
    return join([picture, *charts])


def _more(entry: Entry) -> Content:
    """The margin's rule, control, every other measurement, parity and cost, folded away."""
    result = entry.result
    if result is None:
        return ""
    lines = [f"margin {result.margin.value:.3g}: {result.margin.rule}"]
    lines += [str(premise) for premise in result.premises]
    lines += [] if result.control is None else [f"control: {result.control}"]
    lines += [str(each) for each in result.measured]
    lines += [f"parity with {result.parity}"] if result.parity else []
    seeds = f"{len(result.seeds)} seeds, " if result.seeds else ""
    lines += [f"{seeds}{result.seconds:.0f} s of processor time"]
    others = len(result.measured)
    summary = f"margin, control, cost and {others} more" if others else "margin, control and cost"
    return disclosure(summary, tag("ul", *(tag("li", line) for line in lines)))


def _links(entry: Entry, base: Path) -> list[Content]:
    """The folder under its slug, and the files of it that are there."""
    folder = tag("a", tag("code", entry.slug), href=_link(entry.folder, base))
    files = [tag("a", word, href=_link(path, base)) for word, path in entry.files.items()]
    return [part for each in (folder, *files) for part in (each, " ")]


def _link(path: Path, base: Path) -> str:
    return Path(os.path.relpath(path, base.resolve())).as_posix()


def _data_url(path: Path) -> str:
    """A picture inside the page, no larger than a card shows it."""
    try:
        with Image.open(path) as image:
            if max(image.size) <= MAX_PICTURE_PX:
                data = path.read_bytes()
            else:
                image.thumbnail((MAX_PICTURE_PX, MAX_PICTURE_PX))
                buffer = io.BytesIO()
                image.save(buffer, "PNG", optimize=True)
                data = buffer.getvalue()
    except OSError as error:
        raise PaperError(f"{path} is no picture: {error}") from error
    return inline_picture(data)
