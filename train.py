"""Trains one experiment; the same command again goes on where the last one stopped.

    python train.py --help

What it does: ``vision/programs/train.py``. An installation has it as ``vision-train``.
"""

import sys

from vision.config.cli import run_main
from vision.programs.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_main(main, sys.argv[1:]))
