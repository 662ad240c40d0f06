"""What a piece of Python does, as text that formatting and the names of locals do not change.

Two pieces have the same ``canonical`` text when they differ in layout, comments, docstrings, and
in names that nothing outside of a function can see: variables that it assigns, the targets of its
loops and comprehensions, functions and imports inside it, ``*args`` and ``**kwargs``. Those are
replaced by their order of first appearance. Parameters are callable by keyword and keep their
names. The text does not depend on the version of Python.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
# Fields that say nothing about what runs: ``u""``, comments about types, and whether a name is
# read or written, which its place says.
SILENT = {"kind", "type_comment", "ctx"}


def canonical(node: ast.AST) -> str:
    """The text of a piece of code."""
    return _Writer().text(node)


def global_names(node: ast.AST) -> set[str]:
    """Names that a piece of code takes from its module, or from the builtins, each with the
    attributes that are asked of it: ``np.linalg.norm``."""
    writer = _Writer()
    writer.text(node)
    return writer.globals


class _Writer:
    """Walks trees. ``scopes`` are those around a node, the innermost last."""

    def __init__(self):
        self.globals: set[str] = set()
        self.count = 0

    def text(self, node: ast.AST) -> str:
        return self._node(node, ())

    def _node(self, node: ast.AST, scopes: tuple[_Scope, ...]) -> str:
        if isinstance(node, ast.Name):
            return f"Name({self._name(node.id, scopes)})"
        if isinstance(node, ast.Attribute) and (chain := _chain(node)):
            return f"Attribute({self._name(chain[0], scopes, chain[1:])})"
        if isinstance(node, Function):
            return self._function(node, scopes)
        if isinstance(node, Comprehension):
            return self._comprehension(node, scopes)
        if isinstance(node, ast.ClassDef):
            inner = (*scopes, _Scope(_bound(node.body), set(), is_class=True))
            return self._fields(node, scopes, inner)
        if isinstance(node, ast.alias):
            return f"alias({node.name}, {self._name(_bound_by(node), scopes, used=False)})"
        if isinstance(node, ast.Global | ast.Nonlocal):
            names = ", ".join(self._name(name, scopes[:-1]) for name in node.names)
            return f"{type(node).__name__}({names})"
        return self._fields(node, scopes)

    def _fields(
        self,
        node: ast.AST,
        scopes: tuple[_Scope, ...],
        body: tuple[_Scope, ...] | None = None,
        leave_out: str = "",
    ) -> str:
        """A node by its fields; ``body`` are the scopes around its body, where it has its own."""
        written = []
        for field, value in ast.iter_fields(node):
            if field in SILENT or field == leave_out or value is None or value == []:
                continue
            around = body if field == "body" and body is not None else scopes
            if field == "body" and isinstance(node, ast.Module | ast.ClassDef | Function):
                value = _without_docstring(value)
            if isinstance(node, ast.JoinedStr):  # Python 3.12 has empty texts in some
                value = [each for each in value if getattr(each, "value", None) != ""]
            if isinstance(value, str) and _binds(node, field):
                shown = self._name(value, around)
            elif isinstance(value, list):
                shown = f"[{', '.join(self._value(each, around) for each in value)}]"
            else:
                shown = self._value(value, around)
            written.append(f"{field}={shown}")
        return f"{type(node).__name__}({', '.join(written)})"

    def _value(self, value: object, scopes: tuple[_Scope, ...]) -> str:
        return self._node(value, scopes) if isinstance(value, ast.AST) else repr(value)

    def _function(self, node: Function, scopes: tuple[_Scope, ...]) -> str:
        """Defaults, decorators and annotations are read outside, the body inside."""
        given = node.args
        hidden = {each.arg for each in (*given.posonlyargs, given.vararg, given.kwarg) if each}
        visible = {each.arg for each in (*given.args, *given.kwonlyargs)}
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        inside = (*scopes, _Scope(visible, _bound(body) | hidden))
        kinds = {
            "": [*given.posonlyargs, *given.args],
            "*": [given.vararg] if given.vararg else [],
            "=": given.kwonlyargs,
            "**": [given.kwarg] if given.kwarg else [],
        }
        parts = [
            f"{kind}{self._name(each.arg, inside)}{self._annotation(each, scopes)}"
            for kind, arguments in kinds.items()
            for each in arguments
        ]
        # Whether a parameter can be given by name, and from where on there are defaults.
        parts += [f"{len(given.posonlyargs)} / {len(given.defaults)}"]
        parts += [self._value(each, scopes) for each in (*given.defaults, *given.kw_defaults)]
        return f"({', '.join(parts)})" + self._fields(node, scopes, inside, leave_out="args")

    def _annotation(self, node: ast.arg, scopes: tuple[_Scope, ...]) -> str:
        return "" if node.annotation is None else f": {self._node(node.annotation, scopes)}"

    def _comprehension(self, node: Comprehension, scopes: tuple[_Scope, ...]) -> str:
        """The first iterable is read outside, the rest inside."""
        targets = {
            each.id
            for generator in node.generators
            for each in ast.walk(generator.target)
            if isinstance(each, ast.Name) and _stores(each)
        }
        inside = (*scopes, _Scope(set(), targets))
        parts = []
        for i, each in enumerate(node.generators):
            parts.append(self._node(each.iter, inside if i else scopes))
            parts.append(self._fields(each, inside, leave_out="iter"))
        return f"{', '.join(parts)}: {self._fields(node, inside, leave_out='generators')}"

    def _name(
        self,
        name: str,
        scopes: tuple[_Scope, ...],
        attributes: Sequence[str] = (),
        used: bool = True,
    ) -> str:
        dotted = ".".join((name, *attributes))
        for depth, scope in reversed(list(enumerate(scopes))):
            # The body of a class is seen by itself only, not by its methods.
            if scope.is_class and depth < len(scopes) - 1:
                continue
            if name in scope.visible:
                return dotted
            if name in scope.numbers:
                if scope.numbers[name] is None:
                    scope.numbers[name] = self.count
                    self.count += 1
                return ".".join((f"#{scope.numbers[name]}", *attributes))
        self.globals |= {dotted} if used else set()
        return dotted


class _Scope:
    """A function, comprehension or class.

    ``visible`` are its names that can be seen from outside; ``numbers`` has the others, with
    their numbers, None until they first appear.
    """

    def __init__(self, visible: set[str], hidden: set[str], is_class: bool = False):
        self.visible = visible
        self.numbers: dict[str, int | None] = dict.fromkeys(hidden - visible)
        self.is_class = is_class


def _bound(body: Sequence[ast.AST]) -> set[str]:
    """Names that the statements of a scope bind in it."""
    bound: set[str] = set()
    elsewhere: set[str] = set()
    for node in _own(body):
        if isinstance(node, ast.Global | ast.Nonlocal):
            elsewhere |= set(node.names)
        elif isinstance(node, ast.alias):
            bound.add(_bound_by(node))
        elif isinstance(node, ast.Name):
            bound |= {node.id} if _stores(node) else set()
        else:
            for field in ("name", "rest"):
                value = getattr(node, field, None)
                bound |= {value} if isinstance(value, str) and _binds(node, field) else set()
    return bound - elsewhere


def _own(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Nodes of a scope without those inside of the scopes in it."""
    queue = list(body)
    while queue:
        node = queue.pop()
        yield node
        if isinstance(node, Function | ast.ClassDef):
            continue
        if isinstance(node, Comprehension):
            # Only ``:=`` binds outside of a comprehension.
            queue += [each for each in ast.walk(node) if isinstance(each, ast.NamedExpr)]
            continue
        queue += ast.iter_child_nodes(node)


def _stores(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del)


def _binds(node: ast.AST, field: str) -> bool:
    """Whether a text field is a name that the node binds."""
    names = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
    if isinstance(node, names | ast.MatchAs | ast.MatchStar):
        return field == "name"
    return isinstance(node, ast.MatchMapping) and field == "rest"


def _chain(node: ast.Attribute) -> list[str]:
    """``a``, ``b``, ``c`` of ``a.b.c``; nothing for attributes of what is no name."""
    attributes = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        attributes.append(value.attr)
        value = value.value
    return [value.id, *reversed(attributes)] if isinstance(value, ast.Name) else []


def _bound_by(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    if not isinstance(body, list) or not body or not isinstance(body[0], ast.Expr):
        return body
    value = body[0].value
    return body[1:] if isinstance(value, ast.Constant) and isinstance(value.value, str) else body
