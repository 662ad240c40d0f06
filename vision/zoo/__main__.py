"""Makes, checks and shows the zoo: towers that are trained once, small, by configs, and features.

    python -m vision.zoo                          lists the members that are there
    python -m vision.zoo --make=emoji_cnn         trains one, or goes on; --make=all: every one
    python -m vision.zoo --page=zoo.html          the page of them

Runs lie in --workdirs, workdirs/zoo by default. What a run that was broken off has done is kept:
the same command goes on. zoo/plan.json says which config and seed a
member is of, or of which tower it has features.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vision.config.cli import parse, run_main

WORKDIRS = "workdirs/zoo"


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options = parse(
        arguments,
        __doc__ or "",
        make="member to make, or all",
        page="HTML file to write",
        workdirs=f"folder of the runs; {WORKDIRS} by default",
    )
    from vision.zoo.make import make, plan
    from vision.zoo.page import COLUMNS, FEATURE_COLUMNS, feature_rows, rows, write_page

    if options.make:
        workdirs = Path(str(options.workdirs or WORKDIRS))
        for name in plan() if options.make == "all" else [str(options.make)]:
            make(name, workdirs)
    if options.page:
        write_page(Path(str(options.page)))
        print(f"page: {options.page}")
    if not options.page:
        for row in (COLUMNS, *rows(), FEATURE_COLUMNS, *feature_rows()):
            print("  ".join(row))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
