"""--help answers at once, also of modules that import much; the first line of train.py too."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vision.config.tree import config_tree, documented
from vision.models.vit import ViT

ROOT = Path(__file__).resolve().parents[2]
# Times of a process that starts and imports numpy, in CPU-seconds.
MOST = 6.0
PROGRAMS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for path in (ROOT / "vision").rglob("*.py")
    if re.search(r'^if __name__ == "__main__":\n(?!    help_first)', path.read_text(), re.M)
)
# Nothing that takes seconds to import may be there before the first word.
HEAVY = ("jax", "flax", "optax", "orbax", "grain", "pyarrow")


def cpu_seconds(*command: str) -> tuple[float, str]:
    """Of a process to its end, and what it printed."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    after = os.times()
    used = after.children_user - before.children_user
    return used + after.children_system - before.children_system, done.stdout


@functools.cache
def bare() -> float:
    return min(cpu_seconds("-c", "import numpy")[0] for _ in range(2))


def test_the_programs_are_found():
    assert {"vision.predict", "vision.serve", "vision.report.run", "vision.catalog"} <= {*PROGRAMS}
    assert len(PROGRAMS) > 15


@pytest.mark.parametrize("module", PROGRAMS)
def test_help_is_there_at_once(module: str):
    taken, said = cpu_seconds("-m", module, "--help")
    assert module.rpartition(".")[2] in said
    if taken > MOST * bare():  # another process may have slowed this one: once more
        taken = min(taken, cpu_seconds("-m", module, "--help")[0])
    assert taken < MOST * bare(), f"{taken / bare():.1f} times a bare start"


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_scripts_say_something_before_they_import_much(script: str):
    """With the heavy packages out of reach, help and the first line are there all the same."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); sys.argv[1:] = "
    run = f"import runpy; runpy.run_path({script!r}, run_name='__main__')"

    def said(*arguments: str) -> str:
        code = f"{blocked}{list(arguments)!r}; {run}"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        return done.stdout + done.stderr

    assert "--workdir" in said("--help")
    if script == "train.py":
        told = said("--config=configs/digits_vit.py", "--workdir=/nowhere/w")
        assert told.startswith("training configs/digits_vit.py in /nowhere/w\n")


def test_training_says_what_it_does_within_two_seconds(tmp_path: Path):
    """In seconds of a processor: other programs on the machine do not count."""
    flags = ["--config=digits_vit", f"--workdir={tmp_path / 'w'}"]
    before = os.times()
    with subprocess.Popen(
        [sys.executable, "train.py", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.kill()
    after = os.times()
    used = after.children_user - before.children_user
    assert first == f"training digits_vit in {tmp_path / 'w'}\n"
    assert used + after.children_system - before.children_system < 2.0


def test_help_of_a_config_does_not_wait_for_what_only_training_needs():
    unneeded = ("orbax.checkpoint", "grain", "tensorstore")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({unneeded!r})); sys.argv[1:] = "
        "['--config=digits_vit', '--help']; "
        "import runpy; runpy.run_path('train.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "config.model: ViT" in done.stdout


def test_the_tree_of_a_config():
    tree = config_tree("configs/folder_vit.py")
    assert tree.startswith("configs/folder_vit.py: what --config.KEY=VALUE can set")
    assert "  log_every = '10 steps'  [str; default '50 steps']" in tree
    assert "config.data.ops[1]: RandomResizedCrop  (vision.data.ops" in tree
    assert "config.evaluators.val: Classification" in tree
    assert re.search(r"label_smoothing = 0.1  \[a number.*; default 0.0\]\n +weight of the", tree)


def test_texts_of_parameters():
    texts = documented(ViT)
    assert {"width", "depth", "patch"} <= texts.keys()
    assert all(not text.endswith(" ") and "\n" not in text for text in texts.values())
