"""A changed config, a renamed workdir, a restart without its weights: what is said and done."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.run.test_nonfinite import config, rows
from vision.checkpoint.reading import load_state
from vision.checkpoint.store import CheckpointStore
from vision.config import specs
from vision.config.cli import parse, run_main
from vision.config.errors import UserError
from vision.config.schema import ConfigError
from vision.config.specs import spec
from vision.models.vit import ViT
from vision.run import loop
from vision.run.loop import train
from vision.run.workdir import WorkdirError
from vision.train import schedule
from vision.weights.init_from import InitFrom


def made(total: int = 6, **values: Any) -> Any:
    changed: Any = config((), total)
    changed.optimizer.schedule = spec(schedule.LinearDecay)
    for path, value in values.items():
        node: Any = changed
        *parents, last = path.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed


def test_a_changed_config_says_what_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(made(6), tmp_path)
    capsys.readouterr()
    changed = made(10, data__batch_size=8)
    train(changed, tmp_path, accept_config_change=True)
    said = capsys.readouterr().err
    assert 'config changed: total: "6 steps" -> "10 steps"' in said
    assert "config changed: data.batch_size: 16 -> 8" in said
    # Linear decay: 0 of the rate at the end of the old run, 4 of 10 left in the new one.
    assert "learning rate of update 7: 0 before, 0.0016 now" in said
    assert "place in the data: example 96 of the stream before, 48 now (batch 6)" in said
    assert "examples in all: 128 (96 so far, 4 steps of 8 to go); 96 before the change" in said
    train(changed, tmp_path)
    assert "config changed" not in capsys.readouterr().err


def test_a_folder_without_a_checkpoint_takes_any_config(tmp_path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_step", lambda *_: (_ for _ in ()).throw(UserError("broken")))
        with pytest.raises(UserError, match="broken"):
            train(made(6), tmp_path)
    # What a run that was killed within its first save leaves is no checkpoint either.
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    train(made(6, seed=3), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 3
    with pytest.raises(WorkdirError, match="another config"):
        train(made(6, seed=4), tmp_path)


def test_a_last_state_that_is_not_saved_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(CheckpointStore, "save", lambda *_, **__: False)
    assert not train(made(2), tmp_path).saved
    said = capsys.readouterr().err
    assert "step 2 is not saved (see above)" in said
    assert "evaluate.py" not in said


@pytest.mark.slow
def test_a_restart_without_checkpoint_and_without_its_weights_says_both(tmp_path: Path):
    train(made(3), tmp_path / "source")
    changed = made(6, init_from=spec(InitFrom, source=f"workdir:{tmp_path / 'source'}"))
    changed.checkpoints.every = "1000 steps"
    train(changed, tmp_path / "w")
    for path in (tmp_path / "w" / "checkpoints").iterdir():
        os.rename(path, tmp_path / f"gone {path.name}")
    os.rename(tmp_path / "source", tmp_path / "moved")
    with pytest.raises(UserError, match=r"w has no checkpoint to go on from.*source"):
        train(changed, tmp_path / "w")


@pytest.mark.slow
def test_a_renamed_workdir_gets_no_second_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the middle of a run the folder is renamed, and another run begins under its name."""
    workdir, moved = tmp_path / "w", tmp_path / "moved"
    step = loop._Loop._step

    def renaming(self: Any) -> None:
        step(self)
        if self.cursor.step == 4 and not moved.exists():
            self.store.finish_save()  # that of step 3 would write into the other's folder
            workdir.rename(moved)
            monkeypatch.setattr(loop._Loop, "_step", step)
            train(made(3, seed=9), workdir)

    monkeypatch.setattr(loop._Loop, "_step", renaming)
    with pytest.raises(WorkdirError, match="was renamed, moved or deleted"):
        train(made(8), workdir)
    assert load_state(workdir)[0] == 3
    assert [row["step"] for row in rows(workdir)] == [1, 2, 3]
    assert {path.name for path in (workdir / "checkpoints").iterdir() if path.is_dir()} == {"3"}
    monkeypatch.undo()
    assert train(made(8), moved).step == 8
    assert [row["step"] for row in rows(moved)] == list(range(1, 9))


def test_home_is_expanded_in_flags(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    options = parse(
        ["--workdir=~/w", "--compare=~/a,~/b,c~", "--config=c.py", "--config.total=~/x"],
        "",
        workdir="",
        compare="",
        config="",
    )
    assert options.workdir == "/home/someone/w"
    assert options.compare == "/home/someone/a,/home/someone/b,c~"
    assert options.overrides == {"total": "~/x"}


def test_a_device_that_is_not_here_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def start(_: list[str]) -> int:
        raise RuntimeError("Unable to initialize backend 'cuda': no such device\nand more")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert run_main(start, []) == 2
    assert capsys.readouterr().err.startswith("error: JAX_PLATFORMS=cuda names a device")


def test_too_little_memory_is_one_line(capsys: pytest.CaptureFixture[str]):
    def start(_: list[str]) -> int:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nat"
        )

    assert run_main(start, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.: take a ")
    assert said.count("\n") == 1


def test_what_a_tower_refuses_of_its_batch_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A ``raise`` of ours; a mistake in ours keeps its traceback."""
    config = specs.load("digits_vit", {"model.patch": "3"})
    with pytest.raises(ConfigError, match="8x8 is not divisible by the patch 3x3"):
        train(config, tmp_path / "patch")

    ours = {"__name__": "vision.mistaken"}
    exec("def mistaken(*_):\n    first, second = 1, 2, 3", ours)
    monkeypatch.setattr(ViT, "_embed", ours["mistaken"])
    with pytest.raises(ValueError, match="too many values"):
        train(specs.load("digits_vit"), tmp_path / "mistake")


def test_a_start_says_what_it_does_and_an_end_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(made(2), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["reading data", "compiling"]
    assert lines[-1] == f"next: python evaluate.py --workdir={tmp_path}"
