"""Every block of the documents runs in a test, or says in its page why not."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import test_blocks
from tests.doc_blocks import PAGES, ROOT, blocks
from tests.test_page_commands import COUNTS, commands

# Page to the test that runs its blocks of Python.
PYTHON = {
    **dict.fromkeys(test_blocks.PAGES, "tests/test_blocks.py"),
    "README": "tests/test_doc_blocks.py",
    "add_your_own": "tests/test_add_your_own.py",
    "data": "tests/data/test_data_docs.py",
    "predict": "tests/predict/test_docs.py",
    "sweep": "tests/test_blocks.py",
    "tutorial": "tests/test_tutorial.py",
}
# Page to the test that runs its commands, beside tests/test_page_commands.py.
BASH = {
    "add_your_own": "tests/test_add_your_own.py",
    "predict": "tests/predict/test_docs.py",
    "tutorial": "tests/test_tutorial.py",
}
# What commands have, to the test that runs their program on smaller data or for fewer steps.
SHORTER = {
    r"folder_vit\.py:images|--workdir=workdirs/mine": "tests/test_tutorial.py",
    r"vision\.papers list": "tests/papers/test_commands.py",
    r"g_simclr|workdirs/g/": "papers/g_simclr/test_method.py",
    r"configs/digits_vit\.py --workdir=workdirs/d": "tests/test_programs.py",
    r"--suite=full|--compare=|--evaluators=": "tests/test_evaluate.py",
    r"--features=workdirs": "tests/evaluators/test_odin_vim.py",
    r"vision\.sweep": "tests/sweep/test_sweep.py",
    r"vision\.catalog": "tests/test_catalog.py",
    r"--help$": "tests/programs/test_help.py",
    r"dendromap\.treemap": "papers/dendromap/test_in_browser.py",
    r"finetune_folder|digits/first|--average=": "tests/test_finetune.py",
    r"programs\.layout": "tests/programs/test_layout.py",
    r"programs\.launch": "tests/programs/test_local.py",
    r"report\.retrieval|localhost:8008": "tests/report/test_retrieval_page.py",
    r"vision\.serve|localhost:8009": "tests/predict/test_serve.py",
}


def reasons() -> dict[str, list[str]]:
    """Page to what its marks say."""
    found = {page: [r for block in blocks(page) for r in block.marks.values()] for page in PAGES}
    return {page: each for page, each in found.items() if each}


def test_blocks_of_python_run_in_a_test():
    pages = {
        block.page
        for page in PAGES
        for block in blocks(page)
        if block.language == "python" and "" not in block.marks
    }
    assert pages == set(PYTHON)
    for page, test in PYTHON.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert page in text or PAGES[page].name in text, f"{test} says nothing of {page}"


def test_commands_run_in_a_test():
    """As they stand, or, where that would take minutes, the same programs with less to do."""
    ran = {tuple(x) for page in COUNTS for x in commands(page)}
    missing = []
    for page in PAGES:
        for block in blocks(page) if page not in BASH else ():
            for line in block.lines() if block.language == "bash" else ():
                words = tuple(shlex.split(re.sub(r"\[--[^\]]*\]", "", line)))
                if words not in ran and not any(re.search(each, line) for each in SHORTER):
                    missing.append(f"{page}: {line}")
    assert missing == []
    for test in (*SHORTER.values(), *BASH.values()):
        assert (ROOT / test).is_file(), test


def test_what_is_not_run_is_this():
    """A new mark is a promise less: it changes this list, with its reason in the page."""
    found = reasons()
    assert {page: len(each) for page, each in found.items()} == {
        "README": 3, "CONTRIBUTING": 3, "evaluation": 1, "explain": 2, "export": 2,
        "finetuning": 3, "index": 1, "install": 4, "predict": 2, "scaling": 2, "serve": 1,
        "sweep": 2, "weights": 2,
    }  # fmt: skip
    for page, each in found.items():
        for reason in each:
            assert len(reason) > 10, page
            for test in re.findall(r"tests/[\w/.]+\.py", reason):
                assert (ROOT / test).is_file(), f"{page}: {test}"


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With a tower of the zoo in the place of the reader's run."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(np.full((48, 48, 3), 200, np.uint8)).save("photos/a.png")
    (block,) = (each.text for each in blocks("README") if each.language == "python")
    assert '"workdirs/mine"' in block
    exec(compile(block.replace("workdirs/mine", "zoo:emoji_cnn"), "README.md", "exec"), {})
    assert len(ast.literal_eval(capsys.readouterr().out)) == 5


def test_a_block_has_its_marks_and_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    page = tmp_path / "x.md"
    page.write_text(
        "<!-- not run, b: no b here -->\n\n```bash\npython a.py \\\n    --c  # why\npython b.py\n"
        "python - <<'EOF'\nprint(1)\nEOF\n```\n\n<!-- not run: nothing -->\n```python\nx\n```\n"
    )
    monkeypatch.setitem(PAGES, "x", page)
    first, second = blocks("x")
    assert first.marks == {"b": "no b here"}
    assert first.lines() == ["python a.py --c"]
    assert first.scripts() == ["print(1)\n"]
    assert (second.marks, second.lines()) == ({"": "nothing"}, [])
