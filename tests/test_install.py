"""A wheel in an environment of its own: programs, recipes and package data, from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_add_your_own import commands, write_folder

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("vision", "configs", "papers", "zoo", "pyproject.toml", "setup.py", "requirements.txt")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def checked(command: list[str], cwd: Path) -> str:
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONPATH"}
    ran = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def new_environment(folder: Path) -> Path:
    """Makes one; what we depend on is lent by the one that runs this."""
    checked([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(checked([str(folder / "bin" / "python"), "-c", code], folder).strip())
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return packages


def install(folder: Path, *what: str) -> None:
    into = [f"--python={folder / 'bin' / 'python'}", "install", "--ignore-installed", *OFFLINE]
    checked([*PIP, *into, *what], folder)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages of a new environment with the wheel."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    source.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__")
    for part in (*PARTS, "README.md", "LICENSE"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=unwanted)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, source / part)
    checked([*PIP, "wheel", *OFFLINE, f"--wheel-dir={folder}", str(source)], folder)
    shutil.rmtree(source)
    packages = new_environment(folder / "env")
    (wheel,) = folder.glob("*.whl")
    install(folder / "env", str(wheel))
    return packages


def test_train_and_evaluate_from_anywhere(environment: Path, tmp_path: Path):
    programs = environment.parents[2] / "bin"
    changes = [
        "total=5 steps",
        "optimizer.schedule.warmup=0 steps",
        "model.width=16",
        "model.depth=1",
        "model.heads=2",
    ]
    flags = [f"--config.{change}" for change in changes]
    train = [str(programs / "vision-train"), "--config=digits_vit", "--workdir=w", *flags]
    assert "5 steps" in checked(train, tmp_path)
    assert "evaluate.py writes it" in (tmp_path / "w" / "report.html").read_text()
    shown = checked([str(programs / "vision-evaluate"), "--workdir=w", "--out=o"], tmp_path)
    assert "top1" in shown
    assert json.loads((tmp_path / "o" / "evaluation.json").read_text())["step"] == 5
    assert (tmp_path / "o" / "report.html").stat().st_size > 10_000
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    predict = [str(programs / "vision-predict"), "--workdir=w", "black.png", "--out=p.csv"]
    assert "1 image in" in checked(predict, tmp_path)
    assert (tmp_path / "p.csv").read_text().count("\n") == 2
    sweep = [str(programs / "vision-sweep"), "--config=digits_vit", "--workdir=s", *flags]
    assert "1 of 1 trials" in checked([*sweep, "--grid", "seed=3"], tmp_path)
    assert (tmp_path / "s" / "0000" / "report.html").exists()
    assert "--port" in checked([str(programs / "vision-serve"), "--help"], tmp_path)


@pytest.mark.parametrize("heading", ["Train, go on, measure, predict, export", "A paper"])
def test_an_own_folder(heading: str, environment: Path, tmp_path: Path):
    """docs/add_your_own.md as it stands, a process for each command, with the installed package."""
    write_folder(tmp_path / "research")
    programs = environment.parents[2] / "bin"
    for words in commands(heading):
        if "claim" in words:  # a minute of training: tests/papers/test_run_claims.py
            continue
        if heading == "A paper" and words[0] == "vision-train":
            words.append("--config.total=30 steps")
        assert words[0] == "python" or words[0].startswith("vision-")
        said = checked([str(programs / words[0]), *words[1:]], tmp_path / "research")
        assert "Warning" not in said
    if heading == "A paper":
        held = json.loads((tmp_path / "research" / "p" / "evaluation.json").read_text())
        assert held["step"] == 30
    else:
        assert "already trained to step 30" in checked(
            [str(programs / "vision-train"), "--config=research/config.py", "--workdir=research/w"],
            tmp_path,
        )
        assert (tmp_path / "research" / "said.csv").read_text().count("\n") == 2


def test_what_is_installed(environment: Path, tmp_path: Path):
    def files(folder: Path) -> set[str]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)) for path in found if "__pycache__" not in path.parts}

    assert files(environment / "vision") >= files(ROOT / "vision")
    for folder in ("configs", "zoo"):
        assert files(environment / "vision" / "_recipes" / folder) == files(ROOT / folder)
    for name in ("configs", "papers", "zoo", "tests", "claims", "bench"):
        assert not (environment / name).exists()
    code = "import vision; print(vision.__version__, vision.__file__, vision.ViT.__name__)"
    said = checked([str(environment.parents[2] / "bin" / "python"), "-c", code], tmp_path)
    assert str(environment) in said


def test_an_editable_install(tmp_path: Path):
    """The checkout itself, in a second environment: nothing is copied."""
    new_environment(tmp_path / "env")
    source = tmp_path / "checkout"
    source.mkdir()
    for part in (*PARTS, "README.md", "LICENSE"):
        if (ROOT / part).exists():
            (source / part).symlink_to(ROOT / part)
    install(tmp_path / "env", "--editable", str(source))
    code = (
        "import vision; from vision.config.specs import load; print(vision.__file__)\n"
        f"print(load({str(ROOT / 'configs' / 'folder_vit.py')!r}).total)"
    )
    said = checked([str(tmp_path / "env" / "bin" / "python"), "-c", code], tmp_path)
    assert said.split()[0] in (str(source / "vision/__init__.py"), str(ROOT / "vision/__init__.py"))
    assert (tmp_path / "env" / "bin" / "vision-evaluate").exists()
