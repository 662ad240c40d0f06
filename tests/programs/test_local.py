"""The launcher: real processes that end, fail, hang, are killed, and are started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vision.programs.launch import Launch, environment, main

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(120)

# What every program below starts with: one file per process and attempt says that it is there.
PREAMBLE = """
import os, pathlib, signal, sys, time
index = int(os.environ["JAX_PROCESS_ID"])
folder = pathlib.Path(sys.argv[1])
attempt = len(list(folder.glob(f"pid.{index}.*")))
def ready():
    part = folder / f"part.{index}.{attempt}"
    part.write_text(str(os.getpid()))
    part.rename(folder / f"pid.{index}.{attempt}")
"""
READY = "\nready()\n"
SAVES = """
def handle(number, frame):
    (folder / f"saved.{index}").touch()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, handle)
signal.signal(signal.SIGINT, handle)
"""


def start(folder: Path, program: str, *flags: str, **options) -> subprocess.Popen[str]:
    path = folder / "program.py"
    path.write_text(PREAMBLE + program)
    command = [sys.executable, "-m", "vision.programs.launch", *flags, "--", str(path), str(folder)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(launcher: subprocess.Popen[str], seconds: float = 40) -> tuple[int, str, str]:
    try:
        out, err = launcher.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        launcher.kill()
        raise
    return launcher.returncode, out, err


def pids(folder: Path, *names: str, seconds: float = 30) -> list[int]:
    """Waits for the processes named ``index.attempt`` to be ready."""
    deadline = time.monotonic() + seconds
    paths = [folder / f"pid.{name}" for name in names]
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, sorted(p.name for p in folder.iterdir())
        time.sleep(0.02)
    return [int(path.read_text()) for path in paths]


def gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_processes_know_each_other_and_their_lines_are_told_apart(tmp_path: Path):
    program = """
names = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "XLA_FLAGS", "JAX_PLATFORMS"
print(index, *(os.environ[name] for name in names))
print("oh", index, file=sys.stderr)
"""
    flags = ("--processes", "3", "--devices", "2", "--logs", str(tmp_path / "logs"))
    status, out, err = finish(start(tmp_path, program, *flags))
    assert status == 0
    assert len(out.splitlines()) == 1
    assert err == "oh 0\n"
    logs = [(tmp_path / "logs" / f"process_{i}.log").read_text() for i in (1, 2)]
    assert [sorted(log.splitlines())[1] for log in logs] == ["oh 1", "oh 2"]
    addresses = {line.split()[1] for line in [out, *(min(log.splitlines()) for log in logs)]}
    assert len(addresses) == 1
    assert addresses.pop().startswith("127.0.0.1:")
    assert out.split()[2] == "3"
    assert out.split()[-2:] == ["--xla_force_host_platform_device_count=2", "cpu"]

    status, out, err = finish(start(tmp_path, program, "--devices=1"))
    assert status == 0
    assert sorted(line[:6] for line in out.splitlines()) == ["0 127.", "[1] 1 "]
    assert sorted(err.splitlines()) == ["[1] oh 1", "oh 0"]


def test_lines_written_in_pieces_stay_whole(tmp_path: Path):
    program = """
for i in range(200):
    print(index, "of", "many", "pieces", i)
print(index, "no end of the line", end="")
"""
    status, out, err = finish(start(tmp_path, program, "--devices=1", "--processes=3"))
    assert status == 0, err
    each = [*(f"of many pieces {i}" for i in range(200)), "no end of the line"]
    prefixes = ("0", "[1] 1", "[2] 2")
    assert sorted(out.splitlines()) == sorted(f"{p} {text}" for p in prefixes for text in each)


def test_device_count_replaces_that_of_the_caller(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    given = environment(Launch(("x.py",), devices=2), 1, "127.0.0.1:5")
    assert given["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=2"
    kept = environment(Launch(("x.py",)), 1, "127.0.0.1:5")
    assert kept["XLA_FLAGS"].endswith("=8")
    assert kept["JAX_PROCESS_ID"] == "1"


def test_all_start_again_when_one_is_killed(tmp_path: Path):
    program = READY + "time.sleep(60 if attempt == 0 else 0)"
    launcher = start(tmp_path, program, "--restarts=1", "--grace=5")
    first, second = pids(tmp_path, "0.0", "1.0")
    os.kill(second, signal.SIGKILL)
    status, _, err = finish(launcher)
    assert status == 0
    assert "process 1 died of SIGKILL: ending the others" in err
    assert "restart 1 of 1" in err
    assert gone(first)
    assert (tmp_path / "pid.0.1").exists()
    assert (tmp_path / "pid.1.1").exists()


@pytest.mark.parametrize(
    ("code", "attempts", "said"),
    [
        (2, 1, "process 1 ended with status 2: an error of the user"),
        (7, 3, "process 1 ended with status 7; giving up after 2 restarts"),
    ],
)
def test_status_of_the_one_that_failed(tmp_path: Path, code: int, attempts: int, said: str):
    program = READY + f"time.sleep(60) if index == 0 else sys.exit({code})"
    status, _, err = finish(start(tmp_path, program, "--restarts=2"))
    assert status == code
    assert said in err
    assert len(list(tmp_path.glob("pid.1.*"))) == attempts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_once(tmp_path: Path, number: int):
    launcher = start(tmp_path, SAVES + READY + "time.sleep(60)", "--processes=2")
    pids(tmp_path, "0.0", "1.0")
    launcher.send_signal(number)
    status, _, err = finish(launcher)
    assert status == 128 + number
    assert err == ""
    assert (tmp_path / "saved.0").exists()
    assert (tmp_path / "saved.1").exists()


def test_stopping_one_process_stops_all_without_a_restart(tmp_path: Path):
    launcher = start(tmp_path, SAVES + READY + "time.sleep(60)", "--grace=0.5")
    _, second = pids(tmp_path, "0.0", "1.0")
    os.kill(second, signal.SIGTERM)
    status, _, err = finish(launcher)
    assert status == 143
    assert "restart" not in err
    assert (tmp_path / "saved.0").exists()


def test_second_signal_ends_processes_that_do_not_listen(tmp_path: Path):
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY + "time.sleep(60)"
    launcher = start(tmp_path, deaf)
    children = pids(tmp_path, "0.0", "1.0")
    launcher.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert launcher.poll() is None
    launcher.send_signal(signal.SIGTERM)
    status, _, err = finish(launcher)
    assert status == 128 + signal.SIGKILL
    assert "while stopping" in err
    assert all(map(gone, children))


# Whatever a process starts, which outlives a parent that is killed.
WORKER = """
import subprocess
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(folder / f"worker.{index}").write_text(str(worker.pid))
"""


def workers(folder: Path) -> list[int]:
    return [int((folder / f"worker.{index}").read_text()) for index in range(2)]


def test_nothing_is_left_when_the_launcher_is_killed(tmp_path: Path):
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" + WORKER + READY + "time.sleep(60)"
    launcher = start(tmp_path, deaf)
    children = pids(tmp_path, "0.0", "1.0")
    launcher.kill()
    launcher.communicate(timeout=30)
    assert all(map(gone, [*children, *workers(tmp_path)]))


def test_what_a_dead_process_had_started_ends_with_it(tmp_path: Path):
    wait = "while not (folder / 'pid.0.0').exists(): time.sleep(0.02)\n"
    program = WORKER + READY + wait + "os._exit(3) if index else time.sleep(60)"
    status, _, _ = finish(start(tmp_path, program, "--restarts=0", "--grace=5"))
    assert status == 3
    assert all(map(gone, workers(tmp_path)))


@pytest.mark.slow
def test_a_set_that_makes_no_progress_starts_again(tmp_path: Path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    beat = workdir / "heartbeat.json"
    beat.write_text("of an earlier run")
    os.utime(beat, (1, 1))
    # The file of an earlier run is no reason to end one that takes its time to start.
    program = (
        READY
        + f"""
if attempt == 0:
    time.sleep(1.5)
    pathlib.Path({str(beat)!r}).write_text("1")
    time.sleep(60)
"""
    )
    path = tmp_path / "program.py"
    path.write_text(PREAMBLE + program)
    command = [sys.executable, "-m", "vision.programs.launch", "--stall=1", "--grace=5", "--"]
    launcher = subprocess.Popen(
        [*command, str(path), str(tmp_path), f"--workdir={workdir}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    status, _, err = finish(launcher)
    assert status == 0
    assert time.monotonic() - began >= 2.5
    assert "heartbeat.json has not changed for 1 s" in err
    assert "restart 1 of 3" in err


@pytest.mark.slow
def test_two_jax_processes_go_on_after_one_was_killed(tmp_path: Path):
    program = (
        f"sys.path.insert(0, {str(ROOT)!r})"
        + """
from vision.parallel import cluster
cluster.join(detect=False, heartbeat_s=10, connect_s=60)
import jax, jax.numpy as jnp
from jax.experimental import multihost_utils
saved = folder / "step"
step = cluster.agree(int(saved.read_text()) if saved.exists() else 0)
print("from", step, jax.device_count(), flush=True)
while step < 60:
    total = int(multihost_utils.process_allgather(jnp.ones(())).sum())
    assert total == 2, total
    step += 1
    if cluster.is_main():
        (folder / "part").write_text(str(step))
        (folder / "part").rename(saved)
    if step == 20 and attempt == 0:
        ready()
    time.sleep(0.02)
cluster.leave()
"""
    )
    launcher = start(tmp_path, program, "--devices=2", "--grace=2", "--restarts=1")
    _, second = pids(tmp_path, "0.0", "1.0", seconds=60)
    os.kill(second, signal.SIGKILL)
    status, out, err = finish(launcher, seconds=60)
    assert status == 0, err
    assert "process 1 died of SIGKILL" in err
    assert (tmp_path / "step").read_text() == "60"
    starts = [line for line in out.splitlines() if line.startswith("from")]
    assert starts[0] == "from 0 4"
    assert int(starts[1].split()[1]) >= 19


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--stall=5", "--", "x.py"], "--workdir"),
        (["--processes=0", "--", "x.py"], "not above 0"),
        (["--processes=2"], "command"),
    ],
)
def test_wrong_flags(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    assert said in capsys.readouterr().err
