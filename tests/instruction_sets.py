"""Some test files under another instruction set and another number of threads at every commit.

    python -m tests.instruction_sets [--isa=AVX2] [--threads=8] [--files=8] [file ...]

Sums are taken in another order by every instruction set, in matrix products also by every number
of threads; a test that compares such numbers exactly passes on one machine and fails on the next.
XLA's CPU programs, numpy and OpenBLAS are all held back. The hash of the commit chooses the
instruction set, the threads and, of all test files that use jax and start no process, where the
files begin: all have their turn, but for their slow tests. A file that is named is run alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vision.papers.run_claims import commit

ROOT = Path(__file__).resolve().parents[1]
# What XLA, numpy and OpenBLAS call them; each is a bound, of no effect on an older processor.
HELD_BACK = {
    "SSE4_2": {
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "AVX2": {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL", "OPENBLAS_CORETYPE": "Haswell"},
    "AVX512": {},
}
THREADS = (1, 2, 8)


def numeric_files() -> list[Path]:
    """Test files whose numbers jax computes in the test's own process, by name."""
    found = (path for room in ("tests", "papers") for path in (ROOT / room).rglob("test_*.py"))
    texts = {path: path.read_text() for path in found}
    return sorted(p for p, text in texts.items() if "jax" in text and "subprocess" not in text)


def environment(isa: str, threads: int) -> dict[str, str]:
    """What to add to the environment of a test process."""
    number = str(threads)
    return {
        "VISION_TEST_ISA": isa,
        "NPROC": number,
        "OPENBLAS_NUM_THREADS": number,
        **HELD_BACK[isa],
    }


def turn(number: int, files: Sequence[Path], count: int) -> tuple[str, int, list[Path]]:
    """Instruction set, threads and ``count`` files for the commit of this number."""
    isas = list(HELD_BACK)
    start = number // (len(isas) * len(THREADS)) % max(len(files), 1)
    chosen = [*files[start:], *files[:start]][:count]
    return isas[number % len(isas)], THREADS[number // len(isas) % len(THREADS)], chosen


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.instruction_sets")
    parser.add_argument("--isa", choices=list(HELD_BACK))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--files", type=int, default=8, dest="count")
    parser.add_argument("named", nargs="*")
    options = parser.parse_args(arguments)
    isa, threads, files = turn(commit(ROOT), numeric_files(), options.count)
    isa, threads = options.isa or isa, options.threads or threads
    print(f"instruction set {isa}, threads {threads}", flush=True)
    # Slow ones that lower every config for a TPU would take a quarter of an hour.
    quick = [] if options.named else ["-m", "not slow"]
    command = [sys.executable, "-m", "pytest", *quick, *(options.named or map(str, files))]
    os.execve(sys.executable, command, {**os.environ, **environment(isa, threads)})


if __name__ == "__main__":
    main(sys.argv[1:])
