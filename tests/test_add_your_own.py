"""docs/add_your_own.md: its files, put into a folder anywhere, go through every program."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vision
from vision.checkpoint.reading import load_state
from vision.config.cli import run_main
from vision.config.own_modules import is_own
from vision.predict.__main__ import main as predict
from vision.programs.evaluate import main as evaluate
from vision.programs.train import main as train
from vision.train.state import digest
from vision.weights.export import main as export

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "add_your_own.md").read_text(encoding="utf-8")
STEMS = ("tower", "stripes", "salt", "confident", "confidence", "config")
PROGRAMS = {
    "vision-train": train,
    "vision-evaluate": evaluate,
    "vision-predict": predict,
    "vision.weights.export": export,
}


def files() -> dict[str, str]:
    """Name to text of the page's files."""
    return dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S))


def commands(heading: str) -> list[list[str]]:
    """The commands of the first block below a heading, split into words."""
    section = PAGE.split(f"\n## {heading}\n")[1]
    block = re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S)[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def write_folder(folder: Path) -> None:
    """The page's files, and an image to ask about."""
    folder.mkdir(parents=True)
    for name, text in files().items():
        (folder / name).write_text(text)
    lying = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None] % 2 * 255, (8, 8))
    Image.fromarray(lying).save(folder / "stripe.png")


def forget() -> None:
    """What a new process knows: nothing of modules beside configs."""
    for name, module in list(sys.modules.items()):
        if is_own(name) or is_own(str(getattr(module, "__name__", ""))):
            del sys.modules[name]


def run(words: list[str], status: int = 0) -> None:
    """A command of the page, in this process."""
    if words[0] == "python":
        words = words[2:]
    forget()
    assert run_main(PROGRAMS[words[0]], words[1:]) == status, words


@pytest.fixture(scope="module")
def research(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder, trained once; tests run in it."""
    folder = tmp_path_factory.mktemp("disk") / "anywhere" / "research"
    write_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first, *_ = commands("Train, go on, measure, predict, export")
        run([*first, *KEPT])
        yield folder


KEPT = ["--config.checkpoints.every=10 steps", "--config.checkpoints.keep=9"]


def test_the_files_are_short():
    assert list(files()) == [f"{stem}.py" for stem in STEMS]
    for name, text in files().items():
        length = len([line for line in text.splitlines() if line.strip()])
        assert length <= (14 if name != "config.py" else 24), name


@pytest.mark.slow
def test_the_commands_run(research: Path, capfd: pytest.CaptureFixture[str]):
    first, again, *others = commands("Train, go on, measure, predict, export")
    assert first == again
    step, state = load_state(Path("w"))
    assert step == 30
    # As a run that was killed after step 20 leaves it.
    shutil.rmtree("w/checkpoints/30")
    run([*again, *KEPT])
    assert "resumed from the checkpoint of step 20" in capfd.readouterr().err
    step, resumed = load_state(Path("w"))
    assert (step, digest(resumed)) == (30, digest(state))
    assert [words[0] for words in others] == ["vision-evaluate", "vision-predict", "python"]
    for words in others:
        run(words)
    written = json.loads(Path("w/evaluation.json").read_text())["evaluators"]
    metrics = {name: each["metrics"] for name, each in written.items()}
    assert metrics["test"]["top1"] == 1.0
    assert 0.5 < metrics["sure"]["confidence"] <= 1.0
    assert Path("said.csv").read_text().splitlines()[1].startswith("stripe.png,lying,")
    assert json.loads(Path("published/labels.json").read_text()) == ["standing", "lying"]
    assert {"model.safetensors", "model.stablehlo"} <= {p.name for p in Path("published").iterdir()}
    forget()
    (block,) = re.findall(r"^```python\nimport vision\n.*?^```", PAGE, re.M | re.S)
    exec(block.strip("`").removeprefix("python"), {})
    assert capfd.readouterr().out.splitlines()[-1].startswith("{'lying': ")


def test_the_workdir_remembers_the_files(research: Path):
    recorded = json.loads(Path("w/modules.json").read_text())
    assert recorded.pop("_crc32")
    assert sorted(recorded) == sorted({*STEMS} - {"config"})
    assert {row["folder"] for row in recorded.values()} == {str(research.resolve())}


def test_a_changed_file_is_named(research: Path, caplog: pytest.LogCaptureFixture):
    before = (research / "salt.py").read_text()
    try:
        (research / "salt.py").write_text(before + "# and more\n")
        said = "salt.py has changed since w was made with it"
        forget()
        for _ in range(2):  # the second time it is loaded already
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                vision.load("w")
            assert said in caplog.text
            assert "tower.py" not in caplog.text
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run(["vision-train", "--config=config.py", "--workdir=w", *KEPT])
        assert "salt.py is not what it was when w was made with it" in caplog.text
    finally:
        (research / "salt.py").write_text(before)


def test_a_missing_file_is_one_line_with_the_way_out(
    research: Path, capfd: pytest.CaptureFixture[str]
):
    (research / "tower.py").rename(research / "moved")
    try:
        for words in (
            ["vision-evaluate", "--workdir=w"],
            ["vision-predict", "--workdir=w", "stripe.png", "--out=said.csv"],
            ["vision.weights.export", "--workdir=w", "--output=again"],
        ):
            run(words, status=2)
            said = capfd.readouterr().err.strip()
            assert "\n" not in said
            assert f"uses tower, which was {research}/tower.py and is gone; put it back" in said
            assert "or run train.py with the config where it is now" in said
        run(["vision-train", "--config=config.py", "--workdir=w"], status=2)
        assert "config.py:6: ModuleNotFoundError: No module named 'tower'" in capfd.readouterr().err
    finally:
        (research / "moved").rename(research / "tower.py")
