"""What a paper's folder says of it, and how papers are found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.papers.example_tree import header, repository, result
from vision.config import config_files
from vision.config import specs as config
from vision.config.schema import ConfigError
from vision.papers import Paper, discover
from vision.papers.discover import PaperError
from vision.papers.ledger import ROOT
from vision.papers.results import ResultError, write

GIVEN: dict[str, Any] = {
    "title": "A Margin for Pairs",
    "year": 2020,
    "card": 3,
    "tags": ("ranking", "image-text"),
    "headline": "It is best on all pairs.",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"title": " "}, "title is ' '"),
        ({"title": 3}, "title is 3"),
        ({"headline": "one\ntwo"}, "headline"),
        ({"year": "2020"}, "year is '2020'"),
        ({"year": 20}, "year is 20"),
        ({"card": 0}, "card is 0"),
        ({"card": True}, "card is True"),
        ({"tags": ()}, "at least one"),
        ({"tags": "ranking"}, "not a tuple"),
        ({"tags": ("Image Text",)}, "'Image Text' is not lower-case"),
        ({"tags": ("a", "a")}, "stands twice"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], words: str, tmp_path: Path):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        Paper(**{**GIVEN, **change})
    path = tmp_path / "__init__.py"
    path.write_text(header(**change))
    with pytest.raises(PaperError, match=rf"__init__\.py:3: PAPER\.{next(iter(change))}"):
        discover.read_paper(path)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has no PAPER = Paper"),
        ("PAPER = 3", "has no PAPER = Paper"),
        ("PAPER = Paper('A')", "by name"),
        (header() + "def", "no Python source"),
        (
            header().replace("2020", "1 + this_year()"),
            r":3: PAPER\.year = 1 \+ this_year\(\) is no",
        ),
        (header().replace("card=3, ", ""), "lacks card"),
        (header().replace("card", "crad"), "no field crad; title, year, card"),
        (header(without={"method": "a protocol"}), "without: 'method': 'a protocol' is not one of"),
        (header(without={"method.py": ""}), "without: 'method.py': '' is not one of"),
    ],
)
def test_a_wrong_header_is_named(source: str, words: str, tmp_path: Path):
    path = tmp_path / "__init__.py"
    path.write_text(source)
    with pytest.raises(PaperError, match=rf"__init__\.py.*{words}"):
        discover.read_paper(path)


def test_a_header_is_read_and_not_run(tmp_path: Path):
    path = tmp_path / "__init__.py"
    path.write_text("import nothing.of.this\n" + header(card=None) + "raise SystemExit\n")
    assert discover.read_paper(path) == Paper(**{**GIVEN, "card": None})


def test_papers_are_found_with_their_files_and_results(tmp_path: Path):
    folder = repository(tmp_path)
    (entry,) = discover.all_papers(tmp_path)
    assert (entry.slug, entry.outcome) == ("margin", "none")
    assert entry.sentence == "The authors report: It is best on all pairs."
    assert list(entry.files) == ["method", "config", "claim"]
    write(result(control=None), folder / "result.json")
    (folder / "README.md").touch()
    entry = discover.read_folder(folder)
    assert (entry.outcome, entry.sentence) == ("undecided", "The new one finds more.")
    assert entry.files["read me"] == folder / "README.md"
    (folder / "result.json").write_text("{}")
    with pytest.raises(ResultError, match=r"margin/result\.json: there is no 'outcome'"):
        discover.all_papers(tmp_path)
    with pytest.raises(PaperError, match="nothing/papers has no folder"):
        discover.all_papers(tmp_path / "nothing")


def test_a_paper_is_a_slug_or_a_folder(tmp_path: Path):
    folder = repository(tmp_path)
    outside = tmp_path / "elsewhere" / "mine"
    outside.mkdir(parents=True)
    (outside / "__init__.py").write_text(header(title="Mine"))
    assert discover.locate("margin", tmp_path) == folder
    assert discover.locate(str(outside), tmp_path) == outside
    assert discover.read_folder(outside).paper.title == "Mine"
    with pytest.raises(PaperError, match=r"no paper 'magrin': did you mean margin\?"):
        discover.locate("magrin", tmp_path)
    with pytest.raises(PaperError, match=r"elsewhere has no __init__\.py"):
        discover.locate(str(outside.parent), tmp_path)


def test_a_config_is_named_by_a_path_a_folder_or_a_slug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = repository(tmp_path / "root")
    (folder / "config.py").write_text(
        "import vision as v\n\n\ndef get_config(seed: int = 0) -> v.Config:\n"
        "    return v.spec(v.Digits, split='train')\n\n\nsmall = get_config\n"
    )
    monkeypatch.setattr(config_files, "recipes", lambda: tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    relative = Path("root/papers/margin/config.py")
    assert config_files.find(str(relative)) == relative
    assert config_files.find("root/papers/margin") == relative
    assert config_files.find("margin") == relative
    (tmp_path / "root" / "configs" / "digits.py").touch()
    assert config_files.find("digits") == Path("root/configs/digits.py")
    assert (
        config.load("margin") == config.load(f"{folder}:get_config") == config.load(f"{relative}")
    )
    with pytest.raises(
        ConfigError, match=r"config file magrin does not exist; did you mean margin\?"
    ):
        config.load("magrin:small")
    for other in ("magrin", "root", "configs/margin.py", "mar/gin", ""):
        assert config_files.find(other) is None
    # A folder of this name that lies here is the nearer one.
    (tmp_path / "margin").mkdir()
    (tmp_path / "margin" / "config.py").touch()
    assert config_files.find("margin") == Path("margin/config.py")


def test_papers_are_chosen_by_words_tag_and_outcome(tmp_path: Path):
    folder = repository(tmp_path)
    write(result(), folder / "result.json")
    entries = discover.all_papers(tmp_path)

    def count(**given: Any) -> int:
        return len(discover.matching(entries, **given))

    assert (
        count() == count(words=["PAIRS", "finds"]) == count(tag="image-text", outcome="held") == 1
    )
    assert count(words=["pairs", "absent"]) == count(tag="image") == count(outcome="none") == 0


def test_looking_at_papers_imports_no_jax():
    code = (
        "import sys; import vision.papers.__main__, vision.papers.gallery, vision.papers.document;"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_part_that_is_missing_has_its_reason(tmp_path: Path):
    folder = repository(tmp_path)
    assert discover.read_folder(folder).unexplained == ["result.json"]
    reasons = {"result.json": "not run yet", "config.py": "nothing is trained"}
    (folder / "__init__.py").write_text(header(without=reasons))
    assert discover.read_folder(folder).unexplained == ["config.py"]  # it is there


def test_every_paper_has_its_parts_or_says_why_not():
    wrong = {e.slug: e.unexplained for e in discover.all_papers(ROOT) if e.unexplained}
    assert not wrong
