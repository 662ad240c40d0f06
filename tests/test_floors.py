"""Who may import whom: the floors of docs/architecture.md, and the limits of file sizes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UPPER = ("objectives", "evaluators", "adapt", "scenario", "curate", "weights", "report")
FLOORS = {
    "core": (),
    "data": ("core", "data"),
    "models": ("core", "models", "blocks"),
    "blocks": ("core", "blocks"),
    "measures": ("core", "measures"),
    "launch": ("core", "launch"),
    **dict.fromkeys(UPPER, ("core", "data", "models", "blocks", "measures", *UPPER)),
    "methods": ("core", "data", "models", "blocks", "measures", *UPPER),
    "programs": ("core", "data", "models", "blocks", "measures", "programs", *UPPER),
    "papers": ("core", "data", "models", "blocks", "measures", *UPPER),
}
FILES = sorted((ROOT / "vision").rglob("*.py"))
MAX_LINES = 400
UNSEEN = ("methods", "papers", "launch", "report", "programs")  # through the public face


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


def allowed(importer: Path, module: str) -> bool:
    parts = module.split(".")
    if parts[0] in ("configs", "papers", "claims", "bench", "tests"):
        return False
    if parts[0] != "vision" or len(parts) == 1:
        return True
    here = room(importer)
    if here == "":  # the public face, where names of all rooms but papers' are
        return parts[1] in FLOORS and parts[1] not in UNSEEN
    if here == "methods" and parts[1] == "methods":
        own = ".".join(("vision", *importer.relative_to(ROOT / "vision").with_suffix("").parts))
        return module.startswith(own)
    return parts[1] == here or parts[1] in FLOORS[here]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_floors(path: Path):
    wrong = [module for module in imports(path) if not allowed(path, module)]
    assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_the_floor_test_can_fail():
    core, method = ROOT / "vision/train/step.py", ROOT / "vision/methods/ssl/dino.py"
    assert not allowed(core, "vision.data.source")
    assert not allowed(core, "configs.digits_vit")
    assert not allowed(ROOT / "vision/data/x.py", "vision.models.vit")
    assert not allowed(ROOT / "vision/measures/x.py", "vision.blocks.ranking")
    assert not allowed(method, "vision.methods.ssl.simclr")
    assert allowed(method, "vision.blocks.ema")
    assert not allowed(ROOT / "vision/report/run.py", "vision.programs.evaluate")
    assert not allowed(ROOT / "vision/programs/train.py", "configs.digits_vit")


def test_every_room_has_a_floor():
    rooms = {p.name for p in (ROOT / "vision").iterdir() if p.is_dir() and p.name[0] != "_"}
    assert rooms <= set(FLOORS)


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
        for path in FILES
        if (count := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long
    for script in ("train.py", "evaluate.py"):
        assert len((ROOT / script).read_text().splitlines()) <= 60, script
