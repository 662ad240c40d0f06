"""Whether the result of a claim is still about this code.

A result is stale when a definition that it depends on has changed. These are the claim's file;
what it imports itself; and what those name, at any depth, in ``ROOMS``, where methods live. So a
claim about a loss depends on the loss, its blocks and its config, but not on another loss in the
same file. It does not depend on ``HOUSE`` (the loop, the data layer, pages) nor on towers and
metrics that only come with a config: all claims stand on these, whose identities the tests keep,
and to repeat hours of training after every edit there would teach people to stop editing. An
outcome that changes all the same is found by the sample of claims that CI runs.

What ``import vision`` offers is followed to where it is defined. Layout, comments, docstrings and
the names of local variables do not count (``syntax``), nor does the outcome that a claim expects.
"""

from __future__ import annotations

import ast
import hashlib
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from vision.papers.results import ResultError, read
from vision.papers.sources import module_of, parsed, resolve

ROOT = Path(__file__).resolve().parents[2]
CLAIM, RESULT = "claim.py", "result.json"
OURS: tuple[str, ...] = ("vision", "configs", "papers")  # packages in the root
ROOMS = (
    *("configs", "papers", "vision.objectives", "vision.blocks"),
    *("vision.probes", "vision.scenario"),
)
HOUSE = (
    *("vision.config", "vision.parallel", "vision.train", "vision.checkpoint", "vision.evaluate"),
    *("vision.run", "vision.data", "vision.report", "vision.programs", "vision.papers"),
)


def dependencies(claim: Path, root: Path = ROOT) -> dict[Path, set[str]]:
    """The files that a claim depends on and the names it uses of each; see this module.

    An empty name stands for the whole file: the claim itself, and modules imported as such.

    Args:
      claim: ``claim.py`` of a paper, under ``root`` or elsewhere.
      root: of the repository.
    """
    places = _places(claim, root)
    rooms = (*ROOMS, *(places.keys() - set(OURS)))
    found: dict[Path, set[str]] = {}
    queue = [(claim, "")]
    while queue:
        path, name = queue.pop()
        if name in found.setdefault(path, set()):
            continue
        found[path].add(name)
        own, targets = module_of(path).uses(name)
        queue += [(path, each) for each in own if name]
        for target in targets:
            where = resolve(target, places)
            if where is None or where[0] == "vision":
                continue
            if not _within(where[0], HOUSE) if path == claim else _within(where[0], rooms):
                queue.append(where[1:])
    return found


def depends(claim: Path, root: Path = ROOT) -> dict[str, str]:
    """Path to the hash of the code that a claim uses there, for every file of ``dependencies``.

    Paths are from the folder that holds the package: ``papers/x/method.py``.
    """
    bases = (root, ROOT, claim.parent.parent)
    found = {}
    for path, names in sorted(dependencies(claim, root).items()):
        base = next(base for base in bases if path.is_relative_to(base))
        found[path.relative_to(base).as_posix()] = code_hash(path.read_text("utf-8"), names)
    return found


def code_hash(source: str, names: Collection[str] = ("",)) -> str:
    """16 hexadecimal digits for what a Python source does.

    Of ``names`` only, which the module defines; an empty name stands for all of it.
    """
    return hashlib.sha256(parsed(source).text(names).encode()).hexdigest()[:16]


def expected(claim: Path) -> str | None:
    """The outcome that a claim's file states; None where it states none in so many words."""
    for node in ast.walk(ast.parse(claim.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            for keyword in node.keywords if node.func.id == "record" else []:
                if keyword.arg == "expected" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value)
    return None


def margin_fault(claim: Path) -> str | None:
    """Why a claim may not be recorded yet: its margin is not in the last commit as it stands.

    A margin that is written down after a run is not one. Files outside of a git checkout are
    not asked.
    """
    git = ["git", "-C", str(claim.parent)]
    try:
        inside = subprocess.run([*git, "rev-parse"], capture_output=True, check=False)
    except OSError:
        return None
    now = _margin(claim.read_text(encoding="utf-8"))
    if now is None:
        return f"{claim}: there is no MARGIN = Margin(value, rule=...) at its top level"
    if inside.returncode:
        return None
    shown = subprocess.run(
        [*git, "show", f"HEAD:./{claim.name}"], capture_output=True, text=True, check=False
    )
    if shown.returncode or _margin(shown.stdout) != now:
        return f"{claim}: MARGIN is not in the last commit as it stands here; commit it first"
    return None


def _margin(source: str) -> str | None:
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "MARGIN":
            return ast.unparse(statement.value)
    return None


def _within(module: str, rooms: Sequence[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def _places(claim: Path, root: Path) -> dict[str, Path]:
    """Name of a package to the folder that holds it: ours, and an outsider's own."""
    places: dict[str, Path] = dict.fromkeys(OURS, root)
    if not (root / "vision").is_dir():  # an installation, whose papers lie in a folder of their own
        places["vision"] = ROOT
    if not claim.is_relative_to(root / "papers"):
        places[claim.parent.name] = claim.parent.parent
    return places


def claim_command(folder: Path, root: Path = ROOT) -> str:
    """The command that records a claim again."""
    name = folder.name if folder.parent == root / "papers" else str(folder)
    return f"python -m vision.papers claim {name} --record"


def fault(folder: Path, root: Path = ROOT) -> str | None:
    """What is wrong between the claim and the result in a paper's folder, with the way out."""
    claim, path, again = folder / CLAIM, folder / RESULT, claim_command(folder, root)
    if not claim.is_file():
        return f"{path}: there is no {CLAIM} beside it; remove it" if path.is_file() else None
    if not path.is_file():
        return f"{folder.name}: no result: {again}"
    try:
        result, current = read(path), depends(claim, root)
    except ResultError as error:
        return f"{error}: {again}"
    if dict(result.depends) != current:
        names = sorted({*result.depends, *current})
        changed = [name for name in names if result.depends.get(name) != current.get(name)]
        return f"{folder.name}: stale, {', '.join(changed)} changed: {again}"
    stated = expected(claim)
    if stated is not None and stated != result.outcome:
        return (
            f"{folder.name}: it is {result.outcome}; write expected={result.outcome!r} in {claim} "
            "and say in its docstring what was seen"
        )
    return None


def faults(root: Path = ROOT) -> list[str]:
    """``fault`` of all papers of a repository, those where nothing is wrong left out."""
    folders = sorted(path for path in (root / "papers").iterdir() if path.is_dir())
    return [line for line in (fault(folder, root) for folder in folders) if line is not None]
