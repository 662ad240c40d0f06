"""train.py and evaluate.py as a new user calls them: own images, typos, damaged files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
import train
from vision.config.cli import run_main
from vision.programs.workdir import evaluate_workdir
from vision.run.log import read_rows

ROOT = Path(__file__).resolve().parents[1]
FOLDER = f"--config={ROOT}/configs/folder_vit.py"
DIGITS = f"--config={ROOT}/configs/digits_vit.py"
SMALL = [
    "--config.model.width=24",
    "--config.model.depth=1",
    "--config.data.batch_size=16",
    "--config.evaluators.val.data.batch_size=16",
    "--config.total=8 steps",
    "--config.optimizer.schedule.warmup=0 steps",
    "--config.log_every=1 steps",
]


def call(program, *arguments: str) -> int:
    return run_main(program.main, list(arguments))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images, with the accidents of a real folder among them."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (root / name).mkdir()
        for i in range(20):
            noise = rng.normal(level, 20, (40 + i, 60, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(root / name / f"{i:02}.jpg")
    whole = (root / "dark" / "03.jpg").read_bytes()
    (root / "dark" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "light" / "text.jpg").write_text("this is no image")
    Image.fromarray(rng.integers(0, 255, (30, 30), np.uint8)).save(root / "light" / "grey.png")
    Image.new("CMYK", (50, 50), (10, 20, 30, 40)).save(root / "dark" / "cmyk.jpg")
    Image.new("RGB", (1, 1)).save(root / "dark" / "one_pixel.png")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(root / "light" / "deep.png")
    Image.new("P", (33, 44)).save(root / "light" / "palette.png")
    return root


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "mine"
    assert call(train, f"{FOLDER}:{images}", f"--workdir={workdir}", *SMALL) == 0
    return workdir


def test_own_images_train_and_bad_files_are_listed(images: Path, trained: Path):
    rows = read_rows(trained / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    bad = read_rows(trained / "bad_records.jsonl")
    named = {Path(row["key"]).name for row in bad}
    assert named == {"cut.jpg", "text.jpg"}
    assert all(row["reason"] for row in bad)
    assert rows[-1]["train/bad_records"] == len(bad)
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    page = (trained / "report.html").read_text()
    assert "last step 8" in page
    assert "There is no evaluation.json here: evaluate.py writes it." in page


def test_the_time_of_a_run_is_accounted_for(trained: Path):
    rows = read_rows(trained / "metrics.jsonl")
    seconds = {k: v for k, v in rows[-1].items() if k.startswith("seconds/")}
    assert {"seconds/start", "seconds/compile", "seconds/step", "seconds/data"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())
    # The share is of the time before the last save and evaluation; the seconds are of all.
    assert rows[-1]["goodput"] == pytest.approx(
        seconds["seconds/step"] / sum(seconds.values()), rel=1.0
    )
    heart = json.loads((trained / "heartbeat.json").read_text())
    assert heart["step"] == 8


@pytest.mark.slow  # to write a trace takes as long as to train
def test_steps_are_profiled(images: Path, tmp_path: Path):
    flags = (f"--workdir={tmp_path}", "--profile=2")
    assert call(train, f"{FOLDER}:{images}", *flags, *SMALL) == 0
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_evaluate_writes_json_and_page(trained: Path, capsys: pytest.CaptureFixture[str]):
    assert call(evaluate, f"--workdir={trained}") == 0
    printed = capsys.readouterr().out
    assert "top1" in printed
    text = (trained / "evaluation.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["step"] == 8
    assert found["evaluators"]["val"]["metrics"]["examples"] >= 3
    assert f"--workdir={trained}" in found["command"]
    page = (trained / "report.html").read_text()
    assert "dark" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_evaluation_repeats_exactly_and_equals_the_last_row(trained: Path, tmp_path: Path):
    once = evaluate_workdir(trained, tmp_path / "a", step=8)["evaluators"]["val"]["metrics"]
    again = evaluate_workdir(trained, tmp_path / "b")["evaluators"]["val"]["metrics"]
    assert once == again
    row = read_rows(trained / "metrics.jsonl")[-1]
    for name, value in once.items():
        assert row[f"val/{name}"] == pytest.approx(value, rel=1e-5), name


def test_without_masking_a_damaged_file_stops_the_run_by_name(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = call(
        train,
        f"{FOLDER}:{images}",
        f"--workdir={tmp_path / 'w'}",
        *SMALL,
        "--config.data.on_error=raise",
        "--config.total=50 steps",
        "--config.optimizer.schedule.warmup=0 steps",
    )
    error = capsys.readouterr().err
    assert status == 2
    assert "error:" in error
    assert "cut.jpg" in error or "text.jpg" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--config=... is required"]),
        ([DIGITS], ["--workdir=... is required"]),
        ([DIGITS, "--wrokdir=x"], ["unknown flag --wrokdir", "--workdir"]),
        ([DIGITS, "x"], ["'x' is no flag"]),
        ([DIGITS.replace("digits", "digit")], ["does not exist", "did you mean", "digits_vit.py"]),
        ([DIGITS, "--config.modle.width=3"], ["no parameter 'modle'", "did you mean 'model'"]),
        ([DIGITS, "--config.model.widht=3"], ["no parameter 'widht'", "did you mean 'width'"]),
        ([DIGITS, "--config.model.width=wide"], ["expected a whole number >= 1"]),
        ([DIGITS, "--config.total=80"], ["config.total is '80'", "'90 epochs'"]),
        ([DIGITS, "--config.model.heads=5"], ["heads=5 does not divide width=48"]),
        ([DIGITS, "--config.mesh.data=3"], ["does not fill the"]),
        ([DIGITS, "--config.data.source.split=tset"], ["expected one of 'train', 'test', 'all'"]),
        ([FOLDER], ["images"]),
        ([FOLDER + ":/nowhere"], ["/nowhere"]),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if len(arguments) and arguments != [DIGITS] and "--wrokdir=x" not in arguments:
        arguments = [*arguments, f"--workdir={tmp_path / 'w'}"]
    assert call(train, *arguments) == 2
    error = re.sub(r"^(training .*|reading data)\n", "", capsys.readouterr().err, flags=re.M)
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert all(word in error for word in words), error


def test_an_empty_folder_and_an_empty_class_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    assert call(train, f"{FOLDER}:{tmp_path / 'empty'}", f"--workdir={tmp_path / 'w'}") == 2
    assert str(tmp_path / "empty") in capsys.readouterr().err
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    (tmp_path / "classes" / "dog").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "classes" / "cat" / "a.png")
    assert call(train, f"{FOLDER}:{tmp_path / 'classes'}", f"--workdir={tmp_path / 'w2'}") == 2
    assert "dog" in capsys.readouterr().err


def test_train_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments, words in (
        ([DIGITS, f"--workdir={tmp_path}", "--profile"], ["--profile= is no whole number"]),
        (
            [DIGITS, f"--workdir={tmp_path}", "--config.accumulate=0"],
            ["config.accumulate=0", "a whole number >= 1"],
        ),
        (
            [DIGITS, f"--workdir={tmp_path}", "--config.nonfinite.action=ignore"],
            ["nonfinite.action", "'stop'"],
        ),
    ):
        assert call(train, *arguments) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words), error


def test_evaluate_mistakes(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments, words in (
        ([f"--workdir={tmp_path}"], ["not the workdir of a run"]),
        ([f"--workdir={trained}", "--evaluators=vla"], ["no evaluator 'vla'", "'val'"]),
        ([f"--workdir={trained}", "--config.seed=1"], ["config is that of the workdir"]),
        ([f"--workdir={trained}", "--step=5"], ["no valid checkpoint of step 5", "has 7, 8"]),
        ([f"--workdir={trained}", "--step=last"], ["step 'last' is neither a number nor best"]),
    ):
        assert call(evaluate, *arguments) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words), error


def test_a_loss_that_is_not_finite_stops_with_advice(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = call(
        train,
        f"{FOLDER}:{images}",
        f"--workdir={tmp_path / 'w'}",
        *SMALL,
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.clip_norm=None",
        "--config.optimizer.schedule.warmup=0 steps",
    )
    assert status == 1
    assert "learning_rate" in capsys.readouterr().err


def test_help_prints_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        call(train, "--help")
    assert "--config.data.ops[1].size=192" in capsys.readouterr().out
