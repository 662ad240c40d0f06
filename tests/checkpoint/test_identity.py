"""A checkpoint says whose it is; what cannot be read now, or is only named like a step, stays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoint.states import saved, shapes, tree
from vision.checkpoint.commands import main
from vision.checkpoint.identity import CONFIG, remember_earlier
from vision.checkpoint.manifest import CheckpointManifest
from vision.checkpoint.reading import CheckpointError, load_state
from vision.checkpoint.store import Checkpoints, CheckpointStore
from vision.report.files import read_run


def run(workdir: Path, seed: int = 0, **config: int) -> Path:
    """A workdir with the checkpoints of steps 1 and 2."""
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"seed": seed, **config}))
    saved(workdir, {1: tree(1), 2: tree(2)}).close()
    return workdir


def restored_step(workdir: Path) -> int | None:
    store = CheckpointStore(workdir, Checkpoints(keep=9))
    try:
        restored = store.restore(shapes(tree()))
        return None if restored is None else restored[1]["step"]
    finally:
        store.close()


def folders(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir()}


def refused(workdir: Path, words: str, steps: set[str]) -> None:
    """Restoring and reading say why, and nothing is moved."""
    with pytest.raises(CheckpointError, match=words):
        restored_step(workdir)
    with pytest.raises(CheckpointError, match=words):
        load_state(workdir)
    assert folders(workdir) == steps
    assert not (workdir / "quarantine").exists()


def test_swapped_steps_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    workdir = run(tmp_path / "w")
    checkpoints = workdir / "checkpoints"
    for source, goal in (("1", "t"), ("2", "1"), ("t", "2")):
        (checkpoints / source).rename(checkpoints / goal)
    refused(workdir, r"checkpoints/2 holds the checkpoint of step 1: it was renamed", {"1", "2"})
    assert main(["verify", str(workdir)]) == 1
    assert "holds the checkpoint of step 2" in capsys.readouterr().out


def test_a_step_of_another_seed_or_config_is_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    ours, seed = run(tmp_path / "ours"), run(tmp_path / "seed", seed=1)
    config = run(tmp_path / "config", width=2)

    def put(source: Path) -> None:
        shutil.rmtree(ours / "checkpoints" / "2", ignore_errors=True)
        shutil.copytree(source / "checkpoints" / "2", ours / "checkpoints" / "2")

    put(seed)
    refused(ours, r"another run: its seed is 1, that in .*config.json 0", {"1", "2"})
    put(config)
    with pytest.raises(CheckpointError, match=r"2 was saved with another config than .*config"):
        restored_step(ours)
    # An evaluation may have been given another config by hand: it is told, not refused.
    with caplog.at_level(logging.WARNING):
        assert load_state(ours)[0] == 2
    assert "was saved with another config" in caplog.text
    # A change that was accepted is one of this run.
    remember_earlier(ours, (config / "config.json").read_text())
    assert restored_step(ours) == 2


def test_a_checkpoint_from_before_identities_is_read(tmp_path: Path):
    workdir = run(tmp_path / "w")
    path = workdir / "checkpoints" / "2" / "manifest" / "manifest.json"
    plain = json.loads(path.read_bytes().partition(b"\n")[2])
    del plain["step"], plain["run"]
    body = json.dumps(plain).encode()
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert CheckpointManifest.read(path.parents[1]).run is None
    assert restored_step(workdir) == load_state(workdir)[0] == 2


@contextlib.contextmanager
def denied(path: Path) -> Iterator[None]:
    """The file system refuses to read ``path``, also to an administrator's tests."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


@pytest.mark.parametrize("part", ["manifest", "arrays", "folder", "checkpoints"])
def test_what_the_file_system_refuses_is_not_damage(part: str, tmp_path: Path):
    workdir = run(tmp_path / "w")
    step = workdir / "checkpoints" / "2"
    path = {
        "manifest": step / "manifest" / "manifest.json",
        "arrays": max(step.glob("state/**/d/*"), key=lambda file: file.stat().st_size),
        "folder": step,
        "checkpoints": workdir / "checkpoints",
    }[part]
    store = CheckpointStore(workdir, Checkpoints(keep=9))
    for folder in [workdir, *workdir.parents]:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    with denied(path):
        with pytest.raises(CheckpointError, match=r"Permission denied.*nothing was moved"):
            store.restore(shapes(tree()))
        with pytest.raises(CheckpointError, match="Permission denied"):
            load_state(workdir)
    store.close()
    assert folders(workdir) == {"1", "2"}
    assert not (workdir / "quarantine").exists()
    assert restored_step(workdir) == 2


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_again(tmp_path: Path):
    workdir = run(tmp_path / "w")
    for step in ("1", "2"):
        (workdir / "checkpoints" / step / "manifest" / "manifest.json").write_text("x")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"had some: 1-0, 2-0 .* begin at step 0, delete"):
            restored_step(workdir)
    shutil.rmtree(workdir / "quarantine")
    assert restored_step(workdir) is None


def test_junk_names_neither_move_nor_hide_a_step(tmp_path: Path):
    workdir = run(tmp_path / "w")
    checkpoints = workdir / "checkpoints"
    junk = ["002", "²", "2 copy", "2.bak", "-2", "3_backup", "+3", "2e3", "v2"]
    for name in junk:
        shutil.copytree(checkpoints / "1", checkpoints / name)
    shutil.copytree(checkpoints / "1", checkpoints / "٢")  # Orbax would read it as 2
    assert restored_step(workdir) == load_state(workdir)[0] == 2
    store = CheckpointStore(workdir, Checkpoints(keep=1))
    assert store.save(3, tree(3), {"step": 3}, wait=True)
    assert store.steps() == [3]
    store.close()
    assert folders(workdir) == {"3", *junk}
    assert [path.name for path in (workdir / "quarantine").iterdir()] == ["٢-0"]
    assert main(["verify", str(workdir)]) == 0


def test_a_damaged_config_is_what_is_named(tmp_path: Path):
    """And not the checkpoints beside it, which need no moving."""
    workdir = run(tmp_path / "w")
    files = read_run(workdir)
    assert CONFIG not in files.problems
    path = workdir / CONFIG
    path.write_text(path.read_text().replace(":", ";", 1))
    refused(workdir, r"config.json is damaged, so whose .*2 is cannot be told", {"1", "2"})
    path.write_text(path.read_text().replace(";", ":", 1).replace("0", "1", 1))
    problem = read_run(workdir).problems[CONFIG]
    assert problem.startswith("config.json is not what checkpoints/2 was saved with")
