"""The documents: their Python, commands and links name what is there."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from vision.config.config_files import find

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


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", title).strip().lower() for title in titles)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path):
    missing = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in headings(file)):
            missing.append(target)
    assert missing == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def commands(page: Path) -> list[list[str]]:
    """The lines of bash blocks that run a program of ours, continued lines joined."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if any(re.fullmatch(r"(\S*/)?python3?", word) for word in words[:1]):
                found.append(words[1:])
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_commands_name_programs_flags_and_configs_that_are_there(page: Path):
    faults = []
    for words in commands(page):
        shown = " ".join(words)
        if words[0] == "-m" and words[1].partition(".")[0] in ("vision", "papers", "bench"):
            parts = ROOT / words[1].replace(".", "/")
            program = parts / "__main__.py" if parts.is_dir() else parts.with_suffix(".py")
        elif words[0] in ("train.py", "evaluate.py"):
            program = ROOT / "vision" / "programs" / words[0]
        else:
            continue
        if not program.exists():
            faults.append(f"{shown}: no {program.relative_to(ROOT)}")
            continue
        files = program.parent.glob("*.py") if program.name == "__main__.py" else [program]
        source = "".join(file.read_text() for file in files)
        for word in words:
            name, equals, value = word.partition("=")
            flag = name.removeprefix("--").partition(".")[0]
            if name == "--config" and re.match(r"[\w/]+(\.py)?(:|$)", value):
                file = value.partition(":")[0]
                if find(file) is None and Path(file).stem != "x":  # x.py stands for one's own
                    faults.append(f"{shown}: no config {file}")
            elif equals and name.startswith("--") and flag != "config":
                known = re.search(rf"\b{flag}\b", source) or "argparse" in source
                faults += [] if known else [f"{shown}: {program.name} has no --{flag}"]
    assert faults == []
