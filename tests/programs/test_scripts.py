"""The files for clusters: they parse, their flags exist, and the SLURM script decides rightly.

No cluster is at hand: `srun` and `scontrol` are stand-ins that end as told.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
MANIFESTS = sorted((ROOT / "launch").glob("*.yaml"))


def known_flags() -> set[str]:
    text = subprocess.run(
        [sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"^ +(--\w+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path: Path):
    subprocess.run(["bash", "-n", str(path)], check=True, capture_output=True)
    assert os.access(path, os.X_OK)


def test_flags_are_those_of_the_program():
    known = known_flags()
    assert {"--config", "--workdir"} <= known
    used = {
        flag for path in MANIFESTS for flag in re.findall(r"^ +- (--\w+)", path.read_text(), re.M)
    }
    for path in SCRIPTS:
        for line in path.read_text().splitlines():
            if "train.py" in line and "python" in line.lower() and not line.startswith("#"):
                used |= set(re.findall(r"(--\w+)", line.partition("train.py")[2]))
    assert "--distributed" in used
    assert used <= known


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_agree_with_themselves(path: Path):
    manifest = yaml.safe_load(path.read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (group,) = manifest["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert job["parallelism"] == job["completions"]
    assert job["completionMode"] == "Indexed"
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [2],
    }
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    config = next(a for a in container["command"] if a.startswith("--config="))
    assert (ROOT / config.removeprefix("--config=")).exists()
    workdir = next(a for a in container["command"] if a.startswith("--workdir="))
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(workdir.removeprefix("--workdir=").startswith(mount) for mount in mounts)
    variables = {variable["name"]: variable for variable in container.get("env", [])}
    if variables:
        assert int(variables["JAX_NUM_PROCESSES"]["value"]) == job["completions"]
        host, _, port = variables["JAX_COORDINATOR_ADDRESS"]["value"].rpartition(":")
        name = manifest["metadata"]["name"]
        assert host == f"{name}-{group['name']}-0-0.{name}"
        assert int(port) in [p["containerPort"] for p in container["ports"]]
        assert "JAX_PROCESS_ID" in variables
    else:
        assert "--distributed" in container["command"]


def slurm(folder: Path, statuses: list[int], end_in_s: int | None) -> tuple[int, list[str], str]:
    """Runs the SLURM script against an `srun` that ends with one status after the other."""
    (folder / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    tools = {
        "srun": 'echo "srun $*" >> calls\n'
        "read -r status < statuses; sed -i 1d statuses; exit $status",
        "scontrol": 'echo "scontrol $*" >> calls',
    }
    for name, body in tools.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    end = {} if end_in_s is None else {"SLURM_JOB_END_TIME": str(int(time.time()) + end_in_s)}
    done = subprocess.run(
        [str(ROOT / "launch" / "slurm.sh"), "--config=c.py", "--workdir=w w"],
        cwd=folder,
        env={"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **end},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, (folder / "calls").read_text().splitlines(), done.stdout


@pytest.mark.parametrize(
    ("statuses", "end_in_s", "status", "starts", "requeued"),
    [
        ([0], 5000, 0, 1, False),
        ([2, 0], 5000, 2, 1, False),
        ([134, 137, 0], 5000, 0, 3, False),
        ([1] * 9, 5000, 1, 4, False),
        ([143], 250, 143, 1, True),  # its time was up
        ([143], 5000, 143, 1, False),  # preempted or cancelled
        ([143], None, 143, 1, False),
    ],
)
def test_slurm_script_restarts_and_requeues(
    tmp_path: Path,
    statuses: list[int],
    end_in_s: int | None,
    status: int,
    starts: int,
    requeued: bool,
):
    code, calls, _ = slurm(tmp_path, statuses, end_in_s)
    assert code == status
    runs = [call for call in calls if call.startswith("srun")]
    assert len(runs) == starts
    assert runs[0].endswith("train.py --config=c.py --workdir=w w --distributed")
    assert ("scontrol requeue 7" in calls) == requeued


def test_tpu_script_runs_the_program_and_stops_it(tmp_path: Path):
    home = tmp_path / "home"
    (home / "vision" / ".venv" / "bin").mkdir(parents=True)
    tools = {
        # One worker, on this machine.
        tmp_path / "gcloud": f'echo "$*" >> {tmp_path}/calls; last="${{@: -1}}"; '
        f'cd {home}; exec bash -c "${{last#--command=}}"',
        home / "vision" / ".venv" / "bin" / "python": 'printf "%s\\n" "$@"; exec sleep 60',
    }
    for path, body in tools.items():
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    script = str(ROOT / "launch" / "tpu_vm.sh")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.Popen(
        [script, "run", "pod", "zone", "--config=c.py", "--workdir=/mnt/w w"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        said = [run.stdout.readline().rstrip("\n") for _ in range(4)]
        assert said == ["train.py", "--config=c.py", "--workdir=/mnt/w w", "--distributed"]
        subprocess.run([script, "stop", "pod", "zone"], env=environment, check=True, timeout=20)
        assert run.wait(timeout=20) == 128 + 15
    finally:
        run.kill()
        run.communicate()
    calls = (tmp_path / "calls").read_text()
    assert calls.count("compute tpus tpu-vm ssh pod --zone=zone --worker=all") == 2
    wrong = subprocess.run([script, "fly", "pod", "zone"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "setup, run or stop" in wrong.stderr
