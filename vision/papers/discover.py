"""Finding papers: those of a repository, or a folder of the same shape anywhere on the disk.

Nothing is imported or run: ``PAPER`` is read from the source of ``__init__.py``.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vision.config import config_files
from vision.config.errors import UserError
from vision.papers.ledger import CLAIM, RESULT
from vision.papers.outcome import HELD, REFUTED, UNDECIDED
from vision.papers.paper import PARTS, Paper
from vision.papers.results import Result, read

OUTCOMES = (HELD, REFUTED, UNDECIDED, "none")


class PaperError(UserError):
    """There is no such paper, or its folder does not say what it must."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A paper and its folder.

    Attributes:
      folder: absolute; its name is the slug.
      paper: what ``__init__.py`` says.
      result: what its claim found; None before it is recorded.
    """

    folder: Path
    paper: Paper
    result: Result | None

    @property
    def slug(self) -> str:
        return self.folder.name

    @property
    def outcome(self) -> str:
        """One of ``OUTCOMES``."""
        return self.result.outcome if self.result else "none"

    @property
    def sentence(self) -> str:
        """What was claimed here; without a result what the authors report."""
        return self.result.claim if self.result else f"The authors report: {self.paper.headline}"

    def file(self, name: str) -> Path | None:
        """A file of the folder; None where it is not there."""
        path = self.folder / name
        return path if path.is_file() else None

    @property
    def unexplained(self) -> list[str]:
        """Parts that the folder lacks without a reason, and those it has against what it says."""
        return [part for part in PARTS if (part in self.paper.without) == bool(self.file(part))]

    @property
    def files(self) -> dict[str, Path]:
        """What a reader opens: a word for each to its path, of those that are there."""
        names = {
            "read me": "README.md",
            "method": "method.py",
            "config": "config.py",
            "claim": CLAIM,
            "tests": "test_method.py",
            "result": RESULT,
        }
        paths = {word: self.file(name) for word, name in names.items()}
        return {word: path for word, path in paths.items() if path is not None}


def home() -> Path:
    """The folder that holds ``papers/``: the checkout; of an installation ``vision/_recipes``,
    or where it is run."""
    root = config_files.recipes()
    return root if (root / "papers").is_dir() else Path.cwd()


def slugs(root: Path) -> list[str]:
    """Names of the papers of a repository, in alphabetical order."""
    return sorted(path.parent.name for path in (root / "papers").glob("*/__init__.py"))


def all_papers(root: Path) -> list[Entry]:
    """The papers of a repository, by slug.

    Raises:
      UserError: there are none, or one of them cannot be read.
    """
    found = [read_folder(root / "papers" / slug) for slug in slugs(root)]
    if not found:
        raise PaperError(f"{root / 'papers'} has no folder with an __init__.py")
    return found


def read_folder(folder: Path) -> Entry:
    """One paper.

    Raises:
      UserError: it names the file and the field.
    """
    path = folder / RESULT
    result = read(path) if path.is_file() else None
    return Entry(folder.resolve(), read_paper(folder / "__init__.py"), result)


def locate(name: str, root: Path) -> Path:
    """The folder of a paper from its slug, or from a path to it.

    Raises:
      PaperError: there is none; the message has the nearest slugs.
    """
    folder = Path(name)
    if (folder / "__init__.py").is_file():
        return folder.resolve()
    if name in slugs(root):
        return root / "papers" / name
    if folder.is_dir():
        raise PaperError(f"{folder} has no __init__.py with PAPER = Paper(...)")
    near = difflib.get_close_matches(name, slugs(root), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "see python -m vision.papers list"
    raise PaperError(f"there is no paper {name!r}: {hint}")


def read_paper(path: Path) -> Paper:
    """``PAPER = Paper(...)`` of a source file.

    Raises:
      PaperError: there is no such statement, or an argument is missing, unknown, no literal, or
        not what ``Paper`` wants.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PaperError(f"{path}: {error.strerror}") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise PaperError(f"{path} is no Python source: {error}") from error
    call = _call(tree.body)
    if call is None:
        raise PaperError(f"{path} has no PAPER = Paper(title=..., year=..., ...)")
    given: dict[str, Any] = {}
    fields = [field.name for field in dataclasses.fields(Paper)]
    for keyword in call.keywords:
        where = f"{path}:{keyword.value.lineno}"
        if keyword.arg not in fields:
            raise PaperError(f"{where}: PAPER has no field {keyword.arg}; {', '.join(fields)}")
        try:
            given[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError as error:
            said = ast.unparse(keyword.value)
            raise PaperError(f"{where}: PAPER.{keyword.arg} = {said} is no literal") from error
    if call.args:
        raise PaperError(f"{path}:{call.lineno}: give the fields of PAPER by name")
    if missing := [name for name in fields if name not in given and name != "without"]:
        raise PaperError(f"{path}:{call.lineno}: PAPER lacks {', '.join(missing)}")
    try:
        return Paper(**given)
    except ValueError as error:
        raise PaperError(f"{path}:{call.lineno}: PAPER.{error}") from error


def _call(body: Sequence[ast.stmt]) -> ast.Call | None:
    """The right side of ``PAPER = Paper(...)``."""
    for statement in body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign):
            target, value = statement.target, statement.value
        else:
            continue
        if isinstance(target, ast.Name) and target.id == "PAPER" and isinstance(value, ast.Call):
            function = value.func
            if getattr(function, "id", getattr(function, "attr", None)) == "Paper":
                return value
    return None


def matching(
    entries: Sequence[Entry], words: Sequence[str] = (), tag: str = "", outcome: str = ""
) -> list[Entry]:
    """Those that have all words (in any case), a tag and an outcome; empty ones choose nothing."""

    def fits(entry: Entry) -> bool:
        text = searchable(entry)
        return (
            all(word.casefold() in text for word in words)
            and (not tag or tag in entry.paper.tags)
            and (not outcome or outcome == entry.outcome)
        )

    return [entry for entry in entries if fits(entry)]


def searchable(entry: Entry) -> str:
    """What words are searched in: slug, title, year, tags, headline and claim, in lower case."""
    paper = entry.paper
    parts = (entry.slug, paper.title, str(paper.year), *paper.tags, paper.headline, entry.sentence)
    return " ".join(parts).casefold()
