"""docs/predict.md: what it shows runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests.predict.conftest import ROOT, call, jpeg, noise
from vision.predict.__main__ import main

PAGE = (ROOT / "docs" / "predict.md").read_text(encoding="utf-8")


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workdir: Path, dual: Path, data: Path
) -> Path:
    """A folder with the names that the page uses."""
    (tmp_path / "workdirs").mkdir()
    (tmp_path / "workdirs" / "mine").symlink_to(workdir)
    (tmp_path / "workdirs" / "clip").symlink_to(dual)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg(noise(0, (32, 32))))
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "more.jpg").write_bytes(jpeg(noise(1, (32, 32))))
    (tmp_path / "names.txt").write_text("red circle\nblue star\n")
    (tmp_path / "templates.txt").write_text("a {}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_python_runs(here: Path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        # Of the training a few steps do, of a small network.
        small = '"model.depth": "1", "model.width": "16", "model.heads": "2", "total"'
        block = block.replace('"total"', small)
        block = block.replace("2 epochs", "3 steps").replace("20 steps", "1 steps")
        exec(compile(block, "docs/predict.md", "exec"), names)
    with Image.open("where.png") as image:
        assert image.size == (16, 16)


@pytest.mark.slow
def test_the_commands_run(here: Path):
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)).replace("\\\n", " ")
    commands = [shlex.split(line)[3:] for line in text.splitlines() if "vision.predict" in line]
    # The last one is of the demo's run; weights of other libraries: test_pretrained.py.
    assert len(commands) == 9
    ours = [each for each in commands[:-1] if not any("--model" in word for word in each)]
    assert len(ours) == 5
    for command in ours:
        command = [word.replace("a cat,a dog", "red circle,blue star") for word in command]
        assert call(*command) == 0, command
    assert {p.name for p in here.iterdir() if p.is_file()} == {
        *("more.jpg", "names.txt", "templates.txt"),
        *("predictions.csv", "all.parquet", "embeddings.npz", "pets.csv"),
    }


def test_every_flag_is_on_the_page_and_the_links_lead_somewhere(
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = re.findall(r"^  --(\w+)", capsys.readouterr().out, re.M)
    assert len(flags) > 10
    missing = [flag for flag in flags if flag not in ("step",) and f"--{flag}" not in PAGE]
    assert not missing
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
