"""Python sources as their definitions and imports: which piece of code uses which other."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from vision.papers.syntax import canonical, global_names

MAX_HOPS = 16  # of a name that modules pass on to each other; two may do so in a circle


class Module:
    """A source.

    Attributes:
      tree: of the whole file.
      defined: name to the statements that define it.
      imported: name to the absolute dotted name of what was imported, functions' own imports
        left out.
    """

    def __init__(self, source: str):
        self.tree: ast.Module = _Unexpected().visit(ast.parse(source))
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imported = _imports(self.tree, nested=False)
        self._uses: dict[str, tuple[set[str], set[str]]] = {}
        self._texts: dict[frozenset[str], str] = {}
        for name, statement in _definitions(self.tree):
            self.defined.setdefault(name, []).append(statement)

    def uses(self, name: str) -> tuple[set[str], set[str]]:
        """What a definition uses: other names of this file, and absolute names of imports.

        Attributes are part of them: ``vision.blocks.ranking.ndcg``. An empty ``name`` stands for
        the whole file, its unused imports included.
        """
        if name not in self._uses:  # claims share much of what they depend on
            self._uses[name] = self._used_by(name)
        return self._uses[name]

    def _used_by(self, name: str) -> tuple[set[str], set[str]]:
        parts = self.defined.get(name, []) if name else [self.tree]
        used = {each for part in parts for each in global_names(part)}
        targets = {target for part in parts for target in _imports(part, nested=True).values()}
        own = set()
        for each in used:
            first, dot, attributes = each.partition(".")
            if first in self.defined:
                own.add(first)
            elif first in self.imported:
                targets.add(self.imported[first] + dot + attributes)
        if not name:
            firsts = {each.partition(".")[0] for each in used}
            targets |= {self.imported[each] for each in self.imported.keys() - firsts}
        return own, targets

    def text(self, names: Collection[str]) -> str:
        """``syntax.canonical`` of some definitions, or of all where a name is empty."""
        key = frozenset(names)
        if key not in self._texts:
            self._texts[key] = canonical(self._part(key))
        return self._texts[key]

    def _part(self, names: Collection[str]) -> ast.Module:
        tree = self.tree
        if "" not in names:
            chosen = {id(part) for name in names for part in self.defined.get(name, [])}
            tree = ast.Module([part for part in tree.body if id(part) in chosen], [])
        return tree


def module_of(path: Path) -> Module:
    return parsed(path.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1024)
def parsed(source: str) -> Module:
    return Module(source)


def resolve(target: str, places: Mapping[str, Path]) -> tuple[str, Path, str] | None:
    """Where an absolute dotted name leads.

    What a module only passes on (``from vision.blocks.ranking import ndcg`` in an
    ``__init__.py``) is followed to where it is defined.

    Args:
      target: of a module, or of something in it.
      places: name of a package to the folder that holds it; other packages lead nowhere.

    Returns:
      The module's dotted name, its file, and the name in it, empty for the module itself; None
      where there is no such module.
    """
    for _ in range(MAX_HOPS):
        found = _find(target.split("."), places)
        if found is None:
            return None
        module, file, (name, *attributes) = found
        source = module_of(file)
        if name in source.defined or name not in source.imported:
            return module, file, name
        target = ".".join((source.imported[name], *attributes))
    return None


def _find(parts: list[str], places: Mapping[str, Path]) -> tuple[str, Path, list[str]] | None:
    """The longest part of a dotted name that is a module, its file, and the rest, or ``""``."""
    for end in range(len(parts) if parts[0] in places else 0, 0, -1):
        place = places[parts[0]].joinpath(*parts[:end])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return ".".join(parts[:end]), file, parts[end:] or [""]
    return None


class _Unexpected(ast.NodeTransformer):
    """Leaves the outcome that a claim expects out of ``record(expected=...)``."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "record":
            node.keywords = [each for each in node.keywords if each.arg != "expected"]
        return node


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, statement
        elif not isinstance(statement, ast.Import | ast.ImportFrom):
            names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
            for name in dict.fromkeys(each.id for each in names if isinstance(each.ctx, ast.Store)):
                yield name, statement


def _imports(tree: ast.AST, nested: bool) -> dict[str, str]:
    """Name to what was imported.

    Args:
      tree: of a module or a part of one.
      nested: of the imports inside functions; else of the others.
    """
    found: dict[str, str] = {}
    queue = [(tree, False)]
    while queue:
        node, inside = queue.pop()
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if inside == nested and isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                found |= {alias.asname: alias.name} if alias.asname else {first: first}
        elif inside == nested and isinstance(node, ast.ImportFrom) and node.module:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        queue += [(child, inside) for child in ast.iter_child_nodes(node)]
    return found
