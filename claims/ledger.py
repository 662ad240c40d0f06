"""What claims found: one JSON file per claim, and whether it is still about this code.

A result is stale when a definition that it depends on has changed. These are the claim's file;
what it imports itself; and what those name, at any depth, in ``ROOMS``, where methods live. So a
claim about a loss depends on the loss, its blocks and its config, but not on another loss in the
same file. It does not depend on ``HOUSE`` (the loop, the data layer, pages) nor on towers and
metrics that only come with a config: all claims stand on these, whose identities the tests keep,
and to repeat hours of training after every edit there would teach people to stop editing. An
outcome that changes all the same is found by the sample of claims that CI runs. Comments,
docstrings and blank lines do not count.

Nothing here imports JAX: checking is for the fast tests.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import io
import json
import math
import statistics
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "claims" / "results"
ROOMS = (
    *("configs", "vision.methods", "vision.objectives", "vision.blocks"),
    *("vision.adapt", "vision.scenario", "vision.curate"),
)
HOUSE = (
    *("vision.core", "vision.data", "vision.report", "vision.launch"),
    *("claims.common", "claims.ledger"),
)


class LedgerError(Exception):
    """A result that is not one."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two things that are compared: its name, and a number for every seed."""

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds; 0 for a single number."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    def __str__(self) -> str:
        spread = f" ± {self.spread:.2g}" if len(self.values) > 1 else ""
        return f"{self.name} {self.mean:.3g}{spread}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A quantity, for the method and for what it is compared with.

    Attributes:
      what: its name and unit.
      method: the method's.
      baseline: the other's; None for an error, which is compared with 0.
    """

    what: str
    method: Side
    baseline: Side | None = None

    def __str__(self) -> str:
        against = "" if self.baseline is None else f" against {self.baseline}"
        return f"{self.what}: {self.method}{against}"


@dataclasses.dataclass(frozen=True)
class Parity:
    """Agreement with another implementation: its name and version, and the largest error."""

    peer: str
    version: str
    max_error: float


@dataclasses.dataclass(frozen=True)
class Result:
    """What a claim found.

    Attributes:
      card: number of the paper's card.
      paper: title and year.
      claim: one sentence.
      holds: whether it was so.
      measured: at least one quantity.
      seeds: of the runs; empty where nothing is random.
      seconds: of processor time for the whole claim, which a busy machine changes less than
        the time on the wall.
      parity: with a public implementation; None without one.
      depends: path of every file it depends on, from the root, to the hash of what it uses there.
    """

    card: int
    paper: str
    claim: str
    holds: bool
    measured: tuple[Measured, ...]
    seeds: tuple[int, ...]
    seconds: float
    parity: Parity | None
    depends: Mapping[str, str]


def slug(claim: Path) -> str:
    """Name of a claim from that of its file."""
    return claim.stem.removeprefix("test_")


def claim_files(root: Path = ROOT) -> tuple[Path, ...]:
    """All claims, by slug."""
    return tuple(sorted((root / "claims").glob("*/test_*.py"), key=slug))


def result_file(claim: Path, root: Path = ROOT) -> Path:
    return root / "claims" / "results" / f"{slug(claim)}.json"


def write(result: Result, path: Path) -> None:
    """Writes a result, its means and spreads beside the numbers they come from."""
    plain = dataclasses.asdict(result)
    for measured, said in zip(result.measured, plain["measured"], strict=True):
        for name in ("method", "baseline"):
            side: Side | None = getattr(measured, name)
            if side is not None:
                said[name] |= {"mean": side.mean, "spread": side.spread}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n")


def read(path: Path) -> Result:
    """Reads a result.

    Raises:
      LedgerError: not JSON, an entry too many or too few, or one of a wrong kind; it says which.
    """
    try:
        return _result(json.loads(path.read_text()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LedgerError(f"{path.name}: {error or type(error).__name__}") from error


def _result(plain: Any) -> Result:
    measured = tuple(
        Measured(
            _text(each["what"], "what"),
            _side(each["method"]),
            None if each["baseline"] is None else _side(each["baseline"]),
        )
        for each in plain["measured"]
    )
    parity = None if plain["parity"] is None else Parity(**plain["parity"])
    result = Result(**{**plain, "measured": measured, "parity": parity})
    result = dataclasses.replace(result, seeds=tuple(result.seeds))
    if type(result.card) is not int or result.card < 1:
        raise ValueError(f"card is {result.card!r}, not the number of a card")
    if type(result.holds) is not bool:
        raise ValueError(f"holds is {result.holds!r}, not true or false")
    if any(type(seed) is not int for seed in result.seeds):
        raise ValueError(f"seeds are {result.seeds!r}, not whole numbers")
    if not (math.isfinite(result.seconds) and result.seconds >= 0):
        raise ValueError(f"seconds is {result.seconds!r}")
    for text, name in ((result.paper, "paper"), (result.claim, "claim")):
        _text(text, name)
    if not measured or not result.depends:
        raise ValueError("measured and depends must not be empty")
    return result


def _side(plain: Mapping[str, Any]) -> Side:
    side = Side(_text(plain["name"], "name"), tuple(plain["values"]))
    if not side.values or not all(math.isfinite(value) for value in side.values):
        raise ValueError(f"{side.name}: values are {side.values}")
    for name in ("mean", "spread"):
        if not math.isclose(plain[name], getattr(side, name), rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"{side.name}: {name} {plain[name]} is not that of its values")
    return side


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} is {value!r}, not a text")
    return value


def dependencies(claim: Path, root: Path = ROOT) -> dict[Path, set[str]]:
    """The files that a claim depends on and the names it uses of each; see this module.

    An empty name stands for the whole file: the claim itself, and modules imported as such.
    """
    found: dict[Path, set[str]] = {}
    queue = [(claim, "")]
    while queue:
        path, name = queue.pop()
        if name in found.setdefault(path, set()):
            continue
        found[path].add(name)
        tree, defined, imported = _parsed(path.read_text())
        used = {
            node.id
            for part in (defined.get(name, []) if name else [tree])
            for node in ast.walk(part)
            if isinstance(node, ast.Name)
        }
        for each in sorted(used if name else used | imported.keys()):
            module = imported.get(each)
            if module is None:
                queue += [(path, each)] if name and each in defined else []
            elif not _within(module, HOUSE) if path == claim else _within(module, ROOMS):
                queue += [(file, of) for file, of in [_place(module, root)] if file is not None]
    return found


def depends(claim: Path, root: Path = ROOT) -> dict[str, str]:
    """Path from the root to the hash of the code it uses, for every file of ``dependencies``."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(
            code(path.read_text(), names).encode()
        ).hexdigest()[:16]
        for path, names in sorted(dependencies(claim, root).items())
    }


def code(source: str, names: Collection[str] = ("",)) -> str:
    """Python source without comments, docstrings, blank lines and spaces at the ends of lines.

    Of ``names`` only, which the module defines; an empty name stands for all of it.
    """
    lines = source.splitlines()
    tree, defined, _ = _parsed(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for first, last in _docstrings(tree):
        lines[first - 1 : last] = [""] * (last - first + 1)
    if "" not in names:
        kept = {
            row
            for name, parts in defined.items()
            if name in names
            for part in parts
            for row in range(_first_line(part), (part.end_lineno or part.lineno) + 1)
        }
        lines = [line for row, line in enumerate(lines, 1) if row in kept]
    return "\n".join(line.rstrip() for line in lines if line.strip())


@functools.lru_cache(maxsize=1024)
def _parsed(source: str) -> tuple[ast.Module, dict[str, list[ast.stmt]], dict[str, str]]:
    """The tree of a source, what it defines and what it imports."""
    tree = ast.parse(source)
    return tree, _definitions(tree), _imports(tree)


def _definitions(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """The statements of a module that define each of its names."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(statement.name, []).append(statement)
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found.setdefault(node.id, []).append(statement)
    return found


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """First and last line of every docstring."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            yield node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno


def _imports(tree: ast.Module) -> dict[str, str]:
    """Name in a file to the absolute name of what was imported, at any depth of nesting."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _within(module: str, rooms: Sequence[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def _place(module: str, root: Path) -> tuple[Path | None, str]:
    """The file of ours that holds a module, or that and the name imported from it."""
    parts = module.split(".")
    if parts[0] in ("vision", "configs", "claims"):
        for end, name in ((len(parts), ""), (len(parts) - 1, parts[-1])):
            place = root.joinpath(*parts[:end])
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    return file, name
    return None, ""


def faults(root: Path = ROOT) -> list[str]:
    """What is wrong between claims and results, a line each with the way out."""
    wrong = []
    claims = claim_files(root)
    for name in sorted({slug(c) for c in claims if [slug(o) for o in claims].count(slug(c)) > 1}):
        wrong.append(f"{name}: two claims have this name; rename one")
    known = {result_file(claim, root) for claim in claims}
    for path in sorted((root / "claims" / "results").glob("*.json")):
        if path not in known:
            wrong.append(f"{path.name}: there is no such claim; remove the file")
    for claim in claims:
        path = result_file(claim, root)
        again = f"python -m pytest {claim.relative_to(root).as_posix()} --record"
        if not path.is_file():
            wrong.append(f"{slug(claim)}: no result: {again}")
            continue
        try:
            recorded, current = read(path).depends, depends(claim, root)
        except LedgerError as error:
            wrong.append(f"{error}: {again}")
            continue
        if dict(recorded) != current:
            names = sorted({*recorded, *current})
            changed = [name for name in names if recorded.get(name) != current.get(name)]
            wrong.append(f"{slug(claim)}: stale, {', '.join(changed)} changed: {again}")
    return wrong
