"""Papers that remember more than parameters are killed, go on, and end as if nothing had been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fast_compilation import FAST_COMPILATION

ROOT = Path(__file__).resolve().parents[2]
# What each has to remember: files of jobs, and the extra state of a run.
PAPERS: dict[str, dict[str, str]] = {
    "g_simclr:small": {"clusters/clusters.npy": ""},
    "cil_survey:small,learner=wa@4": {
        "memory0/keys.txt": "",
        "memory1/classes.json": "",
        "task1 extra_state": "teacher",
    },
    "pose:small": {},
    "mhim_mil:small": {"mhim extra_state": "teacher"},
    "datadam:small": {},
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_papers_end_with_the_undisturbed_digests():
    # A process of its own: it forks, which one that has used jax must not.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST_COMPILATION}
    command = [sys.executable, "-m", "tests.papers.killed_papers", *PAPERS]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, remembered in PAPERS.items():
        paper = found[name]
        assert 0 < paper["killed_at"] < paper["steps"], name
        assert paper["killed"] == paper["undisturbed"], name
        for place, part in remembered.items():
            assert part in paper["killed"][place], (name, place)
