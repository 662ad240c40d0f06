"""The page of papers and docs/papers.md."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.papers.example_tree import MEASURED, WORSE, header, repository, result
from vision.papers import chart, discover, document, gallery
from vision.papers.discover import Entry, PaperError
from vision.papers.ledger import ROOT
from vision.papers.measured import Measured, Side
from vision.papers.outcome import Difference, Margin
from vision.papers.results import write


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """A paper whose claim held, one that was refuted, one undecided, and one without."""
    folder = repository(tmp_path)
    more = (Measured("an <error> of 1|2", Side("new", (0.5,))), *MEASURED, *MEASURED)
    write(result(measured=more), folder / "result.json")
    for name, tags in (
        ("lost", ("ranking",)),
        ("open", ("ranking",)),
        ("plain", ("data-set",)),
    ):
        other = tmp_path / "papers" / name
        other.mkdir()
        (other / "__init__.py").write_text(header(title=f"On <{name}>", card=None, tags=tags))
    lost = result(compared=WORSE, seeds=(), parity=None, measured=())
    write(lost, tmp_path / "papers" / "lost" / "result.json")
    write(result(control=None), tmp_path / "papers" / "open" / "result.json")
    return discover.all_papers(tmp_path)


def test_a_card_per_paper(entries: list[Entry], tmp_path: Path):
    text = gallery.render(entries, tmp_path / "docs")
    cards = re.findall(r"<article.*?</article>", text, re.DOTALL)
    lost, margin, undecided, plain = cards
    assert "A Margin for Pairs" in margin
    assert '<span class="outcome held">held</span>' in margin
    assert '<span class="outcome refuted">refuted</span>' in lost
    assert '<span class="outcome undecided">undecided</span>' in undecided
    assert "<li><strong>control</strong> no negative control was run</li>" in undecided
    assert '<ul class="failed">' not in margin + lost
    assert "margin 0.1: half of the 20 points that the authors report" in margin
    assert "top-1 of the start is 0.9 to 0.95, wanted at least 0.8" in margin
    assert "control: R@1, words shuffled: new 0.18" in margin
    assert '<span class="outcome none">no result</span>' in plain
    assert "2020, card 3" in margin
    assert "The new one finds more." in margin
    assert "It is best on all pairs." in plain
    assert 'href="../papers/margin/method.py"' in margin
    assert 'data-tags="ranking image-text"' in margin
    for card in (margin, lost, undecided):
        assert card.count('<figure class="measured">') == 1
        assert card.count('<figure class="measured decides">') == 1
    assert "an &lt;error&gt; of 1|2: new 0.5" in margin
    assert "parity with peer 1.0: 1e-07" in margin
    assert "On &lt;lost&gt;" in lost
    assert "<figure" not in plain
    assert '<option value="ranking">ranking (3)</option>' in text


def test_a_picture_stands_above_what_decided(entries: list[Entry], tmp_path: Path):
    folder = tmp_path / "papers" / "margin"
    Image.new("RGB", (2000, 1000)).save(folder / "picture.png")
    text = gallery.render(entries, tmp_path)
    encoded = re.search(r'<img src="data:image/png;base64,([^"]+)"', text)
    assert encoded is not None
    with Image.open(io.BytesIO(base64.b64decode(encoded[1]))) as image:
        assert image.size == (880, 440)
    assert text.count('<figure class="measured">') == 3
    (folder / "README.md").touch()
    assert '<a href="papers/margin/README.md" class="picture"><img' in gallery.render(
        entries, tmp_path
    )
    (folder / "picture.png").write_text("no picture")
    with pytest.raises(PaperError, match=r"margin/picture\.png is no picture"):
        gallery.render(entries, tmp_path)


def test_a_chart_has_every_seed_at_its_place_and_says_its_numbers():
    drawn = chart.chart(Measured("R@1", Side("new", (0.0, 1.0)), Side("old", (1.0, 0.0))))
    assert 'aria-label="R@1: new 0.5 ± 0.71 against old 0.5 ± 0.71"' in drawn
    marks = re.findall(r'd="([^"]*)" class="([^"]*)"', drawn)
    places = {kind: [float(x) for x in re.findall(r"M([\d.]+)", d)] for d, kind in marks}
    low, high = places["dots c0"]
    assert 0 <= low < high <= 1000
    assert places["dots other"] == [high, low]
    assert places["mean c0"] == [pytest.approx((low + high) / 2, abs=0.2)]
    assert places["pairs"] == [low, high]
    alone = chart.chart(Measured("error", Side("it", (0.25,))))
    assert "pairs" not in alone
    assert "mean" not in alone
    assert "tracks1" in alone


def test_what_decides_is_drawn_with_the_margin_and_zero():
    seen = Difference((0.1, 0.3), 0.2, -0.2, 0.6)
    drawn = chart.differences(seen, Margin(0.05, rule="half of 10 points"))
    marks = re.findall(r'd="([^"]*)" class="([^"]*)"', drawn)
    places = {kind: [float(x) for x in re.findall(r"[MH]([\d.]+)", d)] for d, kind in marks}
    (zero,), (margin,) = places["zero"], places["margin"]
    low, high = places["interval"]
    near, far = places["dots c0"]
    unit = (far - near) / 0.2
    assert margin - zero == pytest.approx(0.05 * unit, abs=0.3)
    assert [low, high] == pytest.approx([zero - 0.2 * unit, zero + 0.6 * unit], abs=0.3)
    assert 0 < low < near < far < high < 1000


def test_the_document_is_grouped_by_first_tag_and_has_no_endless_lines(
    entries: list[Entry], tmp_path: Path
):
    text = document.render(entries, tmp_path / "docs")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["data-set", "ranking"]
    said = "4 papers: 1 claims held, 1 refuted, 1 undecided, 1 without a result. All claims"
    assert said in text
    assert "| [ranking](#ranking) | `lost` `margin` `open` |" in text
    assert "\n- control: no negative control was run\n" in text
    assert (
        "### [A Margin for Pairs](../papers/margin), 2020\n\n`margin` · \U0001f7e2 **held** · "
        "[config](../papers/margin/config.py) · [claim](../papers/margin/claim.py)\n\n"
        "The new one finds more.\n\n"
        "- paired difference +0.38 [+0.324, +0.436], 95 % interval; margin 0.1\n\n"
        "| Measured | Method | Baseline |\n|---|---|---|\n"
        "| R@1 | new 0.58 ± 0.084 | old 0.2 ± 0.071 |\n"
    ) in text
    assert "| an \\<error> of 1\\|2 | new 0.5 | - |" in text
    assert "`plain` · no result\n\nThe authors report: It is best on all pairs.\n" in text
    assert max(map(len, text.splitlines())) <= 160


def test_the_document_of_the_repository_is_current():
    path = ROOT / document.DOCUMENT
    current = document.render(discover.all_papers(ROOT), path.parent)
    assert path.read_text(encoding="utf-8") == current, "python -m vision.papers gallery"
