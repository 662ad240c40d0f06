"""Exit statuses: 2 for what the same command would meet again, 1 for what may go well next time."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from vision.checkpoint.manifest import CheckpointError, NoValidCheckpointError, unreadable
from vision.checkpoint.reading import first_line
from vision.config.cli import run_main
from vision.config.errors import UserError, caused_by
from vision.data.workers import WorkerDiedError
from vision.parallel import cluster
from vision.parallel.cluster import ClusterError, LostProcessError
from vision.run.nonfinite import TrainingError
from vision.run.workdir import WorkdirError

ROOT = Path(__file__).resolve().parents[2]


def raised(error: Exception) -> int:
    def main(arguments: list[str]) -> int:
        raise error

    return run_main(main, [])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("x"), 2),
        (WorkdirError("x"), 2),
        (ClusterError("x"), 2),
        (CheckpointError("x"), 2),
        (LostProcessError("x"), 1),
        (NoValidCheckpointError("x"), 1),
        (TrainingError("x"), 1),
        (WorkerDiedError("x"), 1),
        (KeyError("x"), 1),
    ],
)
def test_of_an_error(error: Exception, status: int):
    assert raised(error) == status


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (errno.EIO, 1),
        (errno.ENOSPC, 1),
        (errno.ESTALE, 1),
        (errno.EMFILE, 1),
        (errno.EACCES, 2),
        (errno.ENOTDIR, 2),
        (errno.EROFS, 2),
    ],
)
def test_of_what_the_file_system_says(code: int, status: int, tmp_path):
    cause = OSError(code, "text")
    assert raised(caused_by(WorkdirError("x"), cause)) == status
    assert raised(unreadable(tmp_path, cause)) == status
    assert WorkdirError.status == 2  # of the one error, not of the kind


def test_another_process_ends_with_the_status_of_the_one_that_failed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(cluster, "gather", lambda value: [value, ["disk gone", 1]])
    with pytest.raises(UserError, match="process 1: disk gone") as caught:
        cluster.raise_together(None)
    assert caught.value.status == 1
    monkeypatch.setattr(cluster, "gather", lambda value: [value, None])
    cluster.raise_together(None)


def test_our_warnings_are_seen_and_the_storm_of_a_failed_save_is_not():
    """In a process of its own, as a program: pytest has handlers of its own."""
    program = (
        "import logging, sys\n"
        "from vision.config.cli import run_main\n"
        "def main(arguments):\n"
        "    logging.getLogger('vision.data.loader').warning('seen %d', 1)\n"
        "    for name in ('absl', 'asyncio'):\n"
        "        logging.getLogger(name).error('storm')\n"
        "    return 0\n"
        "sys.exit(run_main(main, []))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "WARNING seen 1\n")


def test_no_module_of_ours_logs_where_programs_are_deaf():
    for path in (ROOT / "vision").rglob("*.py"):
        assert "from absl import logging" not in path.read_text(encoding="utf-8"), path


def test_what_tensorstore_adds_to_an_error_is_left_out():
    details = "[os_error_code='28'] [tensorstore_spec[1]='{...}']"
    error = ValueError(f"DATA_LOSS: bad [x] y {details}\nmore")
    assert first_line(error) == "DATA_LOSS: bad [x] y"
