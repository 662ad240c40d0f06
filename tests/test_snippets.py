"""Python in the documents: what it assigns and calls is what a config file may have."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: Path) -> list[ast.Module]:
    """The blocks that are complete Python."""
    found = []
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        try:
            found.append(ast.parse(block))
        except SyntaxError:
            continue
    return found


def faults(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(value=ast.Tuple(elts=[_])):
                found.append(f"a tuple of one: {ast.unparse(node)[:80]}")
            case ast.Call(func=ast.Name("spec") | ast.Attribute(attr="spec"), args=[_, *more]):
                # Three dots stand for what a reader fills in.
                if any(not isinstance(x, ast.Constant) or x.value is not ... for x in more):
                    found.append(f"arguments without names: {ast.unparse(node)[:80]}")
    return found


def test_faults_are_found():
    assert len(faults(ast.parse("model = (spec(ViT, depth=3),)\nx = spec(ViT, 3)"))) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_tuple_of_one_and_no_nameless_argument(page: Path):
    assert [fault for tree in snippets(page) for fault in faults(tree)] == []


def test_inline_specs_have_names():
    for page in PAGES:
        for call in re.findall(r"`[^`\n]*(spec\(\w+, [^`\n]*)`", page.read_text()):
            assert re.match(r"spec\(\w+, (\w+=|\*\*|\.\.\.)", call), f"{page.name}: {call}"
