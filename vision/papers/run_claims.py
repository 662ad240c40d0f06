"""Running claims, each in a process of its own: on the CPU, with full optimisation.

A claim is not run by the tests' pytest: their ``conftest.py`` compiles fast and asks for eight
devices.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vision.config.errors import UserError
from vision.papers.discover import Entry, PaperError
from vision.papers.ledger import CLAIM, ROOT, margin_fault

BUDGET_S = 90.0
# What tests tell XLA to be done sooner, and what would change the numbers of a claim.
DROPPED_XLA_FLAGS = (
    "--xla_force_host_platform_device_count",
    "--xla_backend_optimization_level",
    "--xla_cpu_use_fusion_emitters",
)


def run(folders: Sequence[Path], root: Path, record: bool) -> int:
    """Runs claims one after the other and prints how they ended.

    Args:
      folders: of papers.
      root: of the repository; compiled programs are kept in its ``.cache/jax``.
      record: write ``result.json``.

    Returns:
      Exit status: 0 when every claim came out as its file says, else 1.

    Raises:
      UserError: a paper has no claim, its margin is to be recorded before it was committed, or
        pytest is not installed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise UserError("claims are run by pytest, which is not installed: pip install pytest")
    for folder in folders:
        if not (folder / CLAIM).is_file():
            raise PaperError(f"{folder.name} has no claim: {folder / CLAIM} is not there")
        if record and (fault := margin_fault(folder / CLAIM)):
            raise PaperError(fault)
    failed = []
    for i, folder in enumerate(folders, 1):
        print(f"[{i}/{len(folders)}] {folder.name}", flush=True)
        done = subprocess.run(
            command(folder, record), cwd=root, env=environment(folder, root), check=False
        )
        failed += [folder.name] if done.returncode else []
    if failed:
        print(f"{len(failed)} of {len(folders)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def command(folder: Path, record: bool) -> list[str]:
    """The arguments of pytest for a claim; no ini file and no ``conftest.py`` has a say."""
    return [
        *(sys.executable, "-m", "pytest", str(folder / CLAIM)),
        *("-p", "vision.papers.pytest_claims", "-p", "no:cacheprovider", "--noconftest"),
        *("-o", "addopts=", "-o", "testpaths=", "-q", "-rP"),
        *(["--record"] if record else []),
    ]


def environment(folder: Path, root: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a claim's process: JAX on the CPU, a shared cache, imports found."""
    flags = [
        flag
        for flag in base.get("XLA_FLAGS", "").split()
        if flag.partition("=")[0] not in DROPPED_XLA_FLAGS
    ]
    # An outsider's folder is a package in the folder that holds it.
    own = [] if folder.parent == root / "papers" else [str(folder.parent)]
    paths = [*own, str(root), str(ROOT), *filter(None, [base.get("PYTHONPATH")])]
    return {
        "JAX_COMPILATION_CACHE_DIR": str(root / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **base,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }


def claimed(entries: Sequence[Entry]) -> list[Path]:
    """Folders of the papers that have a claim."""
    return [entry.folder for entry in entries if entry.file(CLAIM)]


def sample(claims: Sequence[tuple[Path, float]], turn: int, budget_s: float) -> list[Path]:
    """Some of the claims, other ones for every commit: what CI runs of them.

    Claims from ``turn`` on, around the end, whose seconds fit into a budget; the first one is
    taken whatever it needs, so that every claim has its turn.

    Args:
      claims: folders with their recorded seconds.
      turn: any number; modulo the claims it is the first.
      budget_s: seconds.
    """
    start = turn % len(claims) if claims else 0
    chosen: list[Path] = []
    left = budget_s
    for path, seconds in (*claims[start:], *claims[:start]):
        if not chosen or seconds <= left:
            chosen.append(path)
            left -= seconds
    return chosen


def sampled(entries: Sequence[Entry], root: Path, budget_s: float = BUDGET_S) -> list[Path]:
    """The sample of a commit: its hash says where in the alphabet it begins.

    A count of commits would be the same number in every shallow clone. Claims without a result
    have nothing to be compared with and are left out.
    """
    claims = [(e.folder, e.result.seconds) for e in entries if e.file(CLAIM) and e.result]
    if not claims:
        raise PaperError(f"{root / 'papers'} has no claim with a result")
    return sample(claims, commit(root), budget_s)


def commit(root: Path) -> int:
    """The hash of the commit as a number; 0 outside a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    return int(found.stdout.strip() or "0", 16) if found.returncode == 0 else 0
