"""BiomedCLIP: figure-caption pairs of scientific articles for a biomedical dual encoder.

Zhang et al., Large-Scale Domain-Specific Pretraining for Biomedical Vision-Language Processing
(BiomedCLIP), 2023. Headline: 15 million pairs from 4.4 million articles of PubMed Central; state of
the art on nine tasks, on one in radiology ahead of a radiology-only model.

The loss is CLIP's. The method consists of a text tower pretrained by masked language modelling on
the domain (``vision.objectives.masked_language``, loaded by ``init_from``), the domain's vocabulary
(``vision.data.tokenizers``) and a context of 256 tokens instead of CLIP's 77, because captions are
long and informative to the end. This module makes the pairs: ``figures`` reads an article in JATS
XML, the format of PubMed Central, and ``part_of`` assigns all figures of an article to one split.

Not here: the download, and the paper's visual question answering.
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
      mentions: the paragraphs that refer to the figure, each one line.
    """

    article: str
    figure: str
    image: str
    caption: str
    mentions: tuple[str, ...] = ()


def figures(xml: str | bytes, name: str = "article") -> Iterator[ArticleFigure]:
    """The figures of an article in document order.

    Figures without a caption or a graphic are left out; of several graphics the first is used.

    Args:
      xml: JATS, a whole document.
      name: of the document, for messages.

    Raises:
      DataError: not XML, entity declarations, or an article without an identifier.
    """
    if (b"<!ENTITY" if isinstance(xml, bytes) else "<!ENTITY") in xml:  # pyright: ignore[reportOperatorIssue]
        raise DataError(f"{name}: declares entities, which can grow without bound; leave it out")
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise DataError(f"{name}: not XML: {error}") from error
    for element in root.iter():  # JATS comes with and without a namespace
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
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
    identifiers = {
        element.get("pub-id-type", ""): _line(element)
        for element in root.findall("./front/article-meta/article-id")
    }
    for kind in ("pmc", "pmcid", *identifiers):
        if identifiers.get(kind):
            return identifiers[kind]
    raise DataError(f"{name}: has no article-id; it cannot be kept in one part of the data")


def _mentions(root: ElementTree.Element) -> dict[str, list[str]]:
    """Identifier of a figure to the paragraphs outside of figures that point to it."""
    captions = {paragraph for figure in root.iter("fig") for paragraph in figure.iter("p")}
    mentions: dict[str, list[str]] = {}
    for paragraph in root.iter("p"):
        if paragraph in captions:
            continue
        references = (link.get("rid", "").split() for link in paragraph.iter("xref"))
        for key in dict.fromkeys(key for keys in references for key in keys):
            mentions.setdefault(key, []).append(_line(paragraph))
    return mentions


def _caption(caption: ElementTree.Element) -> str:
    parts = [_line(part) for part in caption if part.tag in ("title", "p")]
    return " ".join(part for part in parts if part)


def _line(element: ElementTree.Element) -> str:
    return _SPACE.sub(" ", "".join(element.itertext())).strip()


def part_of(article: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The split that all figures of an article belong to: a function of its identifier alone.

    Args:
      article: its identifier.
      shares: name of a split to its share of the articles; they add up to 1.
      seed: another seed gives another assignment.

    Raises:
      ValueError: shares that are negative or do not add up to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares={dict(shares)}: at least 0, and 1 together")
    digest = hashlib.sha256(f"{seed} {article}".encode()).digest()
    position, end = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for name, share in shares.items():
        end += share
        if share and position < end:
            return name
    return [name for name, share in shares.items() if share][-1]
