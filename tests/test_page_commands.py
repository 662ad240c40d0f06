"""Commands of the documents that no other test runs, as they stand, on a short run of the demo."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from vision.config.cli import run_main
from vision.data.sources.digits import Digits
from vision.programs.evaluate import main as evaluate
from vision.programs.train import main as train

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["total=20 steps", "optimizer.schedule.warmup=2 steps", "model.width=16", "model.depth=1"]
SMALL += ["model.heads=2"]
WORKDIRS = ("a", "b", "c", "d", "x", "mine", "probe", "tuned")
# Of what is not here: other libraries' weights, other data, other evaluators; and what takes longer
# and has tests of its own in tests/programs, tests/evaluators and tests/test_finetune.py.
LEFT_OUT = (
    r"timm:|finetune_folder|folder_vit|clip_scenes|--step=1000|--suite|by=val|treemap|layout|--onnx"
    r"|--concepts"
)
COUNTS = {"evaluation": 2, "checkpoints": 4, "export": 4, "explain": 1, "finetuning": 3}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def commands(page: str) -> list[list[str]]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    text = re.sub(r"^python - <<'EOF'.*?^EOF$", "", text, flags=re.M | re.S)
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("python ") and not re.search(LEFT_OUT, line)
    ]
    return [shlex.split(re.sub(r"\[--[^\]]*\]", "", line), comments=True) for line in lines]


def program(words: list[str]) -> tuple[Callable[[list[str]], int | None], list[str]]:
    """The main function of a command, and its arguments."""
    if words[1] == "evaluate.py":
        return evaluate, words[2:]
    assert words[1] == "-m"
    name = words[2].replace("checkpoint.store", "checkpoint.commands")  # what it runs
    return importlib.import_module(name).main, words[3:]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = [f"--config.{change}" for change in SMALL]
        assert train(["--config=digits_vit", "--workdir=workdirs/run", *flags]) == 0
        for name in WORKDIRS:
            shutil.copytree("workdirs/run", f"workdirs/{name}")
        Path("photos").mkdir()
        for i in range(3):
            Image.fromarray(Digits(split="test")[i]["image"][..., 0]).save(f"photos/{i}.png")
        shutil.copy("photos/0.png", "image.jpg")
        yield folder


@pytest.mark.parametrize("page", COUNTS)
def test_commands_run(page: str, here: Path):
    found = commands(page)
    assert len(found) == COUNTS[page], found
    for words in found:
        main, arguments = program(words)
        assert run_main(lambda given, main=main: main(given) or 0, arguments) == 0, words
