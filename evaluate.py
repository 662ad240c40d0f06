"""Evaluates a checkpoint of a run and writes evaluation.json and report.html.

    python evaluate.py --help

What it does: ``vision/programs/evaluate.py``. An installation has it as ``vision-evaluate``.
"""

from vision.programs.evaluate import console, main

__all__ = ["main"]

if __name__ == "__main__":
    console()
