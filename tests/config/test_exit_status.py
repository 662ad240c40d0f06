"""Exit statuses: 2 for what the same command would meet again, 1 for what may go well next time."""

from __future__ import annotations

import errno

import pytest

from vision.checkpoint.manifest import CheckpointError, NoValidCheckpointError, unreadable
from vision.config.cli import run_main
from vision.config.errors import UserError, caused_by
from vision.data.workers import WorkerDiedError
from vision.parallel import cluster
from vision.parallel.cluster import ClusterError, LostProcessError
from vision.run.nonfinite import TrainingError
from vision.run.workdir import WorkdirError


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
