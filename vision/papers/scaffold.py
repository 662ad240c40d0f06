"""A new paper: ``vision/papers/example`` under another name, whose tests pass as they are."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import textwrap
from pathlib import Path

from vision.papers.discover import PaperError

EXAMPLE = Path(__file__).parent / "example"
PACKAGE, CLASS, SLUG, CONFIG = "vision.papers.example", "Example", "example", "CONFIG"
FILES = ("method.py", "config.py", "claim.py", "test_method.py")
FIRST_YEAR = 2000  # until a person writes the right one


def place(name: str, root: Path) -> Path:
    """The folder of a new paper.

    Args:
      name: a slug, for ``papers/<slug>`` of a checkout; else the path of a folder.
      root: of the repository.

    Raises:
      PaperError: it is taken, or Python could not import it under its name.
    """
    inside = Path(name).name == name and (root / "papers").is_dir() and root.name != "_recipes"
    folder = root / "papers" / name if inside else Path(name).resolve()
    slug = folder.name if name else ""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug) or keyword.iskeyword(slug):
        raise PaperError(f"{slug!r} is no slug: lower-case letters, digits and _, such as sim_clr")
    if slug in sys.stdlib_module_names or (not inside and _importable(slug)):
        raise PaperError(f"{slug!r} is the name of an installed package: choose another")
    if folder.exists():
        raise PaperError(f"{folder} exists; choose another name or remove it")
    return folder


def _importable(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None


def write(folder: Path, root: Path, title: str = "", year: int | None = None) -> list[Path]:
    """Writes the files of a new paper.

    Args:
      folder: from ``place``.
      root: of the repository.
      title: of the paper; made from the slug by default.
      year: of its publication.

    Returns:
      The files.
    """
    slug = folder.name
    inside = folder.parent == root / "papers"
    sources = {name: (EXAMPLE / name).read_text(encoding="utf-8") for name in FILES}
    if any(re.search(rf"\bimport\b.*\b{class_name(slug)}\b", text) for text in sources.values()):
        raise PaperError(f"{slug}: the class {class_name(slug)} would hide one that it imports")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise PaperError(f"{folder} cannot be made: {error.strerror}") from error
    texts = {"__init__.py": _header(title or slug.replace("_", " ").title(), year or FIRST_YEAR)}
    for name, text in sources.items():
        texts[name] = _renamed(_sorted_imports(text), slug, inside, folder)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _renamed(text: str, slug: str, inside: bool, folder: Path) -> str:
    config = f"papers/{slug}/config.py" if inside else str(folder / "config.py")
    text = text.replace(PACKAGE, f"papers.{slug}" if inside else slug)
    text = re.sub(rf"\b{CLASS}\b", class_name(slug), text.replace(f"An {CLASS}", CLASS))
    pieces = text.split(f"={CONFIG}")  # the path may hold any of these words
    return f"={config}".join(re.sub(rf"\b{SLUG}(?=\b|_small)", slug, piece) for piece in pieces)


def class_name(slug: str) -> str:
    """``SimClr`` of ``sim_clr``."""
    return "".join(word.title() for word in slug.split("_"))


def _sorted_imports(text: str) -> str:
    """The paper's own imports before those from ``vision``, where their new name belongs."""
    lines = text.splitlines(keepends=True)
    own = [line for line in lines if line.startswith(f"from {PACKAGE}.")]
    others = [line for line in lines if line not in own]
    first = next((i for i, line in enumerate(others) if line.startswith("from vision.")), None)
    return text if first is None else "".join([*others[:first], *own, *others[first:]])


def _header(title: str, year: int) -> str:
    pieces = textwrap.wrap(title, 80, drop_whitespace=False) if len(title) > 80 else [title]
    shown = _quoted(pieces[0])
    if len(pieces) > 1:
        shown = "(\n" + "".join(f"        {_quoted(piece)}\n" for piece in pieces) + "    )"
    return (
        "from vision.papers import Paper\n\nPAPER = Paper(\n"
        f'    title={shown},\n    year={year},\n    card=None,\n    tags=("new",),\n'
        '    headline="What the authors report, in one sentence.",\n)\n'
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def next_steps(folder: Path, root: Path) -> str:
    """Commands to go on with."""
    inside = folder.parent == root / "papers"
    name = folder.name if inside else str(folder)
    config = folder.name if inside else f"{folder}/config.py"
    return (
        f"\n  python -m pytest {folder if not inside else f'papers/{name}'}\n"
        f"  python train.py --config={config}:small --workdir=workdirs/{folder.name}\n"
        # A margin is recorded only where it was committed before.
        + (f"  git add papers/{name} && git commit -m 'The margin of {name}'\n" if inside else "")
        + f"  python -m vision.papers claim {name} --record\n"
        + (
            "  UPDATE_GOLDEN=1 python -m pytest tests/test_configs.py -k golden\n"
            "  python -m vision.papers gallery\n"
            if inside
            else ""
        )
    )
