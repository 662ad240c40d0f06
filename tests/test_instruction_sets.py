"""What a commit's tests run with: every combination and every file has its turn; flags add up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.instruction_sets import HELD_BACK, ROOT, THREADS, environment, turn

FILES = [Path(f"test_{name}.py") for name in "abcde"]


def test_all_have_their_turn():
    turns = [turn(number, FILES, 2) for number in range(9 * len(FILES))]
    assert {(isa, threads) for isa, threads, _ in turns} == {
        (isa, threads) for isa in HELD_BACK for threads in THREADS
    }
    assert {files[0] for *_, files in turns} == set(FILES)
    assert all(len(set(files)) == 2 for *_, files in turns)
    assert turn(7 + 9 * len(FILES), FILES, 2) == turn(7, FILES, 2)


def flags(**variables: str) -> list[str]:
    program = "from tests.fast_compilation import with_devices; print(with_devices(4))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": "", "VISION_TEST_ISA": "", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_flags_of_the_caller_stay():
    plain = flags()
    assert plain[0] == "--xla_force_host_platform_device_count=4"
    given = flags(XLA_FLAGS="--xla_force_host_platform_device_count=3 --xla_cpu_max_isa=AVX2")
    assert sorted(given) == sorted([*plain, "--xla_cpu_max_isa=AVX2"])
    chosen = flags(XLA_FLAGS=" ".join(given), **environment("SSE4_2", 2))
    assert sorted(chosen) == sorted([*plain, "--xla_cpu_max_isa=SSE4_2"])
