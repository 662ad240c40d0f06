"""What a claim's hash does not depend on, and what it does."""

from __future__ import annotations

import ast
import itertools

import pytest

from vision.papers.ledger import code_hash
from vision.papers.syntax import global_names

PLAIN = """
def f(x, *rest, scale=1):
    total = 0
    for row in x:
        total += scale * sum(value for value in row)
    def helper(row):
        return row + total
    return [helper(each) for each in x], rest
"""
SAME = {
    "layout": PLAIN.replace("x, *rest, scale=1", "\n    x,\n    *rest,\n    scale=1,\n"),
    "comments": PLAIN.replace("total = 0", "total = 0  # so far\n"),
    "docstring": PLAIN.replace("scale=1):", 'scale=1):\n    """Adds."""'),
    "a local": PLAIN.replace("total", "accumulated"),
    "a loop's target": PLAIN.replace("for row in x", "for line in x").replace(
        "in row)", "in line)"
    ),
    "a comprehension's target": PLAIN.replace("each", "one"),
    "an inner function": PLAIN.replace("helper", "shifted"),
    "the rest of the arguments": PLAIN.replace("rest", "others"),
}
OTHER = {
    "a parameter": PLAIN.replace("scale", "factor"),
    "an inner function's parameter": PLAIN.replace("helper(row)", "helper(r)").replace(
        "return row", "return r"
    ),
    "a global": PLAIN.replace("sum(", "max("),
    "a number": PLAIN.replace("total = 0", "total = 1"),
    "its type": PLAIN.replace("total = 0", "total = 0.0"),
    "an operator": PLAIN.replace("scale *", "scale +"),
    "which local": PLAIN.replace("return row + total", "return row + x"),
    "another name": PLAIN.replace("def f", "def g"),
    "a default": PLAIN.replace("scale=1", "scale=2"),
    "order": PLAIN.replace("row + total", "total + row"),
}


@pytest.mark.parametrize("what", SAME)
def test_layout_and_names_of_locals_do_not_count(what: str):
    assert SAME[what] != PLAIN
    assert code_hash(SAME[what]) == code_hash(PLAIN)


def test_everything_else_counts():
    sources = {"nothing": PLAIN, **OTHER}
    for (a, one), (b, two) in itertools.combinations(sources.items(), 2):
        assert code_hash(one) != code_hash(two), (a, b)


@pytest.mark.parametrize(
    ("source", "same"),
    [
        # Attributes and class bodies are seen from outside, methods' locals are not.
        ("class A:\n    NAME = 1", False),
        ("class A:\n    def f(s):\n        NAME = 1", True),
        ("class A:\n    def f(s):\n        s.NAME = 1", False),
        # Names of a module are, too.
        ("NAME = 1", False),
        ("from a import b as NAME", False),
        ("x = [NAME for NAME in b]", True),
        ("x = [NAME for NAME in NAME]", False),
        ("f = lambda NAME: NAME", False),
        # A global is not a local of the same name.
        ("def f():\n    x = 1\n    return NAME", False),
        ("def f():\n    global NAME\n    NAME = 1", False),
        ("def f():\n    NAME = 0\n    def g():\n        nonlocal NAME\n        NAME = 1", True),
        # An import inside is a local, what it imports counts.
        ("def f():\n    import a as NAME\n    NAME.c()", True),
        ("def f():\n    import NAME as b\n    b.c()", False),
        ("def f():\n    try: ...\n    except E as NAME:\n        print(NAME)", True),
        ("def f(x):\n    match x:\n        case [c, *NAME]: return c, NAME", True),
        ("def f(NAME, /): return NAME", True),
        ("def f(*, NAME): return NAME", False),
        ("def f(a):\n    return g(NAME=a)", False),
        ("def f():\n    if (NAME := 1): return NAME", True),
        ("def f(x):\n    return [NAME := y for y in x], NAME", True),
        # A name within a text is part of what is printed.
        ("def f():\n    NAME = 1\n    return f'{NAME}'", True),
        ("def f():\n    NAME = 1\n    return f'{NAME=}'", False),
        # The outcome that a claim expects.
        ("record(expected=NAME, margin=x)", True),
        ("other(expected=NAME, margin=x)", False),
    ],
)
def test_names_that_count(source: str, same: bool):
    one, two = (source.replace("NAME", name) for name in ("this", "that"))
    assert (code_hash(one) == code_hash(two)) == same


def test_a_comprehension_reads_its_first_iterable_outside():
    assert code_hash("x = [a for a in b]") == code_hash("x = [b for b in b]")


def test_two_locals_are_not_one():
    one = "def f(g):\n    a = 1\n    b = 2\n    return g(a, b)"
    assert code_hash(one) != code_hash(one.replace("g(a, b)", "g(b, a)"))
    assert code_hash(one) != code_hash(one.replace("g(a, b)", "g(a, a)"))
    swapped = "def f(g):\n    b = 1\n    a = 2\n    return g(b, a)"
    assert code_hash(one) == code_hash(swapped)


def test_a_part_of_a_file():
    source = "A = 1\n\n\n@cache\ndef f(): ...\n\n\nB: int = 2\n"
    assert code_hash(source, ["f", "B"]) == code_hash("@cache\ndef f(): ...\nB: int = 2\n")
    assert code_hash(source, ["f"]) != code_hash(source, ["B"])


def test_the_hash_is_the_same_on_every_python():
    source = "X = 1.5, 'é', b'\\0', None, ..., 2j, -1\nasync def g(a: int = 3) -> str: f'{a:{a}}'\n"
    assert code_hash(PLAIN + source) == "affdbba90e25fc17"


def test_names_that_come_from_outside():
    names = global_names(ast.parse("def f(x):\n    y = [abs(v) for v in x]\n    return g(y, K.z)"))
    assert names == {"f", "abs", "g", "K.z"}
