"""Trains one experiment; the same command again goes on where the last one stopped.

    python train.py --help

What it does: ``vision/programs/train.py``. An installation has it as ``vision-train``.
"""

from vision.programs.train import console, main

__all__ = ["main"]

if __name__ == "__main__":
    console()
