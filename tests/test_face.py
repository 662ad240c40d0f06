"""``import vision``: short names, lazily, the same for Python and for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vision
from vision.config.schema import locate, public_path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "vision" / "__init__.py"


def for_type_checkers() -> dict[str, tuple[str, str]]:
    """Name to module and name there, from the ``TYPE_CHECKING`` block."""
    found = {}
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module != "typing":
            found |= {str(each.asname): (str(node.module), each.name) for each in node.names}
    return found


def test_type_checkers_see_what_python_does():
    spaces = {name: tuple(path.rsplit(".", 1)) for name, path in vision._MODULES.items()}
    assert for_type_checkers() == {**vision._HOMES, **spaces}
    assert len(vision._HOMES) == sum(map(len, vision._NAMES.values()))


def test_no_name_is_a_room_too():
    """``vision.data`` is the package; a name like it would change with what was imported."""
    rooms = {path.stem for path in (ROOT / "vision").iterdir()}
    assert not rooms & {*vision._HOMES, *vision._MODULES}


def test_every_name_is_there():
    for name in [*vision._HOMES, *vision._MODULES]:
        assert getattr(vision, name) is not None
        assert name in dir(vision)
    with pytest.raises(AttributeError, match="no attribute 'ViTT'"):
        getattr(vision, "ViTT")  # noqa: B009


def test_importing_it_costs_nothing():
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import vision\n"
        "took = time.process_time() - start; new = set(sys.modules) - before\n"
        "assert not {'jax', 'numpy', 'flax'} & new, new; print(took)"
    )
    times = []
    for _ in range(3):  # seconds of processor time, the best of three: other programs run here too
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        assert ran.returncode == 0, ran.stderr
        times.append(float(ran.stdout))
        time.sleep(0.1)
    assert min(times) < 0.05


def test_stored_paths_pass_over_the_public_face():
    assert public_path(vision.ViT) == "vision.models.vit.ViT"
    assert public_path(vision.ops.Decode) == "vision.data.ops.Decode"
    assert locate("vision.data.ops.values.Decode") is vision.ops.Decode
