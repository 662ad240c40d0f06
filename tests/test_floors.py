"""Who may import whom: the floors of docs/architecture.md, and the limits of file sizes."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = {
    "config": (),
    "parallel": ("config",),
    "train": ("config", "parallel"),
    "checkpoint": ("config", "parallel", "train"),
    "evaluate": ("config", "parallel", "train"),
    "run": ("config", "parallel", "train", "checkpoint", "evaluate"),
}
LOWER = (*CORE, "data", "models", "blocks", "metrics")
UPPER = ("objectives", "evaluators", "probes", "scenario", "weights", "report")
FLOORS = {
    **CORE,
    "data": tuple(CORE),
    "models": (*CORE, "blocks"),
    "blocks": tuple(CORE),
    "metrics": tuple(CORE),
    **dict.fromkeys(UPPER, (*LOWER, *UPPER)),
    "report": (*LOWER, *UPPER, "predict"),
    "papers": (*LOWER, *UPPER),
    "predict": (*LOWER, *(each for each in UPPER if each != "report")),
    "serve": (*LOWER, *UPPER, "predict"),
    "programs": (*LOWER, *UPPER, "papers"),
    "zoo": (*LOWER, *UPPER, "papers", "predict", "report", "programs"),
    "sweep": (*LOWER, *UPPER),
}
FILES = sorted((ROOT / "vision").rglob("*.py"))
PAPERS = sorted((ROOT / "papers").rglob("*.py"))
MAX_LINES = 400
# What a paper's own folder may use beside the library: configs share parts and recipes, and its
# tests and its claim share small networks and peers' answers.
SHARED = ("configs", "tests")


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def imports(path: Path) -> list[str]:
    """Absolute names of all modules a file imports, at any depth of nesting."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole path"
            assert node.module is not None
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "vision").parts
    return parts[0] if len(parts) > 1 else ""


def allowed(importer: Path, name: str) -> bool:
    """Whether a file of ``vision`` or ``papers`` may import a module or a name in one."""
    parts = name.split(".")
    if importer.is_relative_to(ROOT / "papers"):
        slug = importer.relative_to(ROOT / "papers").parts[0]
        if parts[0] == "papers":
            return len(parts) > 1 and parts[1] == slug
        shared = SHARED if importer.name in ("claim.py", "conftest.py", "captum.py") else SHARED[:1]
        if importer.name.startswith("test_"):
            shared = SHARED
        ours = parts[0] in ("configs", "tests", "bench", "train", "evaluate")
        return not ours or any(name == each or name.startswith(each + ".") for each in shared)
    if parts[0] in ("configs", "papers", "bench", "tests"):
        return False
    if parts[0] != "vision" or len(parts) == 1:
        return True
    here = room(importer)
    if here == "":  # the public face
        return True
    return parts[1] == here or parts[1] in FLOORS[here] or not (ROOT / "vision" / parts[1]).exists()


@pytest.mark.parametrize("path", [*FILES, *PAPERS], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_floors(path: Path):
    wrong = [name for name in imports(path) if not allowed(path, name)]
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_the_floor_test_can_fail():
    step, method = ROOT / "vision/train/step.py", ROOT / "papers/dino/method.py"
    assert not allowed(step, "vision.data.source")
    assert not allowed(step, "vision.run.loop")
    assert not allowed(step, "configs.digits_vit")
    assert not allowed(ROOT / "vision/run/loop.py", "papers.smmix.method")
    assert not allowed(ROOT / "vision/data/x.py", "vision.models.vit")
    assert not allowed(ROOT / "vision/metrics/x.py", "vision.blocks.ranking")
    assert not allowed(method, "papers.simclr.method")
    assert not allowed(method, "tests.patch_tower")
    assert allowed(ROOT / "papers/dino/test_method.py", "tests.patch_tower")
    assert allowed(method, "papers.dino.heads")
    assert allowed(method, "vision.blocks.ema")


def test_every_room_has_a_floor():
    rooms = {p.name for p in (ROOT / "vision").iterdir() if p.is_dir() and p.name[0] != "_"}
    assert rooms == set(FLOORS)


def users(name: str) -> set[str]:
    """Papers and rooms that import a module; the room it stands in counts by its files."""
    here = name.split(".")[1]
    found = set()
    for path in (*FILES, *PAPERS):
        if module(path) == name or path.name.startswith("test_"):
            continue
        if any(each == name or each.startswith(name + ".") for each in imports(path)):
            parts = path.relative_to(ROOT).parts
            inside = parts[:2] == ("vision", here)
            found.add(module(path) if inside else ".".join(parts[:2]))
    return found


BLOCKS = [path for path in FILES if room(path) == "blocks" and path.name != "__init__.py"]


@pytest.mark.parametrize("path", BLOCKS, ids=lambda p: p.stem)
def test_a_block_has_two_users(path: Path):
    """A trick of one paper stands in that paper's folder until a second one needs it."""
    found = users(module(path))
    assert len(found) > 1, f"{module(path)} serves {', '.join(found) or 'nobody'} only: move it"


def test_linen_stays_behind_its_seam():
    users = [
        str(p.relative_to(ROOT))
        for p in FILES
        if any(m.startswith("flax.linen") or m == "flax.nn" for m in imports(p))
    ]
    strays = [u for u in users if not u.startswith(("vision/models/", "vision/train/tower.py"))]
    assert not strays


def test_no_file_is_a_drawer():
    long = {
        str(path.relative_to(ROOT)): count
        for path in (*FILES, *PAPERS)
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long
    for script in ("train.py", "evaluate.py"):
        assert len((ROOT / script).read_text().splitlines()) <= 60, script


def test_files_of_tests_have_names_of_their_own():
    """pytest imports those of tests/ by their name alone; those of papers/ are packages."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
