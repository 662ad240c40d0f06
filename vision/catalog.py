"""Finds what there is: configs, models, data, ops, objectives, evaluators and methods, a line each.

    python -m vision.catalog                      everything, by kind
    python -m vision.catalog blur                 lines with a word; several words: with all of them
    python -m vision.catalog --kind=evaluators robust

Names are those of `import vision as v`: v.ViT, ops.RandomFlip; configs and methods are what
--config takes. What can be set in a config says train.py --config=NAME --help.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import vision
from vision.config.cli import UsageError, parse, run_main
from vision.config.config_files import recipes

# Kind to the packages whose public names are of it; the first that fits counts.
KINDS = {
    "models": ("vision.models",),
    "sources": ("vision.data.sources",),
    "data": ("vision.data",),
    "objectives": ("vision.objectives",),
    "evaluators": ("vision.evaluators",),
    "weights": ("vision.weights",),
    "training": ("vision.train", "vision.run", "vision.checkpoint", "vision.parallel"),
}
MODULES = {"ops": "vision.data.ops", "batch ops": "vision.data.batch_ops"}
ORDER = ("configs", "models", "sources", "data", *MODULES, "objectives", "evaluators", "weights",
         "training", "other", "methods")  # fmt: skip
_ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Line:
    """Something that a config can name.

    Attributes:
      kind: one of ``ORDER``.
      name: as one writes it.
      text: the first sentence of its docstring, or the title of a paper.
      words: what is searched beside these.
    """

    kind: str
    name: str
    text: str
    words: str = ""


def catalog() -> list[Line]:
    """Everything, by kind and name. Nothing is imported: docstrings are read from the source."""
    found = [*_configs(), *_public(), *_exported(), *_methods()]
    return sorted(found, key=lambda line: (ORDER.index(line.kind), line.name.lower()))


def search(lines: list[Line], words: list[str], kind: str = "") -> list[Line]:
    """The lines of a kind, all with an empty one, that have all words."""
    lowered = [word.lower() for word in words]
    return [
        line
        for line in lines
        if (not kind or line.kind == kind)
        and all(word in f"{line.name} {line.text} {line.words}".lower() for word in lowered)
    ]


def _configs() -> Iterator[Line]:
    root = recipes()
    for path in sorted((root / "configs").glob("*.py")):
        if path.stem != "__init__":
            yield Line("configs", f"configs/{path.name}", _sentence(ast.parse(path.read_text())))


def _methods() -> Iterator[Line]:
    from vision.papers import discover

    for entry in discover.all_papers(discover.home()):
        paper = entry.paper
        words = " ".join((*paper.tags, paper.headline))
        yield Line("methods", entry.slug, f"{paper.title} ({paper.year})", words)


def _public() -> Iterator[Line]:
    for module, names in vision._NAMES.items():
        fitting = (k for k, packages in KINDS.items() if module.startswith(packages))
        kind = next(fitting, "other")
        for name in names:
            if text := _described(module, name):  # constants and types have none
                yield Line(kind, name, text, module)


def _exported() -> Iterator[Line]:
    for kind, module in MODULES.items():
        prefix = module.rpartition(".")[2]
        for name in sorted(_definitions(module)):
            if name[0].isupper() and not name.isupper():
                yield Line(kind, f"{prefix}.{name}", _described(module, name), module)


def _described(module: str, name: str) -> str:
    """The first sentence about a name: of its docstring, also through a package that exports it."""
    found = _definitions(module).get(name)
    if isinstance(found, ast.ImportFrom):
        original = next(x.name for x in found.names if (x.asname or x.name) == name)
        return _described(str(found.module), original)
    return _sentence(found) if isinstance(found, ast.ClassDef | ast.FunctionDef) else ""


@functools.cache
def _definitions(module: str) -> dict[str, ast.stmt]:
    """What stands at the top of a module, by name."""
    path = _ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: dict[str, ast.stmt] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ImportFrom) and path.name == "__init__.py":
            found |= {alias.asname or alias.name: node for alias in node.names}
    return found


def _sentence(node: ast.ClassDef | ast.FunctionDef | ast.Module) -> str:
    """The first sentence of a docstring."""
    paragraph = (ast.get_docstring(node) or "").partition("\n\n")[0]
    text = " ".join(paragraph.split()).replace("``", "")
    end = re.search(r"(?<!al)(?<!\be\.g)(?<!\bi\.e)\. ", text)
    return (text if end is None else text[: end.start()]).rstrip(".:, ")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    words = [each for each in arguments if not each.startswith("-")]
    flags = [each for each in arguments if each.startswith("-")]
    options = parse(flags, __doc__ or "", kind=f"only of a kind: {', '.join(ORDER)}")
    kind = str(options.kind or "")
    if options.kind is True or (kind and kind not in ORDER):
        near = difflib.get_close_matches(kind, ORDER, n=1)
        hint = f"; did you mean {near[0]}?" if near else f": one of {', '.join(ORDER)}"
        raise UsageError(f"--kind={kind} is no kind{hint}")
    lines = catalog()
    found = search(lines, words, kind)
    if not found:
        near = difflib.get_close_matches(" ".join(words), [x.name for x in lines], n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(near)}" if near else ""
        print(f"nothing has {' and '.join(map(repr, words))}{hint}")
        return 1
    width = min(34, max(len(line.name) for line in found))
    last = ""
    for line in found:
        if line.kind != last:
            print(f"{chr(10) if last else ''}{line.kind}")
            last = line.kind
        print(f"  {line.name.ljust(width)}  {line.text}")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
