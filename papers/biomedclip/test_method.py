"""Figures of articles, and parts that no article is in twice."""

from __future__ import annotations

import collections

import pytest

from papers.biomedclip.method import ArticleFigure, figures, part_of
from vision.data.source import DataError

HEAD = """<?xml version="1.0"?>
<article {space} xmlns:xlink="http://www.w3.org/1999/xlink">
<front><article-meta>
<article-id pub-id-type="doi">10.1/x</article-id><article-id pub-id-type="pmc">123</article-id>
</article-meta></front>
"""
BODY = """<body>
<p>As <xref ref-type="fig" rid="f1">Fig. 1</xref> shows,
   cells <italic>divide</italic>.</p>
<p>See <xref rid="f1 f2"/>. Nothing else, <xref rid="f1"/>.</p>
<fig id="f1"><label>1</label>
  <caption><title>Mitosis.</title><p>Stained  with
    H&amp;E, <bold>x40</bold>; see <xref rid="f2"/>.</p></caption>
  <graphic xlink:href="a-1"/><graphic xlink:href="a-2"/></fig>
<fig id="f2"><caption><p>A chart.</p></caption>
  <alternatives><graphic xlink:href="b"/></alternatives></fig>
<fig id="f3"><caption><p>No picture.</p></caption></fig>
<fig id="f4"><graphic xlink:href="silent"/></fig>
</body></article>"""
FIRST = ArticleFigure(
    "123",
    "f1",
    "a-1",
    "Mitosis. Stained with H&E, x40; see .",
    ("As Fig. 1 shows, cells divide.", "See . Nothing else, ."),
)


@pytest.mark.parametrize("space", ["", 'xmlns="https://jats.nlm.nih.gov/ns"'])
def test_figures_come_with_caption_and_mentions(space: str):
    parsed = [*figures((HEAD.format(space=space) + BODY).encode())]
    assert parsed[0] == FIRST
    assert [each.figure for each in parsed] == ["f1", "f2"]
    assert parsed[1].image == "b"
    assert parsed[1].mentions == ("See . Nothing else, .",)


def test_what_is_no_article_is_named():
    with pytest.raises(DataError, match="PMC9: not XML"):
        list(figures("<article>", "PMC9"))
    with pytest.raises(DataError, match="PMC9: has no article-id"):
        list(figures("<article/>", "PMC9"))
    bomb = '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><article>&d;</article>'
    with pytest.raises(DataError, match="declares entities"):
        list(figures(bomb))


def test_an_article_is_in_one_part_and_parts_have_their_shares():
    shares = {"train": 0.9, "none": 0.0, "test": 0.1}
    parts = [part_of(str(i), shares) for i in range(4000)]
    assert parts == [part_of(str(i), shares) for i in range(4000)]
    counts = collections.Counter(parts)
    assert counts.keys() == {"train", "test"}
    assert 320 < counts["test"] < 480
    assert parts != [part_of(str(i), shares, seed=1) for i in range(4000)]
    assert part_of("x", {"all": 1.0, "none": 0.0}) == "all"
    with pytest.raises(ValueError, match="1 together"):
        part_of("x", {"train": 0.9})
