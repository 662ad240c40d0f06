"""Figures of scientific articles and what they say of them: the data of a domain's dual encoder.

Zhang et al., Large-Scale Domain-Specific Pretraining for Biomedical Vision-Language Processing
(BiomedCLIP), 2023. 15 million pairs from 4.4 million articles of PubMed Central; the best of its
day on nine tasks, one in radiology before a model of radiology alone.

The loss is CLIP's, so that with a general tokenizer, text tower and context nothing is left of the
method. What differs is found elsewhere: a text tower that was taught hidden words of the domain
(``vision.objectives.masked_language``, taken over by ``init_from``), the domain's vocabulary
(``vision.data.tokenizers``) and 256 tokens where CLIP reads 77, since captions are long and say
late what matters. Here are the pairs: ``figures`` reads an article as PubMed Central has it, in
JATS XML, and ``part_of`` gives all figures of an article to one part of the data, so that no
article is in two.

Not here: the download, and the paper's questions about images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree

from vision.data.source import DataError

_SPACE = re.compile(r"\s+")
_HREF = "{http://www.w3.org/1999/xlink}href"


@dataclasses.dataclass(frozen=True)
class ArticleFigure:
    """A figure with its texts.

    Attributes:
      article: identifier of the article: its PMC number, else any that it has.
      figure: identifier of the figure in the article.
      image: name of the graphic's file, as the article gives it; often without its ending.
      caption: title and text of the caption, one line.
      mentions: the paragraphs that point to the figure, each one line.
    """

    article: str
    figure: str
    image: str
    caption: str
    mentions: tuple[str, ...] = ()


def figures(xml: str | bytes, name: str = "article") -> Iterator[ArticleFigure]:
    """The figures of an article, in its order; those without a caption or a graphic are left out,
    and so are the graphics of a figure after the first.

    Args:
      xml: JATS, a whole document.
      name: of the document, for messages.

    Raises:
      DataError: not XML, entities of its own, or an article without an identifier.
    """
    if (b"<!ENTITY" if isinstance(xml, bytes) else "<!ENTITY") in xml:  # pyright: ignore[reportOperatorIssue]
        raise DataError(f"{name}: declares entities, which can grow without bound; leave it out")
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise DataError(f"{name}: not XML: {error}") from error
    for each in root.iter():  # JATS comes with and without a namespace
        if isinstance(each.tag, str):
            each.tag = each.tag.rpartition("}")[2]
    article = _identifier(root, name)
    mentioned = _mentions(root)
    for figure in root.iter("fig"):
        caption, graphic = figure.find("caption"), figure.find(".//graphic")
        text = "" if caption is None else _caption(caption)
        image = "" if graphic is None else graphic.get(_HREF, "")
        if text and image:
            key = figure.get("id", "")
            yield ArticleFigure(article, key, image, text, tuple(mentioned.get(key, ())))


def _identifier(root: ElementTree.Element, name: str) -> str:
    found = {
        each.get("pub-id-type", ""): _line(each)
        for each in root.findall("./front/article-meta/article-id")
    }
    for kind in ("pmc", "pmcid", *found):
        if found.get(kind):
            return found[kind]
    raise DataError(f"{name}: has no article-id; it cannot be kept in one part of the data")


def _mentions(root: ElementTree.Element) -> dict[str, list[str]]:
    """Identifier of a figure to the paragraphs outside of figures that point to it."""
    captions = {paragraph for figure in root.iter("fig") for paragraph in figure.iter("p")}
    found: dict[str, list[str]] = {}
    for paragraph in root.iter("p"):
        if paragraph in captions:
            continue
        pointed = (link.get("rid", "").split() for link in paragraph.iter("xref"))
        for key in dict.fromkeys(key for keys in pointed for key in keys):
            found.setdefault(key, []).append(_line(paragraph))
    return found


def _caption(caption: ElementTree.Element) -> str:
    parts = [_line(part) for part in caption if part.tag in ("title", "p")]
    return " ".join(part for part in parts if part)


def _line(element: ElementTree.Element) -> str:
    return _SPACE.sub(" ", "".join(element.itertext())).strip()


def part_of(article: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The part of the data that all figures of an article are in: a function of its name alone.

    Args:
      article: its identifier.
      shares: part to its share of the articles; they add up to 1.
      seed: another division.

    Raises:
      ValueError: shares that are negative or do not add up to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares={dict(shares)}: at least 0, and 1 together")
    digest = hashlib.sha256(f"{seed} {article}".encode()).digest()
    place, end = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, share in shares.items():
        end += share
        if share and place < end:
            return name
    return [name for name, share in shares.items() if share][-1]
