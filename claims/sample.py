"""Some of the claims, other ones for every commit: what CI runs of them.

    python -m claims.sample [--budget_s=90]

Prints files for pytest. The commit's hash says with which claim, in order of their names, the
sample begins; the next ones join as far as their recorded seconds fit into the budget. The first
one is taken whatever it needs, so that every claim has its turn. A commit count would be the same
number in every shallow clone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from claims.ledger import ROOT, claim_files, read, result_file

BUDGET_S = 90.0


def sample(claims: Sequence[tuple[Path, float]], turn: int, budget_s: float) -> list[Path]:
    """Claims from ``turn`` on, around the end, whose seconds fit into a budget; at least one.

    Args:
      claims: files with their recorded seconds.
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


def commit() -> int:
    """The hash of the commit as a number; 0 outside a git checkout."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return int(found.stdout.strip() or "0", 16) if found.returncode == 0 else 0


def main(arguments: Sequence[str]) -> int:
    budget_s = BUDGET_S
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name != "--budget_s" or not value.replace(".", "", 1).isdigit():
            print(f"{argument}: the only argument is --budget_s=<seconds>", file=sys.stderr)
            return 2
        budget_s = float(value)
    claims = [(path, read(result_file(path)).seconds) for path in claim_files()]
    if not claims:
        print("there are no claims", file=sys.stderr)
        return 1
    for path in sample(claims, commit(), budget_s):
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
