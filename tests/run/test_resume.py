"""A run that is killed, stopped or damaged ends as the undisturbed run does."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fast_compilation import FAST_COMPILATION
from vision.checkpoint.reading import load_state
from vision.run.log import read_rows
from vision.train.state import digest

ROOT = Path(__file__).resolve().parents[2]
TOTAL = 240
COMMAND = [
    sys.executable,
    str(ROOT / "train.py"),
    f"--config={ROOT / 'configs' / 'digits_vit.py'}",
    "--config.model.width=16",
    "--config.model.depth=1",
    "--config.model.dropout=0.1",
    "--config.data.batch_size=16",
    "--config.data.threads=2",
    f"--config.total={TOTAL} steps",
    "--config.optimizer.schedule.warmup=0 steps",
    "--config.log_every=1 steps",
    "--config.checkpoints.every=20 steps",
    "--config.checkpoints.keep=3",
    "--config.evaluate_every=60 steps",
]
ENVIRONMENT = {
    **os.environ,
    "XLA_FLAGS": FAST_COMPILATION,
    "JAX_PLATFORMS": "cpu",
}

pytestmark = pytest.mark.timeout(280)


def start(workdir: Path, *extra: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, f"--workdir={workdir}", *extra],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(workdir: Path, *extra: str, **options) -> tuple[int, str]:
    with start(workdir, *extra, **options) as process:
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def rows(workdir: Path) -> list[dict]:
    return read_rows(workdir / "metrics.jsonl")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, limit_s: float = 90) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the run did not get there in time"
        time.sleep(0.02)


def measured(workdir: Path) -> list[dict]:
    """Rows without what depends on the clock."""
    timed = re.compile("images_per_s|data_wait|goodput|seconds/.*")
    return [{k: v for k, v in row.items() if not timed.fullmatch(k)} for row in rows(workdir)]


@dataclasses.dataclass(frozen=True)
class Reference:
    """The run that nothing happened to."""

    workdir: Path
    digest: str
    rows: list[dict]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    workdir = tmp_path_factory.mktemp("undisturbed")
    status, errors = run(workdir)
    assert status == 0, errors
    step, state = load_state(workdir)
    assert step == TOTAL
    return Reference(workdir, digest(state), measured(workdir))


def assert_same(workdir: Path, undisturbed: Reference) -> None:
    step, state = load_state(workdir)
    assert step == TOTAL
    assert digest(state) == undisturbed.digest
    found = measured(workdir)
    assert [row["step"] for row in found] == list(range(1, TOTAL + 1))
    assert found == undisturbed.rows


@pytest.mark.parametrize("kills", [(141,), pytest.param((30, 130), marks=pytest.mark.slow)])
def test_kill_9_and_resume_end_with_the_undisturbed_digest(
    kills: tuple[int, ...], tmp_path: Path, undisturbed: Reference
):
    for kill_after in kills:
        with start(tmp_path) as process:
            wait_for(lambda n=kill_after: len(rows(tmp_path)) >= n, process)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
    status, errors = run(tmp_path)
    assert status == 0, errors
    assert "resumed from the checkpoint" in errors
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_sigterm_saves_that_very_step_and_exits_143(tmp_path: Path, undisturbed: Reference):
    with start(tmp_path) as process:
        wait_for(lambda: len(rows(tmp_path)) >= 50, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    step, _ = load_state(tmp_path)
    assert step == rows(tmp_path)[-1]["step"] < TOTAL
    status, errors = run(tmp_path)
    assert f"resumed from the checkpoint of step {step}" in errors
    assert status == 0
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_junk_and_damaged_checkpoints_are_set_aside(tmp_path: Path, undisturbed: Reference):
    shutil.copytree(undisturbed.workdir, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "9999").mkdir()
    (checkpoints / "notes.txt").write_text("not a checkpoint")
    (checkpoints / str(TOTAL) / "_CHECKPOINT_METADATA").unlink()
    for file in (checkpoints / str(TOTAL - 20) / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    status, errors = run(tmp_path)
    assert status == 0, errors
    assert f"resumed from the checkpoint of step {TOTAL - 40}" in errors
    for step in (9999, TOTAL, TOTAL - 20):
        assert f"checkpoints/{step} is not usable" in errors
        assert (tmp_path / "quarantine" / f"{step}-0").exists()
    assert (checkpoints / "notes.txt").exists()
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_workdir_of_another_config_is_refused_untouched(tmp_path: Path, undisturbed: Reference):
    shutil.copytree(undisturbed.workdir, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "config.json").read_text()
    status, errors = run(tmp_path, "--config.model.width=32")
    assert status == 2
    assert "config.model.width: 16 -> 32" in errors
    assert "--workdir" in errors
    assert (tmp_path / "config.json").read_text() == before
    status, errors = run(tmp_path, "--config.model.width=32", "--accept_config_change")
    assert status == 2
    assert "holds another model's state" in errors
    assert load_state(tmp_path)[0] == TOTAL
    # What does not shape the state may change.
    status, errors = run(tmp_path, f"--config.total={TOTAL + 10} steps", "--accept_config_change")
    assert status == 0, errors
    assert load_state(tmp_path)[0] == TOTAL + 10


@pytest.mark.slow
@pytest.mark.parametrize("at_start", [True, False])
def test_a_full_disk_keeps_the_last_good_checkpoint(
    at_start: bool, tmp_path: Path, undisturbed: Reference
):
    """A limit on file sizes stands in for a full disk. Where not even metrics.jsonl fits, the run
    is refused at its start; where only checkpoints do not, it goes on without them and says so."""
    shutil.copytree(undisturbed.workdir, tmp_path, dirs_exist_ok=True)
    if not at_start:
        (tmp_path / "metrics.jsonl").unlink()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    longer = (f"--config.total={TOTAL + 20} steps", "--accept_config_change")
    found, errors = run(tmp_path, *longer, preexec_fn=limit)
    assert found == 1, errors  # with more room it may go well
    if at_start:
        assert "error: workdir" in errors
        assert "cannot be written" in errors
    else:
        assert "could not be written" in errors
    step, state = load_state(tmp_path)
    assert step == TOTAL
    assert digest(state) == undisturbed.digest


@pytest.mark.slow
def test_an_unwritable_workdir_and_a_second_run_are_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("x")
    status, errors = run(file / "run")
    assert status == 2
    assert "cannot be written" in errors
    with start(tmp_path / "run") as process:
        wait_for(lambda: (tmp_path / "run" / "config.json").exists(), process)
        status, errors = run(tmp_path / "run")
        process.kill()
        process.communicate()
    assert status == 2
    assert "in use by another process" in errors


def test_digest_command_needs_no_config(tmp_path: Path, undisturbed: Reference):
    shutil.copytree(undisturbed.workdir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").unlink()
    command = [sys.executable, "-m", "vision.checkpoint.store", "digest", str(tmp_path)]
    done = subprocess.run(
        command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{undisturbed.digest}  step {TOTAL}\n"
    command[-1] = str(tmp_path / "nowhere")
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "holds no valid checkpoint" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_config_is_written_as_it_was_used(undisturbed: Reference):
    written = json.loads((undisturbed.workdir / "config.json").read_text())
    assert written["model"]["width"] == 16
    assert written["data"]["batch_size"] == 16
