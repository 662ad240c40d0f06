"""Cards with a picture each, and controls that filter them by facet and score."""

from __future__ import annotations

import base64
import binascii
import collections
import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from vision.report.page import Content, note, tag


@dataclasses.dataclass(frozen=True)
class ImageCard:
    """One picture with its description.

    Attributes:
      content: what the card shows.
      facets: name to value, by which cards are filtered; the same names on all cards of a gallery.
      score: 0..1, filtered by bounds; NaN for none.
    """

    content: tuple[Content, ...]
    facets: Mapping[str, str]
    score: float = math.nan


def cards(shown: Sequence[ImageCard], *, name: str, score: str = "", none: str = "") -> Markup:
    """Cards side by side, and above them a choice per facet and bounds of the score.

    Without a script all cards are there and the controls are not.

    Args:
      shown: the cards, in order.
      name: of the gallery, by which a heat map finds it.
      score: what the score is called; empty for no bounds.
      none: text below the controls when no card fits.
    """
    facets = list(shown[0].facets) if shown else []
    used = [facet for facet in facets if any(card.facets[facet] for card in shown)]
    controls: list[Content] = [
        _choice(i, facet, [card.facets[facet] for card in shown]) for i, facet in enumerate(used)
    ]
    if score and any(math.isfinite(card.score) for card in shown):
        controls.append(_bounds(score))
    figures = [
        tag(
            "figure",
            *card.content,
            data_score=None if math.isnan(card.score) else f"{card.score:.9g}",
            **{f"data_f{i}": card.facets[facet] for i, facet in enumerate(used)},
        )
        for card in shown
    ]
    return tag(
        "div",
        tag(
            "div",
            *controls,
            tag("button", "Show all", type="button", data_reset=""),
            tag("output", f"{len(shown):,} shown", role="status"),
            class_="filters",
            role="group",
            aria_label="Which of them to show",
            hidden=True,
        ),
        tag("p", f"None of these. {none}".strip(), class_="note", data_none="", hidden=True),
        tag("div", *figures, class_="gallery"),
        data_filter=name,
    )


def _choice(i: int, facet: str, values: Sequence[str]) -> Markup:
    counts = collections.Counter(values)
    options = [tag("option", f"any ({len(values):,})", value="")]
    options += [
        tag("option", f"{value or 'none'} ({counts[value]:,})", value=value)
        for value in sorted(counts, key=_natural)
    ]
    return tag("label", facet, " ", tag("select", *options, data_facet=i, data_name=facet))


def _natural(name: str) -> tuple[bool, float, str]:
    """Numbers by their value and before words."""
    return (False, float(name), name) if name.isdecimal() else (True, 0.0, name)


def _bounds(score: str) -> Markup:
    def bound(end: str) -> Markup:
        return tag(
            "input",
            type="number",
            min="0",
            max="100",
            step="any",
            placeholder="0" if end == "from" else "100",
            aria_label=f"{score} {end}, percent",
            **{f"data_{end}": ""},
        )

    return tag("span", f"{score} ", bound("from"), " to ", bound("to"), " %", class_="bounds")


def image(encoded: str, alt: str, missing: str = "") -> Markup:
    """A picture from the base64 of its PNG; small ones in sharp pixels, none as words."""
    if not encoded:
        return tag("div", f"No picture. {missing}".strip(), class_="none")
    source = f"data:image/png;base64,{encoded}"
    return tag("img", src=source, alt=alt, class_="small" if _side_px(encoded) <= 64 else None)


def _side_px(encoded: str) -> int:
    """The longer side, from the header that follows the signature of every PNG."""
    try:
        head = base64.b64decode(encoded[:32], validate=True)
        return max(struct.unpack(">II", head[16:24]))
    except (binascii.Error, struct.error):
        return 0


def words(rows: Sequence[tuple[Content, str, bool]], key: str) -> Markup:
    """The caption of a picture: (name, value, whether it is wrong), and its record's key."""
    entries: list[Content] = []
    for name, value, wrong in rows:
        entries += [tag("dt", name), tag("dd", value, class_="wrong" if wrong else None)]
    return tag("figcaption", tag("dl", *entries), tag("code", key, class_="key"))


def heading(text: str, *content: Content) -> Markup:
    return tag("div", tag("h3", text, tabindex="-1"), *content, class_="stack")


def empty(text: str) -> Markup:
    return heading(text, note("None."))
