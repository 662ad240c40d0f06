"""The Dockerfile without Docker: what it copies is there and enough, and what it runs runs."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.test_install import checked, new_environment

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def stages() -> list[list[tuple[str, str]]]:
    """Instructions of every FROM and what follows it, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    found: list[list[tuple[str, str]]] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def copied(stage: list[tuple[str, str]]) -> list[str]:
    """Files and folders of the checkout that a stage copies."""
    lines = [shlex.split(rest) for name, rest in stage if name == "COPY"]
    return [each for words in lines if "--from" not in words[0] for each in words[:-1]]


def kept(path: str) -> bool:
    """Whether .dockerignore lets a path of the checkout's top into the build."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().split():
        if fnmatch.fnmatchcase(path, line.removeprefix("!")):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_is_all_that_a_wheel_is_made_of():
    wheel, image = stages()
    recipes = re.search(r"^RECIPES = (.*)$", (ROOT / "setup.py").read_text(), re.M)
    assert recipes is not None
    needed = {"pyproject.toml", "setup.py", "requirements.txt", "vision", PROJECT["readme"]}
    needed |= {"LICENSE", *re.findall(r"\w+", recipes[1])}
    assert set(copied(wheel)) == needed
    assert copied(image) == ["requirements.lock"]
    for path in (*copied(wheel), *copied(image)):
        assert (ROOT / path).exists(), path
        assert kept(path), f"{path} is copied, and .dockerignore leaves it out"
    assert not kept("workdirs")


def test_extras_python_and_command_exist():
    _, image = stages()
    (install,) = (rest for name, rest in image if name == "RUN" and "pip install" in rest)
    extras = re.search(r"\[([\w,]+)\$\{EXTRA:\+,\$EXTRA\}\]", install)
    assert extras is not None
    assert {*extras[1].split(","), "cuda"} <= {*PROJECT["optional-dependencies"]}
    bases = [rest.split()[0] for stage in stages() for name, rest in stage if name == "FROM"]
    assert bases == ["python:3.11-slim"] * 2
    assert PROJECT["requires-python"] == ">=3.11"
    (command,) = (rest for name, rest in image if name == "CMD")
    assert re.match(r'\["([\w-]+)"', command)[1] in PROJECT["scripts"]  # pyright: ignore


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_it_runs_runs(tmp_path: Path):
    """Its pip commands, in new environments; what we depend on is lent by this one."""
    wheel, image = stages()
    source, wheels, lock = tmp_path / "source", tmp_path / "wheels", tmp_path / "requirements.lock"
    source.mkdir()
    for path in copied(wheel):
        if (ROOT / path).is_dir():
            shutil.copytree(
                ROOT / path, source / path, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / path, source / path)
    shutil.copy(ROOT / "requirements.lock", lock)
    packages = new_environment(tmp_path / "env")
    programs = packages.parents[2] / "bin"
    (programs / "pip").write_text(f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n')
    (programs / "pip").chmod(0o755)
    # Without a network, and without a look at what the lent packages are.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_IGNORE_INSTALLED": "1"}
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONPATH"} | offline
    environment |= {"PIP_NO_BUILD_ISOLATION": "0", "PATH": f"{programs}:{os.environ['PATH']}"}
    runs = [rest for stage in (wheel, image) for name, rest in stage if name == "RUN"]
    assert len(runs) == 3
    for run in runs:
        if run.startswith("useradd"):
            continue
        line = run.replace("/tmp/requirements.lock", str(lock)).replace("/wheels", str(wheels))
        ran = subprocess.run(
            ["sh", "-ec", line], cwd=source, env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
    assert not wheels.exists()
    assert not lock.exists()
    work = tmp_path / "work"
    work.mkdir()
    assert "--workdir" in checked([str(programs / "vision-train"), "--help"], work)
    code = "import vision; print(len(vision.load('zoo:emoji_cnn').classes))"
    assert int(checked([str(programs / "python"), "-c", code], work)) > 10
